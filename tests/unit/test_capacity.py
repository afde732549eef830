"""What a store can hold, what it has promised, whether one more guest fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.capacity import PROMISE_FILE, Capacity, FileUsage, StoreUsage, admit, capacity, promised
from ramshelf.core.errors import RefusedError
from ramshelf.core.kind import Kind
from ramshelf.core.units import GIB, MIB


def file(path: str, apparent_mib: int, allocated_mib: int = 0) -> FileUsage:
    return FileUsage(path=path, apparent=apparent_mib * MIB, allocated=allocated_mib * MIB)


def usage(
    *files: FileUsage,
    kind: Kind = Kind.RAM,
    size_mib: int = 1024,
    used_mib: int = 0,
    swap_mib: int = 0,
    beyond_swap: bool = False,
) -> StoreUsage:
    return StoreUsage(
        kind=kind,
        size=size_mib * MIB,
        used=used_mib * MIB,
        swap=swap_mib * MIB,
        beyond_swap=beyond_swap,
        files=files,
    )


@pytest.mark.parametrize(
    ("store", "configured_mib", "total_mib", "reason"),
    [
        (usage(), None, 1024, "store"),
        (usage(), 512, 512, "configured"),
        (usage(), 4096, 1024, "store"),
        (usage(), 0, 0, "configured"),
        (usage(kind=Kind.DISK), None, 1007, "store"),
        (usage(kind=Kind.DISK, size_mib=64), None, 61, "store"),
        (usage(kind=Kind.SWAP, swap_mib=700), None, 700, "swap"),
        (usage(kind=Kind.SWAP, swap_mib=2000), None, 1024, "store"),
        (usage(kind=Kind.SWAP, swap_mib=700, beyond_swap=True), None, 1024, "store"),
        (usage(kind=Kind.RAM, swap_mib=700), None, 1024, "store"),
        (usage(used_mib=100), None, 924, "store"),
        (usage(file("/s/1-a/pc.ram", 200, 100), used_mib=100), None, 1024, "store"),
        (usage(file("/s/1-a/pc.ram", 200, 100), used_mib=150), None, 974, "store"),
        (usage(kind=Kind.SWAP, swap_mib=700, used_mib=100), None, 600, "swap"),
    ],
)
def test_total(store: StoreUsage, configured_mib: int | None, total_mib: int, reason: str) -> None:
    found = capacity(store, configured_mib=configured_mib)
    assert (found.total, found.limit_reason) == (total_mib * MIB, reason)


def test_promised_is_what_files_may_come_to_hold() -> None:
    """ext4 allocates a little more than a file's size, for its extents."""
    assert promised([file("/s/1-a/pc.ram", 200, 10), file("/s/2-b/ram-node0", 100, 101)]) == 300 * MIB


@pytest.mark.parametrize(
    ("memory_mib", "promise_mib", "expected_mib"), [(200, 512, 512), (0, 512, 512), (600, 512, 600)]
)
def test_a_promise_counts_for_the_whole_of_its_directory(
    memory_mib: int, promise_mib: int, expected_mib: int
) -> None:
    files = [file("/s/1-a/pc.ram", memory_mib), file(f"/s/1-a/{PROMISE_FILE}", promise_mib)]
    assert promised(files) == expected_mib * MIB
    assert promised([*files, file("/s/2-b/pc.ram", 100)]) == (expected_mib + 100) * MIB


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
    files = [
        FileUsage(path=f"/s/{number}-g/pc.ram", apparent=apparent, allocated=0)
        for number, apparent in enumerate(present)
    ]
    store = StoreUsage(kind=Kind.DISK, size=size, used=used, swap=0, beyond_swap=False, files=tuple(files))
    current = capacity(store, configured_mib=None)
    try:
        admit(current, "guest", wanted)
    except RefusedError:
        assert current.promised + wanted > current.total
    else:
        assert current.promised + wanted <= current.total <= size
