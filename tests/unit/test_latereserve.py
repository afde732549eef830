"""What a guest that runs without its whole reservation is given late."""

import pytest

from ramshelf.core.capacity import PROMISE_FILE, Capacity, FileUsage
from ramshelf.core.guest import Guest, MemoryFile
from ramshelf.core.kind import Kind
from ramshelf.core.latereserve import plan_late
from ramshelf.core.record import replace
from ramshelf.core.reservation import GuestDirectory
from ramshelf.core.units import MIB
from support.good_host import GUEST

DIRECTORY = "/ram/3-web"


def guest(*files: int, maximum: int = 0) -> Guest:
    """NUMA cells of these MiB; ``maximum``: of maxMemory."""
    memory = sum(files)
    return replace(
        GUEST,
        memory=memory * MIB,
        max_memory=max(memory, maximum) * MIB,
        slots=4 if maximum else 0,
        files=tuple(
            MemoryFile(name=f"ram-node{number}", size=size * MIB) for number, size in enumerate(files)
        ),
        hotplug=max(0, maximum - memory) * MIB,
    )


def directory(**files: tuple[int, int]) -> GuestDirectory:
    """Apparent and allocated MiB of each file; ``promise`` is the promise file."""
    return GuestDirectory(
        path=DIRECTORY,
        device=(0, 51),
        uid=1,
        gid=1,
        files=tuple(
            FileUsage(
                path=f"{DIRECTORY}/{PROMISE_FILE if name == 'promise' else name.replace('_', '-')}",
                apparent=apparent * MIB,
                allocated=allocated * MIB,
            )
            for name, (apparent, allocated) in files.items()
        ),
    )


def store(promised: int, total: int = 1024) -> Capacity:
    return Capacity(total=total * MIB, promised=promised * MIB, allocated=0, limit_reason="store")


@pytest.mark.parametrize("kind", [Kind.SWAP, Kind.DISK])
def test_nothing_is_done_where_the_hook_has_done_all(kind: Kind) -> None:
    held = directory(ram_node0=(128, 128), promise=(384, 0))
    assert not plan_late(guest(128, maximum=384), held, kind, store(384)).needed
    assert not plan_late(guest(128), directory(ram_node0=(128, 128)), kind, store(128)).needed


def test_what_may_be_plugged_in_is_promised() -> None:
    late = plan_late(guest(128, maximum=384), directory(ram_node0=(128, 0)), Kind.SWAP, store(128))
    assert (late.promise, late.missing, late.settled) == (384 * MIB, 0, True)


def test_what_was_plugged_in_is_admitted_late() -> None:
    held = directory(ram_node0=(128, 0), ram_node1=(256, 0))
    late = plan_late(guest(128, 256, maximum=384), held, Kind.SWAP, store(384))
    assert late.promise == 384 * MIB


def test_what_the_store_cannot_hold_is_not_promised() -> None:
    late = plan_late(guest(128, maximum=384), directory(ram_node0=(128, 0)), Kind.SWAP, store(900))
    assert (late.promise, late.missing) == (0, (900 + 256 - 1024) * MIB)
    assert not late.needed


def test_extents_are_given_on_a_disk_whatever_else_is_missing() -> None:
    held = directory(ram_node0=(128, 16))
    late = plan_late(guest(128, maximum=384), held, Kind.DISK, store(1000))
    assert late.allocate == held.files
    assert late.missing > 0
    assert plan_late(guest(128), held, Kind.SWAP, store(128)).allocate == ()


@pytest.mark.parametrize(
    "held",
    [
        pytest.param(directory(), id="nothing there yet"),
        pytest.param(directory(ram_node0=(64, 0)), id="smaller"),
        pytest.param(directory(promise=(384, 0)), id="only the promise"),
        pytest.param(directory(ram_node0=(128, 0), dimm0=(64, 0)), id="a file too many"),
    ],
)
def test_a_guest_in_between_is_left_alone(held: GuestDirectory) -> None:
    late = plan_late(guest(128, maximum=384), held, Kind.DISK, store(128))
    assert not late.settled
    assert not late.needed


def test_a_promise_that_is_too_small_is_replaced() -> None:
    held = directory(ram_node0=(128, 0), promise=(200, 0))
    assert plan_late(guest(128, maximum=384), held, Kind.SWAP, store(200)).promise == 384 * MIB
