"""The one sum of what cannot go to the store, held against what guests of all kinds really take."""

import json
from pathlib import Path

import pytest

from ramshelf.core.domain.memory import parse_guest
from ramshelf.core.ram import HostRam, ram_demand
from ramshelf.core.record import replace
from ramshelf.core.store.kind import Kind
from ramshelf.core.store.ledger import note_of
from ramshelf.core.units import MIB, align_up, to_mib
from ramshelf.node.guest.late import reserve_late
from ramshelf.node.store.clean import list_directories
from ramshelf.system import ledger, livestate
from ramshelf.system.procfs import meminfo, swaps
from support.cgroup import memory_limit
from support.cli import ramshelf
from support.devices import no_swap, own_swaps
from support.domains import FILE_BACKED, domain_xml, qemu_pid, wait_console
from support.libvirtd import Libvirtd
from support.onstore import wait_noted
from support.stores import store

CONF = Path("/etc/ramshelf/ramshelf.conf")
GUEST_MIB = 128
KINDS = {
    "anonymous": "",
    "memfd": "<source type='memfd'/>",
    "shared": FILE_BACKED,
    "private": "<source type='file'/>",
    "locked": f"<locked/>{FILE_BACKED}",
}


def xml(kind: str, memory_mib: int = GUEST_MIB, options: str = "") -> str:
    return domain_xml(
        kind, memory_mib, dirty_mib="all", memory_backing=KINDS[kind], options=options
    )


def kinds(libvirtd: Libvirtd) -> list[str]:
    """All of them, but for those that lock memory where the machine lets nobody do that."""
    created = libvirtd.create(xml("locked"), ok=(0, 1))
    assert "ramshelf" not in created.stderr
    if created.status != 0:
        return [kind for kind in KINDS if kind != "locked"]
    libvirtd.virsh("destroy", "locked")
    return list(KINDS)


def started(libvirtd: Libvirtd, name: str, document: str) -> int:
    """The QEMU of a guest of which the hook has noted all that it notes."""
    libvirtd.create(document)
    return wait_noted(name)


def status(pid: int) -> dict[str, int]:
    """Bytes of what /proc/PID/status gives in kB."""
    fields = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0][:-1]: int(words[1]) << 10 for words in fields if words[-1] == "kB"}


def anonymous(pid: int) -> int:
    """The process's own pages, in bytes, by its mappings (proc_pid_smaps(5))."""
    [line] = [
        line
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("Anonymous:")
    ]
    return int(line.split()[1]) << 10


def ram() -> dict[str, int]:
    told = json.loads(ramshelf("capacity", "--json").stdout)["ram"]
    return {**told, **told["parts"]}


@pytest.mark.parametrize("file_system", ["tmpfs", "ext4"])
def test_what_guests_of_all_kinds_take_is_in_the_sum(hooked: Libvirtd, file_system: str) -> None:
    with no_swap(), store(file_system, 640):
        pids = {kind: started(hooked, kind, xml(kind)) for kind in kinds(hooked)}
        for kind in pids:
            wait_console(kind, "DIRTIED")
        taken = {kind: anonymous(pid) for kind, pid in pids.items()}
        tables = sum(status(pid)["VmPTE"] for pid in pids.values())
        shared = status(pids["memfd"])["RssShmem"]
        if file_system == "tmpfs":
            shared += sum(file.allocated for each in list_directories() for file in each.memory)
        else:
            shared += status(pids["locked"])["RssFile"] if "locked" in pids else 0
        told = ram()
        needed = told["needed_mib"] - told["host_mib"] - told["huge_pages_mib"]
        used = to_mib(sum(taken.values()) + shared + tables)
        assert used <= needed
        assert needed < 1.8 * used
        # QEMU's own, where it can be told from the guest's: its memory is in no page of QEMU's own.
        apart = [kind for kind in pids if kind not in {"anonymous", "private"}]
        own = sum(taken[kind] for kind in apart) + tables
        assert to_mib(own) <= (told["overhead_mib"] + told["page_tables_mib"]) * len(apart) // len(
            pids
        )
        assert to_mib(taken["private"]) > GUEST_MIB * 3 // 4  # as much again as on the store


def test_nobody_is_killed_when_all_use_all_that_they_were_promised(hooked: Libvirtd) -> None:
    """All guests write all their memory on a host with as much RAM as the sum says.

    For the rest it has swap.
    """
    memory_mib = 160
    with store("swap", 1000):
        [area] = [area for area in swaps() if area.path in own_swaps()]
        host = HostRam(size=0, huge_pages=0, reserved=0, swap=area.size, kind=Kind.SWAP)
        documents = {kind: xml(kind, memory_mib, "ramshelf.rewrite") for kind in kinds(hooked)}
        demand = ram_demand(
            [note_of(parse_guest(document)) for document in documents.values()], host
        )
        assert demand.anonymous + demand.private + demand.store == 0
        libvirt_itself = 64
        with memory_limit(hooked.pid, to_mib(align_up(demand.total, MIB)) + libvirt_itself):
            pids = {kind: started(hooked, kind, document) for kind, document in documents.items()}
            for kind in pids:
                wait_console(kind, "ROUND 1", timeout=400)
            assert {kind: qemu_pid(kind) for kind in pids} == pids
            [area] = [area for area in swaps() if area.path in own_swaps()]
            assert area.used > 50 * MIB
            for kind in pids:
                hooked.virsh("destroy", kind)


def test_anonymous_guests_that_use_up_ram_are_told_of_and_never_refused(hooked: Libvirtd) -> None:
    host = meminfo()
    left_mib = 300
    reserved = (host["MemTotal"] - host.get("Hugetlb", 0)) // MIB - left_mib
    CONF.parent.mkdir(exist_ok=True)
    CONF.write_text(f"[ramshelf]\nhost_reserved_memory_mb = {reserved}\n")
    with no_swap(), store("ext4", 640):
        hooked.create(domain_xml("one", GUEST_MIB, memory_backing=""))
        assert ram()["anonymous_alone"] is False
        hooked.create(domain_xml("two", GUEST_MIB, memory_backing=""))
        assert ram()["anonymous_alone"] is True
        shown = ramshelf("capacity")
        assert "anonymous guests 256 MiB, QEMU 288 MiB" in shown.stdout
        assert "note: Anonymous guests alone may use up RAM" in shown.stderr
        said = hooked.create(domain_xml("filed", GUEST_MIB), ok=(1,)).stderr
        assert "Guest filed needs 145 MiB of RAM that cannot go to the store" in said
        assert "[ram.exceeded]" in said
        # Of a guest that is too large for the store as well, that is said: no RAM would help.
        assert "[capacity.exceeded]" in hooked.create(domain_xml("large", 1024), ok=(1,)).stderr
        codes = findings()
        assert {"ram.anonymous", "ram.exceeded"} <= codes
        hooked.virsh("destroy", "two")
        assert "ram.anonymous" not in findings()


def test_a_device_that_was_plugged_in_is_told_of_and_counts(hooked: Libvirtd) -> None:
    """No machine of the tests has a device to plug in: the guest is said to have one."""
    with no_swap(), store("tmpfs", 640):
        started(hooked, "plugged", domain_xml("plugged", GUEST_MIB))
        live = livestate.read_live("plugged")
        note = ledger.read_note("plugged")
        assert live is not None
        assert live.guest is not None
        assert note is not None
        before = ram()
        reserve_late(replace(live.guest, passthrough=True))
        noted = ledger.read_note("plugged")
        assert noted == replace(note, plugged=GUEST_MIB * MIB)
        assert ram()["pinned_mib"] == before["pinned_mib"] + GUEST_MIB
        reserve_late(live.guest)
        assert ledger.read_note("plugged") == note


def test_one_that_pins_more_than_it_was_admitted_for_is_told_of(hooked: Libvirtd) -> None:
    """As after a device was plugged in, this guest locks its memory, and its note denies that."""
    with no_swap(), store("tmpfs", 640):
        if "locked" not in kinds(hooked):
            pytest.skip("this machine lets nobody lock memory")
        started(hooked, "locked", xml("locked"))
        assert "guest.hot-pinned" not in findings()
        note = ledger.read_note("locked")
        assert note is not None
        ledger.write_note(replace(note, pinned=0))
        assert "guest.hot-pinned" in findings()


def test_a_note_of_an_older_version_is_completed(hooked: Libvirtd) -> None:
    with no_swap(), store("ext4", 640):
        started(hooked, "old", domain_xml("old", GUEST_MIB, memory_backing="<source type='file'/>"))
        note = ledger.read_note("old")
        assert note is not None
        assert (note.memory, note.private, note.vcpus) == (GUEST_MIB * MIB, GUEST_MIB * MIB, 1)
        ledger.write_note(replace(note, memory=0, private=0, vcpus=0, emulated=False))
        assert ram()["private_mib"] == GUEST_MIB
        hooked.create(domain_xml("other", GUEST_MIB))
        assert ledger.read_note("old") == note  # all else that it said is as it was


def findings() -> set[str]:
    shown = ramshelf("doctor", "--json", ok=(0, 1, 2))
    return {each["code"] for each in json.loads(shown.stdout)["findings"]}
