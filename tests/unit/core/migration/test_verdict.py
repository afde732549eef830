"""Which guests can move to which hosts."""

from dataclasses import fields
from typing import Any

import pytest

from ramshelf.core.domain.memory import Guest, parse_guest
from ramshelf.core.errors import RefusedError
from ramshelf.core.migration.answer import HostAnswer, Side, read_answer
from ramshelf.core.migration.table import HOSTS, cell
from ramshelf.core.migration.verdict import Host, Moving, Verdict, Way, judge
from ramshelf.core.record import replace
from ramshelf.core.store.kind import Kind

NO_HOOK = "no: `migration.no-hook`"
FLOORS = "no: `migration.no-hook`, `versions.libvirt-old`, `versions.qemu-old`"
STAYS_ANONYMOUS = "live, postcopy, cold"
TO_FILE = "cold: `migration.becomes-file-backed`"
TO_ANONYMOUS = "cold: `migration.becomes-anonymous`"
TO_TMPFS = "live, postcopy, cold, with discard"
TO_DISK = "live, cold"
TO_NO_DISCARD = "live, postcopy, cold"
SORTS = (
    "anonymous",
    "file, disk",
    "file, tmpfs",
    "file, no discard",
    "below the floors",
    "no hook",
)
EXPECTED = {
    "anonymous": (STAYS_ANONYMOUS, TO_FILE, TO_FILE, TO_FILE, NO_HOOK, NO_HOOK),
    "file, disk": (TO_ANONYMOUS, TO_DISK, TO_TMPFS, TO_NO_DISCARD, FLOORS, NO_HOOK),
    "file, tmpfs": (TO_ANONYMOUS, TO_DISK, TO_TMPFS, TO_NO_DISCARD, FLOORS, NO_HOOK),
    "file, no discard": (TO_ANONYMOUS, TO_DISK, TO_TMPFS, TO_NO_DISCARD, FLOORS, NO_HOOK),
    "below the floors": (STAYS_ANONYMOUS, TO_FILE, TO_FILE, TO_FILE, NO_HOOK, NO_HOOK),
    "no hook": (TO_ANONYMOUS, TO_DISK, TO_TMPFS, TO_NO_DISCARD, FLOORS, NO_HOOK),
}
"""The expected answers, found by hand, by where a guest comes from.

Each has an answer for each sort of host that the guest may go to, in the order of SORTS.
"""


@pytest.mark.parametrize("source", SORTS)
@pytest.mark.parametrize("destination", SORTS)
def test_all_pairs(source: str, destination: str) -> None:
    assert tuple(HOSTS) == SORTS
    assert cell(source, destination) == EXPECTED[source][SORTS.index(destination)]


FILE = "<source type='file'/><access mode='shared'/>"


def guest(backing: str = FILE, devices: str = "", top: str = "") -> Guest:
    return parse_guest(
        f"<domain type='kvm'><name>web1</name>{top}<memory unit='MiB'>1024</memory>"
        f"<memoryBacking>{backing}</memoryBacking>"
        "<os><type arch='x86_64' machine='q35'>hvm</type></os>"
        f"<devices>{devices}</devices></domain>"
    )


ANSWER = HostAnswer(
    kernel="6.8.1",
    kind=Kind.SWAP,
    fstype="tmpfs",
    configured=True,
    free_mib=2048,
    pinnable_mib=1200,
)
THERE = Host(name="host2", uuid="2", libvirt=(9, 0, 0), qemu=(7, 2, 0), answer=ANSWER)
XFS: dict[str, Any] = {"kind": Kind.DISK, "fstype": "xfs"}
PCI = "<hostdev mode='subsystem' type='pci'/>"


def verdict(moving: Guest | None = None, **answer: Any) -> Verdict:
    there = replace(THERE, answer=replace(ANSWER, **answer))
    return judge(Moving(guest=moving or guest(), host_uuid="1"), there)


def bars(judged: Verdict) -> dict[str, str]:
    """By code what it bars, the initials of the ways."""
    return {
        reason.code: "".join(way.name[0] for way in Way if way in reason.bars)
        for reason in judged.reasons
    }


@pytest.mark.parametrize(
    ("judged", "expected"),
    [
        (verdict(), {}),
        (verdict(free_mib=1024), {}),
        (verdict(free_mib=1023), {"capacity.exceeded": "LPC"}),
        (
            verdict(guest(""), free_mib=1023),
            {"capacity.exceeded": "LPC", "migration.becomes-file-backed": "LP"},
        ),
        (
            verdict(guest(top="<maxMemory slots='1' unit='MiB'>4096</maxMemory>")),
            {"capacity.exceeded": "LPC"},
        ),
        (verdict(**XFS), {"migration.postcopy": "P"}),
        (verdict(userfault=False), {"migration.userfaultfd": "P"}),
        (verdict(off=True), {"migration.becomes-anonymous": "LP"}),
        (verdict(guest(""), off=True), {}),
        (verdict(kind=None, fstype=None), {"store.not-mounted": "LPC"}),
        (verdict(kind=None, problem="store.unsupported"), {"store.unsupported": "LPC"}),
        (
            verdict(kind=None, problem="store.not-mounted", configured=False),
            {"store.not-mounted": "LPC"},
        ),
        (
            verdict(kind=None, problem="store.root-file-system", configured=False),
            {"migration.becomes-anonymous": "LP"},
        ),
        (verdict(guest(f"<locked/>{FILE}")), {"migration.locked": "P"}),
        (
            verdict(guest(f"<locked/>{FILE}"), pinnable_mib=1100),
            {"ram.exceeded": "LPC", "migration.locked": "P"},
        ),
        # QEMU 96 and 8 MiB, page tables 4, the records of the tmpfs 2.25, and of the swap 2.
        (verdict(pinnable_mib=113), {}),
        (verdict(pinnable_mib=112), {"ram.exceeded": "LPC"}),
        (verdict(pinnable_mib=1024, kind=Kind.RAM), {"ram.exceeded": "LPC"}),
        (verdict(guest(""), pinnable_mib=0, off=True), {}),
        (verdict(guest(devices=PCI)), {"migration.device": "LP"}),
        (
            verdict(guest(devices=PCI), **XFS),
            {"guest.passthrough": "LPC", "migration.device": "LP", "migration.postcopy": "P"},
        ),
        (
            verdict(guest(devices=PCI), kernel="6.1.0", **XFS),
            {"migration.device": "LP", "migration.postcopy": "P"},
        ),
        (
            verdict(guest(f"<hugepages/>{FILE}")),
            {"migration.becomes-file-backed": "LP"},
        ),
    ],
)
def test_what_a_host_can_take(judged: Verdict, expected: dict[str, str]) -> None:
    assert bars(judged) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"active": False}, {"migration.not-running": "LP"}),
        ({"saved": True}, {"migration.saved": "C"}),
        ({"taken": True}, {"migration.exists": "LPC"}),
        ({"claimable_mib": 1024}, {}),
        ({"claimable_mib": 1023}, {"placement.full": "LPC"}),
        ({"host_uuid": "2", "taken": True}, {"migration.same-host": "LPC"}),
        (
            {"inconvertible": RefusedError("xml.hugepages", "No.", hint="Yes.")},
            {"xml.hugepages": "C"},
        ),
        (
            {"active": False, "saved": True, "taken": True},
            {"migration.exists": "LPC", "migration.not-running": "LP", "migration.saved": "C"},
        ),
    ],
)
def test_what_a_guest_can_do(changes: dict[str, Any], expected: dict[str, str]) -> None:
    moving = replace(Moving(guest=guest(), host_uuid="1"), **changes)
    assert bars(judge(moving, THERE)) == expected


def test_a_host_below_the_floors_keeps_a_guest_from_becoming_file_backed() -> None:
    old = replace(THERE, libvirt=(3, 9, 0))
    assert bars(judge(Moving(guest=guest(""), host_uuid="1"), old)) == {
        "migration.becomes-file-backed": "LP",
        "versions.libvirt-old": "C",
    }


def test_a_newer_qemu_may_have_a_device_for_page_faults() -> None:
    newer = replace(THERE, qemu=(8, 1, 0), answer=replace(ANSWER, userfault=False))
    assert bars(judge(Moving(guest=guest(), host_uuid="1"), newer)) == {}


def test_an_answer_comes_back_through_what_libvirt_makes_of_it() -> None:
    sizes: dict[str, Any] = {
        field.name: 2**31 for field in fields(HostAnswer) if field.name.endswith("_mib")
    }
    longest = replace(
        ANSWER, kernel="6.18.0-rc1-" + "x" * 40, problem="store.root-file-system", **sizes
    )
    for answer in (longest, HostAnswer(kernel="6.1")):
        said = f"unexpected exit status 1: ramshelf: the hook answers x.\n{answer.line()}\n"
        assert read_answer(" ".join(said.split())) == answer
        assert len(answer.line()) < 450  # of 1023 bytes, of which libvirt takes some 300


@pytest.mark.parametrize(
    "said",
    [
        "",
        "ramshelf-host",
        "ramshelf-host {}",
        'ramshelf-host {"kernel":"6.1","ki',
        'ramshelf-host {"kernel":1,"kind":"?"}',
    ],
)
def test_what_is_no_answer(said: str) -> None:
    assert read_answer(said) is None


@pytest.mark.parametrize(
    ("fstype", "kernel", "freely"),
    [
        ("tmpfs", "6.1.0", True),
        ("ext4", "6.14.0-rc1", True),
        ("ext4", "6.1.0-56-cloud-amd64", False),
        ("xfs", "6.18.0", False),
        (None, "6.18.0", False),
    ],
)
def test_where_discarding_memory_writes_nothing(
    fstype: str | None, kernel: str, *, freely: bool
) -> None:
    assert replace(ANSWER, fstype=fstype, kernel=kernel).discards_freely is freely


def test_a_later_version_may_say_more() -> None:
    assert read_answer('ramshelf-host {"kernel":"6.1","more":"than that"}') == HostAnswer(
        kernel="6.1"
    )


@pytest.mark.parametrize(
    ("changes", "side"),
    [
        ({}, Side.FILE),
        ({"off": True}, Side.ANONYMOUS),
        ({"kind": None}, Side.BROKEN),
        ({"kind": None, "configured": False}, Side.ANONYMOUS),
    ],
)
def test_what_a_host_makes_of_memory(changes: dict[str, Any], side: Side) -> None:
    assert replace(ANSWER, **changes).side is side
