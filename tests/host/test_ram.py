"""What keeps a guest's memory in RAM or out of it: a limit of libvirt's, and locked memory."""

from collections.abc import Iterator

import pytest

from support.domains import FILE_BACKED
from support.real_host import MEMORY, RealHost, guest_xml

pytestmark = pytest.mark.soak

SIZE_MIB = 256
LIMIT_MIB = 160
"""What the guest may have of RAM, QEMU's own 50 MiB included."""

MEMTUNE = f"<memtune><hard_limit unit='MiB'>{LIMIT_MIB}</hard_limit></memtune>"
SCOPE = "/sys/fs/cgroup/machine.slice/machine-qemu*guest.scope"
PID = "$(cat /run/libvirt/qemu/guest.pid)"


@pytest.fixture(scope="module", autouse=True)
def store(machine: RealHost) -> Iterator[None]:
    """A swap store with the hook."""
    machine.run("ramshelf store create --kind swap --device /dev/vdb --size 2G")
    machine.run("ramshelf hook install")
    yield
    for noun in ("hook", "store"):
        machine.run(f"ramshelf {noun} remove")


@pytest.fixture(autouse=True)
def no_guests(machine: RealHost) -> Iterator[None]:
    """Each test begins without guests."""
    yield
    machine.remove_guests()


def figure(machine: RealHost, path: str, name: str = "") -> int:
    """Return a figure of a file such as memory.events, by its name if it has several."""
    words = machine.said(f"cat {path}").replace(":", " ").split()
    return int(words[words.index(name) + 1] if name else words[0])


def swapped_mib(machine: RealHost) -> int:
    """Return the MiB in the store's swap, which is all that the host has."""
    return int(machine.said("awk 'NR > 1 { print int($4 / 1024) }' /proc/swaps"))


def test_a_guest_above_its_limit_goes_to_the_store_and_lives(machine: RealHost) -> None:
    """It writes all its memory, more than it may have of RAM."""
    machine.define(guest_xml("guest", SIZE_MIB, dirty_mib="all", top=MEMTUNE))
    machine.run("virsh --quiet start guest")
    assert f"{LIMIT_MIB << 20}" in machine.said(f"cat {SCOPE}/memory.max {SCOPE}/*/memory.max")
    pid = machine.said(f"echo {PID}")
    machine.wait_console("guest", "DIRTIED")
    assert machine.said(f"echo {PID}") == pid
    assert figure(machine, f"{SCOPE}/memory.events", "oom_kill") == 0
    assert figure(machine, f"{SCOPE}/memory.current") <= LIMIT_MIB << 20
    assert swapped_mib(machine) >= SIZE_MIB - LIMIT_MIB
    [guest] = machine.json("guest", "list")["guests"]
    assert guest["resident_mib"] < LIMIT_MIB < guest["allocated_mib"]
    machine.run("virsh --quiet destroy guest")
    assert machine.said(f"ls {MEMORY}") == ""
    assert swapped_mib(machine) < 16  # what others have there


def test_locked_memory_stays_in_ram_and_is_in_the_sum(machine: RealHost) -> None:
    machine.define(guest_xml("guest", SIZE_MIB, memory_backing=f"<locked/>{FILE_BACKED}"))
    machine.run("virsh --quiet start guest")
    machine.wait_console("guest", "GUEST-UP")
    assert figure(machine, f"/proc/{PID}/status", "VmLck") >> 10 >= SIZE_MIB
    machine.run(f"cd {SCOPE} && echo 1G >memory.reclaim", ok=(0, 1))
    [guest] = machine.json("guest", "list")["guests"]
    assert guest["resident_mib"] == guest["allocated_mib"] == SIZE_MIB
    assert figure(machine, f"/proc/{PID}/status", "VmSwap") == 0
    ram = machine.json("capacity")["ram"]
    assert ram["parts"]["pinned_mib"] == SIZE_MIB
    own = figure(machine, f"/proc/{PID}/status", "RssAnon") >> 10
    assert own <= ram["parts"]["overhead_mib"]
    machine.run("virsh --quiet destroy guest")
    assert machine.json("capacity")["ram"]["parts"]["pinned_mib"] == 0
