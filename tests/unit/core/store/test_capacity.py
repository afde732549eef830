"""What a store can hold, what it has promised, whether one more guest fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.errors import RefusedError
from ramshelf.core.record import replace
from ramshelf.core.store.capacity import (
    Capacity,
    StoreUsage,
    admit,
    capacity,
    crowded,
    excesses,
    extents_run_out,
    inodes_run_out,
    set_aside,
    spare,
)
from ramshelf.core.store.directory import FileUsage, GuestDirectory
from ramshelf.core.store.kind import Kind
from ramshelf.core.store.ledger import Note, NotedFile
from ramshelf.core.units import GIB, MIB

DIRECTORY = "/s/1-a"


def file(name: str, allocated_mib: int, *, inode: int = 7) -> FileUsage:
    return FileUsage(
        path=f"{DIRECTORY}/{name}", apparent=200 * MIB, allocated=allocated_mib * MIB, inode=inode
    )


def note(promised_mib: int, *made: tuple[str, int, int]) -> Note:
    """A guest's note; of each file made its name, MiB and inode."""
    files = tuple(NotedFile(name=name, size=size * MIB, inode=inode) for name, size, inode in made)
    return Note(
        name="a",
        uuid="",
        domain_id=1,
        directory=DIRECTORY,
        promised=promised_mib * MIB,
        files=files,
    )


PC = note(200, ("pc.ram", 200, 7))


def usage(
    *files: FileUsage,
    notes: tuple[Note, ...] = (PC,),
    kind: Kind = Kind.RAM,
    file_system: str = "",
    size_mib: int = 1024,
    used_mib: int = 0,
    swap_mib: int = 0,
    beyond_swap: bool = False,
    lost: tuple[FileUsage, ...] = (),
) -> StoreUsage:
    return StoreUsage(
        kind=kind,
        file_system=file_system,
        size=size_mib * MIB,
        used=used_mib * MIB,
        swap=swap_mib * MIB,
        beyond_swap=beyond_swap,
        notes=notes,
        directories=(GuestDirectory(path=DIRECTORY, device=(0, 1), uid=1, gid=1, files=files),),
        lost=lost,
    )


@pytest.mark.parametrize(
    ("store", "configured_mib", "total_mib", "reason"),
    [
        (usage(), None, 1024, "store"),
        (usage(), 512, 512, "configured"),
        (usage(), 4096, 1024, "store"),
        (usage(), 0, 0, "configured"),
        (usage(kind=Kind.DISK, file_system="ext4"), None, 992, "store"),
        (usage(kind=Kind.DISK, file_system="ext4", size_mib=64), None, 61, "store"),
        (usage(kind=Kind.DISK, file_system="xfs"), None, 999, "store"),
        (usage(kind=Kind.DAX, file_system="xfs", size_mib=24 * 1024), None, 24361, "store"),
        (usage(kind=Kind.SWAP, swap_mib=700), None, 700, "swap"),
        (usage(kind=Kind.SWAP, swap_mib=2000), None, 1024, "store"),
        (usage(kind=Kind.SWAP, swap_mib=700, beyond_swap=True), None, 1024, "store"),
        (usage(kind=Kind.RAM, swap_mib=700), None, 1024, "store"),
        (usage(used_mib=100), None, 924, "store"),
        (usage(file("pc.ram", 100), used_mib=100), None, 1024, "store"),
        (usage(file("pc.ram", 100), used_mib=150), None, 974, "store"),
        (usage(kind=Kind.SWAP, swap_mib=700, used_mib=100), None, 600, "swap"),
    ],
)
def test_total(store: StoreUsage, configured_mib: int | None, total_mib: int, reason: str) -> None:
    found = capacity(store, configured_mib=configured_mib)
    assert (found.total, found.limit_reason) == (total_mib * MIB, reason)


def total_mib(store: StoreUsage) -> int:
    return capacity(store, configured_mib=None).total // MIB


@pytest.mark.parametrize(
    ("store", "expected_mib"),
    [
        pytest.param(
            usage(used_mib=200, lost=(file("x", 200),)), 1024, id="unlinked and open in QEMU"
        ),
        pytest.param(usage(used_mib=200), 824, id="unlinked and open nowhere that is known"),
        pytest.param(usage(file("pc.ram", 0), used_mib=0), 1024, id="truncated"),
        pytest.param(usage(file("pc.ram", 500), used_mib=500), 727, id="grown"),
        pytest.param(
            usage(file("pc.ram", 100, inode=8), used_mib=100), 924, id="another in its place"
        ),
        pytest.param(
            usage(file("pc.ram", 100), file("b", 300, inode=8), used_mib=400), 724, id="added"
        ),
        pytest.param(
            usage(file("pc.ram", 100), file("b", 100), used_mib=100), 1024, id="linked twice"
        ),
        pytest.param(
            usage(
                file("pc.ram", 64),
                file("x", 200, inode=8),
                used_mib=264,
                notes=(note(64, ("pc.ram", 64, 7), ("x", 200, 8)),),
            ),
            825,
            id="noted beyond the promise",
        ),
        pytest.param(
            usage(
                file("dimm0", 300, inode=8), used_mib=300, notes=(note(500, ("pc.ram", 200, 7)),)
            ),
            1024,
            id="plugged in as was promised",
        ),
    ],
)
def test_the_promise_stays_and_only_what_is_beyond_it_is_taken_off(
    store: StoreUsage, expected_mib: int
) -> None:
    assert total_mib(store) == expected_mib
    assert capacity(store, configured_mib=None).promised == sum(
        note.promised for note in store.notes
    )


def test_what_a_file_claims_to_be_takes_nothing() -> None:
    huge = FileUsage(path=f"{DIRECTORY}/huge", apparent=1 << 50, allocated=0, inode=9)
    found = capacity(usage(huge), configured_mib=None)
    assert (found.total, found.promised) == (1024 * MIB, 200 * MIB)


def test_directories_that_grow_beyond_their_promise_are_named() -> None:
    [excess] = excesses(usage(file("pc.ram", 200), file("b", 300, inode=8)))
    assert (excess.guest, excess.directory, excess.beyond // MIB) == ("a", DIRECTORY, 296)
    assert excesses(usage(file("pc.ram", 201))) == ()


def disk(held_mib: int, used_mib: int, promised_mib: int = 900) -> StoreUsage:
    """An ext4 store of 1024 MiB, where a guest's file takes so much."""
    made = note(promised_mib, ("pc.ram", promised_mib, 7))
    ram = file("pc.ram", held_mib)
    return usage(ram, notes=(made,), kind=Kind.DISK, file_system="ext4", used_mib=used_mib)


def test_records_of_extents_take_nothing_from_what_is_promised() -> None:
    before, after = disk(900, 900), disk(912, 912)
    assert capacity(after, configured_mib=None) == replace(
        capacity(before, configured_mib=None), allocated=912 * MIB
    )
    assert excesses(after) == ()


def test_a_guest_with_more_records_than_its_share_is_named() -> None:
    [excess] = excesses(disk(950, 950))
    assert excess.beyond // MIB == 36
    assert capacity(disk(950, 950), configured_mib=None).total // MIB == 992 - 37


@pytest.mark.parametrize(
    ("store", "spare_mib", "expected"),
    [
        pytest.param(disk(900, 900), 124, False, id="as much as nobody was promised"),
        pytest.param(disk(0, 0), 124, False, id="promised and not yet allocated"),
        pytest.param(
            disk(992, 992, promised_mib=992), 32, False, id="full, all that was set aside is there"
        ),
        pytest.param(disk(992, 1016, promised_mib=992), 8, False, id="a fourth of it is there"),
        pytest.param(disk(992, 1017, promised_mib=992), 7, True, id="less than a fourth"),
        pytest.param(disk(0, 200), -76, True, id="others took what was promised"),
        pytest.param(usage(used_mib=1024, notes=()), 0, False, id="tmpfs keeps its own elsewhere"),
    ],
)
def test_what_is_left_for_records_of_extents(
    store: StoreUsage, spare_mib: int, *, expected: bool
) -> None:
    assert spare(store) // MIB == spare_mib
    assert extents_run_out(store) is expected
    assert set_aside(store) == (32 * MIB if store.kind is Kind.DISK else 0)


@pytest.mark.parametrize(
    ("inodes", "free", "used_mib", "expected"),
    [
        pytest.param(4096, 39, 100, True, id="fewer than one in a hundred"),
        pytest.param(4096, 40, 100, False, id="enough"),
        pytest.param(64, 2, 100, True, id="fewer than a guest takes"),
        pytest.param(64, 3, 100, False, id="a small store that has room for a guest"),
        pytest.param(0, 0, 100, False, id="btrfs: no bound"),
        pytest.param(64, 0, 1024, False, id="xfs without space"),
    ],
)
def test_inodes_run_out_where_space_does_not(
    inodes: int, free: int, used_mib: int, *, expected: bool
) -> None:
    assert (
        inodes_run_out(replace(usage(used_mib=used_mib), inodes=inodes, inodes_free=free))
        is expected
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param((150, 0, False), (2, 0, False), "/s/1-a", id="many entries"),
        pytest.param((1024, 0, True), (2, 0, False), "/s/1-a", id="more than were looked at"),
        pytest.param((2, 0, False), (1, 1, False), "/s/2-b", id="they lie deeper"),
        pytest.param((2, 0, False), (2, 0, False), None, id="not in guests' directories"),
    ],
)
def test_only_who_takes_the_inodes_is_named(
    first: tuple[int, int, bool], second: tuple[int, int, bool], expected: str | None
) -> None:
    directories = tuple(
        GuestDirectory(
            path=path,
            device=(0, 1),
            uid=1,
            gid=1,
            files=tuple(file(str(number), 0) for number in range(files)),
            others=tuple(map(str, range(others))),
            cut=cut,
        )
        for path, (files, others, cut) in (("/s/1-a", first), ("/s/2-b", second))
    )
    found = crowded(replace(usage(), inodes=200, inodes_free=0, directories=directories))
    assert (found.path if found else None) == expected


def test_admitted_up_to_the_last_byte() -> None:
    current = Capacity(total=GIB, promised=GIB - 5, allocated=0, limit_reason="store")
    admit(current, "guest", 5)
    with pytest.raises(RefusedError) as caught:
        admit(current, "guest", 6)
    assert caught.value.code == "capacity.exceeded"
    assert caught.value.facts["missing_mib"] == 1


def test_refusal_says_what_is_missing() -> None:
    current = Capacity(total=1000 * MIB, promised=800 * MIB, allocated=0, limit_reason="store")
    with pytest.raises(RefusedError, match=r"needs 300 MiB .* 100 MiB more than are free"):
        admit(current, "guest", 300 * MIB)


def test_what_is_promised_to_the_guest_already_counts_once() -> None:
    current = Capacity(total=1000 * MIB, promised=1000 * MIB, allocated=0, limit_reason="store")
    admit(current, "guest", 300 * MIB, present=300 * MIB)
    over = Capacity(total=1000 * MIB, promised=1200 * MIB, allocated=0, limit_reason="store")
    with pytest.raises(RefusedError):
        admit(over, "guest", 300 * MIB, present=300 * MIB)


sizes = st.integers(0, 1 << 44)


@given(st.lists(sizes), sizes, sizes, sizes)
def test_admitting_never_promises_more_than_the_store_holds(
    present: list[int], size: int, used: int, wanted: int
) -> None:
    notes = [replace(PC, promised=promised) for promised in present]
    store = StoreUsage(
        kind=Kind.DISK, size=size, used=used, swap=0, beyond_swap=False, notes=tuple(notes)
    )
    current = capacity(store, configured_mib=None)
    try:
        admit(current, "guest", wanted)
    except RefusedError:
        assert current.promised + wanted > current.total
    else:
        assert current.promised + wanted <= current.total <= size
