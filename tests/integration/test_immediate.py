"""Memory that QEMU allocates itself before the guest runs (allocation immediate), as Nova has it.

The hook makes the files and promises them, but gives them no extents. So QEMU may meet a store that
somebody has filled since, and the guest must not run then.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from ramshelf.core.units import MIB
from ramshelf.system.run import Completed
from support.agent import Agent, agent
from support.cli import ramshelf
from support.domains import FILE_BACKED, domain_xml, wait_console
from support.libvirtd import Libvirtd
from support.onstore import assert_reserved, capacity, wait_recorded
from support.process import run, wait_until
from support.stores import MEMORY, store

IMMEDIATE = f"{FILE_BACKED}<allocation mode='immediate'/>"
STORE_MIB = 800
LARGE_MIB = 512
DISKS = pytest.mark.parametrize("file_system", ["ext4", "xfs"])


def left() -> tuple[set[str], int]:
    """The guests that have something on the store, and the MiB that are promised."""
    return {path.name.partition("-")[2] for path in MEMORY.glob("*-*")}, capacity()["promised_mib"]


@contextmanager
def allocating(libvirtd: Libvirtd, name: str) -> Iterator[Future[Completed]]:
    """While QEMU allocates the memory of a large guest; what comes of ``virsh create``.

    QEMU is stopped in the middle of it, and goes on at the end.
    """
    xml = domain_xml(name, LARGE_MIB, memory_backing=IMMEDIATE)
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(libvirtd.create, xml, ok=(0, 1))
        wait_until(lambda: allocates(name), f"QEMU allocates {name}")
        try:
            assert allocated(name) < LARGE_MIB * MIB
            assert not started.done()
            yield started
        finally:
            signal_qemu(name, "CONT")


def allocates(name: str) -> bool:
    """Let QEMU go on for a moment, and tell whether it has begun to allocate."""
    signal_qemu(name, "CONT")
    time.sleep(0.02)
    signal_qemu(name, "STOP")
    return allocated(name) > 0


def signal_qemu(name: str, signal: str) -> None:
    run("pkill", f"-{signal}", "-f", f"guest={name},", ok=(0, 1))


def allocated(name: str) -> int:
    return sum(file.stat().st_blocks * 512 for file in MEMORY.glob(f"*-{name}/pc.ram"))


@DISKS
def test_its_files_have_no_extents_to_be_converted(hooked: Libvirtd, file_system: str) -> None:
    with store(file_system):
        for name, backing in (("at-once", IMMEDIATE), ("on-demand", FILE_BACKED)):
            hooked.create(domain_xml(name, 64, memory_backing=backing))
            assert_reserved(name, 64)
            [file] = MEMORY.glob(f"*-{name}/pc.ram")
            extents = run("filefrag", "-s", "-v", str(file)).stdout
            assert ("unwritten" in extents) == (name == "on-demand"), extents
        assert "guest.not-reserved" not in ramshelf("doctor", ok=(0, 1, 2)).stdout


@DISKS
def test_a_store_that_is_filled_meanwhile(hooked: Libvirtd, file_system: str) -> None:
    """QEMU gives up, the others keep what they have, and once there is room the guest starts."""
    with store(file_system, STORE_MIB):
        hooked.create(domain_xml("other", 128, memory_backing=IMMEDIATE))
        large = domain_xml("large", LARGE_MIB, memory_backing=IMMEDIATE)
        with filled_once_promised("large", but_mib=LARGE_MIB // 2) as foreign:
            said = hooked.create(large, ok=(1,)).stderr
            assert "preallocating memory failed" in said, said
            assert foreign.exists()
        assert left() == ({"other"}, 128)
        foreign.unlink()
        hooked.create(large)
        assert_reserved("large", LARGE_MIB)
        wait_console("other", "GUEST-UP")


@contextmanager
def filled_once_promised(name: str, *, but_mib: int) -> Iterator[Path]:
    """The file of somebody's who takes what is free, but so much, before QEMU of a guest starts."""
    foreign = MEMORY / "foreign"
    script = Path("/etc/libvirt/hooks/qemu.d/zz-foreign")
    script.write_text(
        "#!/bin/sh\n"
        f'[ "$1 $2" = "{name} start" ] || exit 0\n'
        f"free=$(df --output=avail --block-size=1M {MEMORY} | tail -n 1)\n"
        f"fallocate --length $((free - {but_mib}))MiB {foreign}\n"
    )
    script.chmod(0o755)
    try:
        yield foreign
    finally:
        script.unlink()


@DISKS
@pytest.mark.parametrize("victim", ["qemu", "libvirtd"])
def test_killed_meanwhile(hooked: Libvirtd, file_system: str, victim: str) -> None:
    """Nothing is left of the guest, and it starts again."""
    with store(file_system, STORE_MIB):
        with allocating(hooked, "large") as started:
            said = ramshelf("doctor", ok=(0, 1, 2)).stdout
            assert "guest.not-reserved" not in said
            assert not started.done()
            if victim == "qemu":
                signal_qemu("large", "KILL")
            else:
                hooked.kill()
        assert started.result().status == 1
        if victim == "libvirtd":
            hooked.start()
            hooked.virsh("destroy", "large", ok=(0, 1))
        wait_until(lambda: left() == (set(), 0), "nothing is left of large")
        hooked.create(domain_xml("large", LARGE_MIB, memory_backing=IMMEDIATE))
        assert_reserved("large", LARGE_MIB)


def test_the_agent_tells_of_its_start_once_however_long_that_takes(hooked: Libvirtd) -> None:
    """libvirt has it among the active ones from the beginning, and tells of it at the end."""
    with store("ext4", STORE_MIB), agent() as running:
        with allocating(hooked, "large"):
            wait_looks(running, 3)
        assert running.wait_log("guest-started", guest="large")["reason"] == "booted"
        wait_looks(running, 3)
        assert running.events().count("guest-started") == 1


def wait_looks(running: Agent, number: int) -> None:
    for _ in range(number):
        looked = running.scrape()["ramshelf_look_timestamp_seconds"]
        running.wait_metric(
            "ramshelf_look_timestamp_seconds",
            lambda value, looked=looked: value > looked,  # type: ignore[misc]
        )


@DISKS
def test_two_at_once(hooked: Libvirtd, file_system: str) -> None:
    """What QEMU has yet to allocate is promised: of two of which one fits, one is refused."""
    with store(file_system, STORE_MIB):
        with allocating(hooked, "large") as started:
            second = domain_xml("second", 256, memory_backing=IMMEDIATE)
            assert "[capacity.exceeded]" in hooked.create(second, ok=(1,)).stderr
            hooked.create(domain_xml("third", 64, memory_backing=IMMEDIATE))
        assert started.result().status == 0
        assert left() == ({"large", "third"}, LARGE_MIB + 64)


@DISKS
def test_what_is_plugged_in_later(hooked: Libvirtd, file_system: str) -> None:
    """A DIMM, and memory of virtio-mem that is not plugged in yet, stay promised."""
    size = "<size unit='MiB'>128</size><node>0</node>"
    dimm = f"<memory model='dimm'><target>{size}</target></memory>"
    vmem = (
        f"<memory model='virtio-mem'><target>{size}<block unit='MiB'>2</block>"
        "<requested unit='MiB'>64</requested></target></memory>"
    )
    xml = domain_xml(
        "grows",
        256,
        memory_backing=IMMEDIATE,
        cpu="<cpu><numa><cell id='0' cpus='0' memory='131072' unit='KiB'/></numa></cpu>",
        top="<maxMemory slots='2' unit='MiB'>384</maxMemory>",
        devices=vmem,
    )
    with store(file_system, 500):
        hooked.create(xml)
        wait_recorded("grows", "started")
        hooked.virsh("attach-device", "grows", "/dev/stdin", stdin=dimm)
        [path] = MEMORY.glob("*-grows")
        found = {file.name: file.stat() for file in path.iterdir()}
        full = {name: s.st_blocks * 512 >= s.st_size for name, s in found.items()}
        assert (full["ram-node0"], full["dimm0"], full["virtiomem0"]) == (True, True, False), full
        assert capacity()["promised_mib"] == 384
