"""Guests whose memory stays in RAM are admitted against RAM as well as against the store.

Each needs besides what QEMU does, page tables and a tmpfs' own records.
"""

import os
from pathlib import Path

import pytest

from ramshelf.core.requirements import LONG_TERM_PIN_REFUSED_SINCE, version
from ramshelf.core.store.ledger import Note
from ramshelf.core.units import MIB
from ramshelf.system import ledger
from ramshelf.system.procfs import meminfo
from support.cli import ramshelf
from support.devices import no_swap
from support.domains import FILE_BACKED, domain_xml
from support.libvirtd import Libvirtd
from support.onstore import wait_noted
from support.process import run
from support.stores import MEMORY, store

CONF = Path("/etc/ramshelf/ramshelf.conf")
SCRIPT = "/etc/libvirt/hooks/qemu.d/ramshelf"
LOCKED = f"<locked/>{FILE_BACKED}"
QEMU_MIB = 144 + 5 * 8 + min(meminfo()["MemTotal"] // 8 // MIB, 1024)
"""What QEMU takes of RAM besides, emulating with one vCPU and all that it maps locked."""


def leave_for_guests(mib: int) -> None:
    """RAM that guests may pin."""
    host = meminfo()
    reserved = (host["MemTotal"] - host.get("Hugetlb", 0)) // MIB - mib
    CONF.parent.mkdir(exist_ok=True)
    CONF.write_text(f"[ramshelf]\nhost_reserved_memory_mb = {reserved}\n")


def contents() -> list[str]:
    return [path.name for path in MEMORY.iterdir() if path.name != "lost+found"]


def test_one_that_ram_cannot_hold_is_refused(hooked: Libvirtd, tmp_path: Path) -> None:
    with no_swap(), store(size_mib=512):
        leave_for_guests(128 + QEMU_MIB - 27)
        said = hooked.create(domain_xml("pinned", 128, memory_backing=LOCKED), ok=(1,)).stderr
        assert f"Guest pinned needs {129 + QEMU_MIB} MiB of RAM that cannot go to the store" in said
        assert "[ram.exceeded]" in said
        assert contents() == []
        path = tmp_path / "pinned.xml"
        path.write_text(domain_xml("pinned", 128, memory_backing=LOCKED))
        assert (
            "[ram.exceeded]\nhint: Its memory is locked"
            in ramshelf("guest", "start", str(path), ok=(1,)).stderr
        )
        leave_for_guests(130 + QEMU_MIB)
        # Whether QEMU may lock its memory is up to the machine; ramshelf has nothing against it.
        assert (
            "ramshelf"
            not in hooked.create(domain_xml("pinned", 128, memory_backing=LOCKED), ok=(0, 1)).stderr
        )


def test_the_others_count_wherever_their_memory_is(hooked: Libvirtd) -> None:
    """What libvirt has put on record of a guest that runs counts, without asking libvirt."""
    hooked.create(domain_xml("other", 200, memory_backing=""))
    wait_noted("other")
    record = Path("/run/libvirt/qemu/other.xml")
    text = record.read_text()
    record.write_text(text.replace("<os>", "<memoryBacking><locked/></memoryBacking><os>", 1))
    ledger.remove_note("other")  # as of one that was started without the hook
    with no_swap(), store(size_mib=512):
        leave_for_guests(446 + QEMU_MIB)
        said = hooked.create(domain_xml("pinned", 128, memory_backing=LOCKED), ok=(1,)).stderr
        assert f"pinned guests 200, QEMU {QEMU_MIB}, page tables 1)" in said
        record.write_text(text)
        ledger.remove_note("other")
        said = hooked.create(domain_xml("pinned", 128, memory_backing=LOCKED), ok=(1,)).stderr
        assert "anonymous guests 200, QEMU 144, page tables 1)" in said
        leave_for_guests(475 + QEMU_MIB)
        assert (
            "ramshelf"
            not in hooked.create(domain_xml("pinned", 128, memory_backing=LOCKED), ok=(0, 1)).stderr
        )


def test_one_that_is_just_starting_counts(hooked: Libvirtd) -> None:
    """No two guests ever get the same RAM.

    What the hook has noted counts before libvirt has a record of the guest.
    """
    with no_swap(), store(size_mib=512):
        leave_for_guests(256 + QEMU_MIB)
        ledger.write_note(
            Note(
                name="starting",
                uuid="",
                domain_id=77,
                pinned=128 << 20,
                starter=ledger.starter_of(hooked.pid),
                since=ledger.clock(),
            )
        )
        said = hooked.create(domain_xml("pinned", 128, memory_backing=LOCKED), ok=(1,)).stderr
        assert "pinned guests 128" in said


@pytest.mark.parametrize("file_system", ["ext4", "xfs", "swap"])
def test_a_host_device_where_its_memory_cannot_be_pinned(
    hooked: Libvirtd, file_system: str
) -> None:
    """This machine has no device to give away: the hook is asked as libvirt asks it."""
    del hooked
    device = "<hostdev mode='subsystem' type='pci'><source/></hostdev>"
    xml = domain_xml("vfio", devices=device).replace("<domain ", "<domain id='7' ")
    with store(file_system):
        (MEMORY / "7-vfio").mkdir()
        refused = (
            file_system != "swap" and version(os.uname().release) >= LONG_TERM_PIN_REFUSED_SINCE
        )
        ended = run(
            SCRIPT, "vfio", "start", "begin", "-", stdin=xml, ok=(1, 10) if refused else (0,)
        )
        assert ("[guest.passthrough]" in ended.stderr) is refused
        assert [path.name for path in (MEMORY / "7-vfio").iterdir()] == (
            [] if refused else ["pc.ram"]
        )
