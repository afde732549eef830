"""The one sum of what cannot go to the store."""

import pytest

from ramshelf.core.domain.memory import Guest, MemoryFile
from ramshelf.core.errors import RefusedError
from ramshelf.core.ram import Demand, HostRam, admit_ram, anonymous_alone, ram_demand
from ramshelf.core.record import replace
from ramshelf.core.store.kind import Kind
from ramshelf.core.store.ledger import Note, note_of
from ramshelf.core.units import GIB, MIB
from support.good_host import GUEST

FILES = GUEST  # 2 GiB in a file, mapped shared
ANONYMOUS = replace(GUEST, name="anonymous", source=None, access=None, files=())
PRIVATE = replace(
    GUEST, name="private", files=(MemoryFile(name="pc.ram", size=2 * GIB, private=True),)
)
LOCKED = replace(GUEST, name="locked", locked=True)
HUGE = replace(ANONYMOUS, name="huge", hugepages=True, huge_bytes=2 * GIB)

DISK = HostRam(size=8 * GIB, huge_pages=0, reserved=1 * GIB, swap=0, kind=Kind.DISK)
SWAP = replace(DISK, swap=16 * GIB, kind=Kind.SWAP)
RAM = replace(DISK, kind=Kind.RAM)

EACH = 104 * MIB
"""QEMU's overhead with one vCPU by KVM."""

LOCKED_EACH = EACH + 5 * 8 * MIB
"""The same where all that QEMU maps is locked: its stacks."""

TABLES = 8 * MIB
"""Page tables of 2 GiB by KVM: QEMU's, and the guest's second level."""

RECORDS = 2 * GIB // 4096 * 9
"""A tmpfs' nodes for 2 GiB."""

OUT = 2 * GIB // 4096 * 8
"""The swap table's part for 2 GiB."""


def needed(*guests: Guest, host: HostRam) -> Demand:
    return ram_demand(map(note_of, guests), host)


def parts(**figures: int) -> dict[str, int]:
    return {**Demand(host=1 * GIB).parts, **figures}


@pytest.mark.parametrize(
    ("guest", "host", "expected"),
    [
        (FILES, DISK, {}),
        (FILES, replace(DISK, file_system="ext4"), {}),
        (FILES, replace(DISK, file_system="xfs"), {"records": 2 * GIB // 4096 * 36}),
        (FILES, SWAP, {"records": RECORDS + OUT}),
        (FILES, RAM, {"store": 2 * GIB, "records": RECORDS}),
        (FILES, replace(RAM, swap=GIB), {"store": 2 * GIB, "records": RECORDS}),
        (FILES, replace(SWAP, swap=GIB), {"store": GIB, "records": RECORDS + OUT // 2}),
        (FILES, replace(SWAP, swap=0), {"store": 2 * GIB, "records": RECORDS}),
        (ANONYMOUS, DISK, {"anonymous": 2 * GIB}),
        (ANONYMOUS, replace(DISK, kind=None), {"anonymous": 2 * GIB}),
        (ANONYMOUS, replace(DISK, swap=GIB), {"anonymous": GIB, "records": OUT // 2}),
        (ANONYMOUS, SWAP, {"records": OUT}),
        (PRIVATE, DISK, {"private": 2 * GIB}),
        (PRIVATE, SWAP, {"records": RECORDS + 2 * OUT}),
        (PRIVATE, RAM, {"private": 2 * GIB, "store": 2 * GIB, "records": RECORDS}),
        (LOCKED, DISK, {"pinned": 2 * GIB, "overhead": LOCKED_EACH}),
        (LOCKED, SWAP, {"pinned": 2 * GIB, "records": RECORDS, "overhead": LOCKED_EACH}),
        (LOCKED, RAM, {"pinned": 2 * GIB, "records": RECORDS, "overhead": LOCKED_EACH}),
        (replace(PRIVATE, locked=True), DISK, {"pinned": 2 * GIB, "overhead": LOCKED_EACH}),
        (
            replace(PRIVATE, locked=True),
            RAM,
            {
                "pinned": 2 * GIB,
                "store": 2 * GIB,
                "records": RECORDS,
                "overhead": LOCKED_EACH,
            },
        ),
        (replace(ANONYMOUS, passthrough=True), SWAP, {"pinned": 2 * GIB}),
        (HUGE, DISK, {"page_tables": 0}),
        (
            replace(LOCKED, virt_type="qemu"),
            DISK,
            {
                "pinned": 2 * GIB,
                "page_tables": TABLES // 2,
                "overhead": (144 + 5 * 8 + 1024) * MIB,
            },
        ),
        (
            replace(FILES, virt_type="qemu"),
            DISK,
            {"page_tables": TABLES // 2, "overhead": 144 * MIB},
        ),
        (replace(FILES, vcpus=4), DISK, {"overhead": 128 * MIB}),
        (
            replace(ANONYMOUS, max_memory=4 * GIB),
            DISK,
            {"anonymous": 4 * GIB, "page_tables": 2 * TABLES},
        ),
        (replace(FILES, max_memory=4 * GIB, hotplug=2 * GIB), DISK, {"page_tables": 2 * TABLES}),
    ],
)
def test_what_one_guest_needs(guest: Guest, host: HostRam, expected: dict[str, int]) -> None:
    assert needed(guest, host=host).parts == parts(
        **{"overhead": EACH, "page_tables": TABLES, **expected}
    )


def test_swap_takes_the_store_first() -> None:
    host = replace(SWAP, swap=5 * GIB)
    two = needed(FILES, replace(FILES, name="b"), ANONYMOUS, PRIVATE, host=host)
    # 6 GiB on the tmpfs, 2 private and 2 anonymous, of which 5 find room.
    assert (two.store, two.private, two.anonymous) == (GIB, 2 * GIB, 2 * GIB)


def test_huge_pages_are_gone_from_ram() -> None:
    host = replace(DISK, huge_pages=3 * GIB)
    assert needed(host=host).parts == parts(huge_pages=3 * GIB)


def test_what_is_measured_counts_where_it_is_more() -> None:
    notes = (note_of(FILES),)
    assert ram_demand(notes, DISK, {"web": 300 * MIB}).overhead == 300 * MIB
    assert ram_demand(notes, DISK, {"web": -1, "other": GIB}).overhead == EACH


def test_a_note_of_an_older_version_counts_by_what_it_says() -> None:
    old = Note(name="old", uuid="", domain_id=1, promised=2 * GIB)
    assert ram_demand((old,), DISK).parts == parts(overhead=EACH, page_tables=TABLES)
    pinned = replace(old, promised=0, pinned=2 * GIB)
    assert ram_demand((pinned,), DISK).parts == parts(
        pinned=2 * GIB, overhead=EACH, page_tables=TABLES
    )


def test_a_device_that_was_plugged_in_pins() -> None:
    note = replace(note_of(ANONYMOUS), plugged=2 * GIB)
    assert (
        ram_demand((note,), DISK).parts
        == needed(replace(ANONYMOUS, passthrough=True), host=DISK).parts
    )


@pytest.mark.parametrize(
    ("guest", "others", "host", "missing_mib"),
    [
        (FILES, (), DISK, 0),
        (FILES, (ANONYMOUS,) * 3, DISK, 0),
        (FILES, (ANONYMOUS,) * 4, DISK, 1024 + 5 * 112),
        (FILES, (ANONYMOUS,) * 4, replace(DISK, swap=4 * GIB), 0),
        (FILES, (PRIVATE,) * 4, DISK, 1024 + 5 * 112),
        (FILES, (FILES,) * 60, DISK, 0),
        (FILES, (FILES,) * 3, RAM, 1024 + 4 * 112 + 18),
        (LOCKED, (LOCKED,) * 2, DISK, 0),
        (LOCKED, (LOCKED,) * 3, DISK, 1024 + 4 * 152),
        (LOCKED, (LOCKED,) * 3, replace(SWAP, swap=99 * GIB), 1024 + 4 * 152 + 18),
        (LOCKED, (replace(HUGE, max_memory=6 * GIB),), DISK, 0),
        (LOCKED, (), replace(DISK, huge_pages=6 * GIB), 1024 + 152),
    ],
)
def test_who_is_refused(
    guest: Guest, others: tuple[Guest, ...], host: HostRam, missing_mib: int
) -> None:
    notes = tuple(map(note_of, others))
    if not missing_mib:
        admit_ram(guest, notes, host)
        return
    with pytest.raises(RefusedError) as caught:
        admit_ram(guest, notes, host)
    assert (caught.value.code, caught.value.facts["missing_mib"]) == ("ram.exceeded", missing_mib)


def test_the_refusal_names_the_parts() -> None:
    with pytest.raises(RefusedError) as caught:
        admit_ram(FILES, map(note_of, (ANONYMOUS,) * 4), DISK)
    assert (
        caught.value.sentence
        == "Guest web needs 112 MiB of RAM that cannot go to the store, and of 8192 MiB 0 are left "
        "(the host 1024, anonymous guests 8192, QEMU 416, page tables 32)."
    )


def test_anonymous_guests_alone() -> None:
    many = [note_of(ANONYMOUS)] * 4
    found = anonymous_alone([*many, note_of(FILES), note_of(LOCKED)], DISK)
    assert found is not None
    assert found.parts == ram_demand(many, DISK).parts
    assert anonymous_alone(many[:3], DISK) is None
    assert anonymous_alone(many, SWAP) is None
    assert anonymous_alone([], replace(DISK, size=0)) is None
    assert anonymous_alone([note_of(LOCKED)] * 4, DISK) is None
