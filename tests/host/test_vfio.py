"""Guests that use a device of the host's (VFIO), behind an IOMMU that is emulated, too."""

import re
from collections.abc import Iterator

import pytest

from support.domains import FILE_BACKED
from support.real_host import MEMORY, Boot, RealHost, guest_xml

pytestmark = pytest.mark.soak

CARD = "/sys/bus/pci/devices/0000:00:10.0"
DEVICE = """\
<hostdev mode='subsystem' type='pci' managed='yes'>
  <source><address domain='0x0000' bus='0x00' slot='0x10' function='0x0'/></source>
  <rom bar='off'/>
</hostdev>"""
SIZE_MIB = 256
NOT_PINNED = "(Bad address)"
"""What QEMU says where the kernel does not pin the guest's memory: EFAULT of VFIO_IOMMU_MAP_DMA."""

CONF = "/etc/ramshelf/ramshelf.conf"
SWAP, EXT4, XFS = "--kind swap", "--kind disk --fs ext4", "--kind disk --fs xfs"


@pytest.fixture(scope="module")
def host(boot: Boot) -> Iterator[RealHost]:
    """A host with an IOMMU, a network card that no driver has, and the hook."""
    append = "intel_iommu=on modprobe.blacklist=e1000e"
    devices = "-device intel-iommu -device e1000e,bus=pcie.0,addr=0x10"
    with boot("vfio", "--append", append, "--qemu", devices) as equipped:
        equipped.run("ramshelf hook install")
        yield equipped


@pytest.fixture
def stored(host: RealHost, request: pytest.FixtureRequest) -> Iterator[RealHost]:
    """The same with a store, and at the end without guests, store, and anything of theirs."""
    host.run(f"ramshelf store create {request.param} --device /dev/vdb --size 2G")
    yield host
    host.remove_guests()
    host.run(f"rm -f {CONF}")
    assert host.said(f"ls {MEMORY} | grep -v lost+found", ok=(0, 1)) == ""
    assert host.json("capacity")["promised_mib"] == 0
    assert not given_away(host)
    host.run("ramshelf store remove")


def given_away(host: RealHost) -> bool:
    """Tell whether the card is in the hands of VFIO."""
    return host.holds(f"readlink {CARD}/driver | grep -q vfio-pci")


def vm(host: RealHost, guest: str, field: str) -> int:
    """Return a field of a QEMU's /proc/PID/status, in MiB."""
    pid = f"$(cat /run/libvirt/qemu/{guest}.pid)"
    return int(host.said(f"awk '/^{field}:/ {{ print $2 }}' /proc/{pid}/status")) // 1024


def guests(host: RealHost) -> dict[str, tuple[int, int]]:
    """Return the MiB that each guest has allocated on the store, and what of it is in RAM."""
    found = host.json("guest", "list")["guests"]
    return {each["name"]: (each["allocated_mib"], each["resident_mib"]) for each in found}


def pinned_mib(host: RealHost) -> int:
    return int(host.json("capacity")["ram"]["parts"]["pinned_mib"])


def reclaim(host: RealHost, guest: str) -> None:
    """Have the kernel take as much of a guest's RAM as it can."""
    scope = f"/sys/fs/cgroup/machine.slice/*{guest}.scope"
    host.run(f"for group in {scope}; do echo 1G >$group/memory.reclaim; done", ok=(0, 1))


@pytest.mark.parametrize("stored", [SWAP], indirect=True)
def test_its_memory_stays_in_ram_and_is_in_the_sum(stored: RealHost) -> None:
    stored.define(guest_xml("vfio", SIZE_MIB, devices=DEVICE))
    stored.define(guest_xml("plain", SIZE_MIB, dirty_mib=64))
    stored.run("virsh --quiet start plain")
    stored.wait_console("plain", "DIRTIED")
    assert pinned_mib(stored) == 0
    stored.run("virsh --quiet start vfio")
    assert given_away(stored)
    assert guests(stored)["vfio"] == (SIZE_MIB, SIZE_MIB)  # although it has not booted yet
    assert vm(stored, "vfio", "VmLck") >= SIZE_MIB
    assert pinned_mib(stored) == SIZE_MIB
    stored.wait_console("vfio", "GUEST-UP")
    before = guests(stored)["plain"][1]
    for guest in ("plain", "vfio"):
        reclaim(stored, guest)
    after = guests(stored)
    assert after["plain"][1] < before - 64
    assert after["vfio"] == (SIZE_MIB, SIZE_MIB)
    assert not {"guest.hot-pinned", "ram.exceeded"} & stored.findings().keys()
    stored.run("virsh --quiet destroy vfio")
    assert pinned_mib(stored) == 0


@pytest.mark.parametrize("stored", [SWAP], indirect=True)
def test_a_second_one_that_ram_cannot_hold_is_refused(stored: RealHost) -> None:
    """The store has room for both."""
    ram = stored.json("capacity")["ram"]["size_mib"]
    stored.run(
        f"mkdir -p /etc/ramshelf && cat >{CONF}",
        stdin=f"[ramshelf]\nhost_reserved_memory_mb = {ram - 600}\n",
    )
    stored.define(guest_xml("locked", SIZE_MIB, memory_backing=f"<locked/>{FILE_BACKED}"))
    stored.define(guest_xml("vfio", SIZE_MIB, devices=DEVICE))
    stored.run("virsh --quiet start locked")
    said = stored.run("virsh start vfio", ok=(1,)).stderr
    assert re.search(
        r"Guest vfio needs \d+ MiB of RAM .* pinned guests 256, .*\[ram.exceeded\]", said
    )
    assert not given_away(stored)
    assert "vfio" not in guests(stored)
    stored.run("virsh --quiet destroy locked && virsh --quiet start vfio")


@pytest.mark.parametrize("stored", [EXT4, XFS], indirect=True)
def test_a_disk_store_refuses_it_as_the_kernel_would(stored: RealHost) -> None:
    stored.define(guest_xml("vfio", SIZE_MIB, devices=DEVICE))
    said = stored.run("virsh start vfio", ok=(1,)).stderr
    assert "Guest vfio has a host device or is encrypted, and Linux" in said
    assert "[guest.passthrough]" in said
    stored.run("ramshelf hook remove")
    try:
        assert NOT_PINNED in stored.run("virsh start vfio", ok=(1,)).stderr
    finally:
        stored.run("ramshelf hook install")


@pytest.mark.parametrize("stored", [SWAP], indirect=True)
def test_one_that_is_plugged_into_a_running_guest_is_told_of(stored: RealHost) -> None:
    stored.define(guest_xml("guest", SIZE_MIB))
    stored.run("virsh --quiet start guest")
    stored.wait_console("guest", "GUEST-UP")
    assert guests(stored)["guest"][1] < SIZE_MIB
    assert "guest.hot-pinned" not in stored.findings()
    stored.run("virsh --quiet attach-device guest /dev/stdin", stdin=DEVICE)
    assert guests(stored)["guest"] == (SIZE_MIB, SIZE_MIB)
    assert "guest.hot-pinned" in stored.findings()
    stored.run("ramshelf agent install")
    try:
        stored.wait("ramshelf capacity --json | grep -q '\"pinned_mib\": 256'", "it counts")
    finally:
        stored.run("ramshelf agent remove")


@pytest.mark.parametrize("stored", [EXT4], indirect=True)
def test_one_that_is_plugged_in_on_a_disk_store_does_no_harm(stored: RealHost) -> None:
    """The kernel refuses, and the guest goes on."""
    stored.define(guest_xml("guest", SIZE_MIB, options="ramshelf.count"))
    stored.run("virsh --quiet start guest")
    stored.wait_console("guest", "COUNT 1")
    said = stored.run("virsh attach-device guest /dev/stdin", ok=(1,), stdin=DEVICE).stderr
    assert NOT_PINNED in said
    assert not given_away(stored)
    console = "/var/log/libvirt/qemu/guest.console"
    counted = int(stored.said(f"grep -c COUNT {console}"))
    stored.wait(f"[ $(grep -c COUNT {console}) -gt {counted + 5} ]", "the guest goes on")
