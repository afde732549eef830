"""What a guest that runs without its whole reservation is given late."""

import pytest

from ramshelf.core.domain.memory import Guest, MemoryFile
from ramshelf.core.guest.late import plan_late
from ramshelf.core.record import replace
from ramshelf.core.store.directory import FileUsage, GuestDirectory
from ramshelf.core.store.kind import Kind
from ramshelf.core.store.ledger import Note, NotedFile
from ramshelf.core.units import MIB
from support.good_host import GUEST

DIRECTORY = "/ram/3-web"
NODE0 = 11
"""The inode of the first file."""


def guest(*files: int, maximum: int = 0) -> Guest:
    """NUMA cells of these MiB; ``maximum``: of maxMemory."""
    memory = sum(files)
    return replace(
        GUEST,
        memory=memory * MIB,
        max_memory=max(memory, maximum) * MIB,
        slots=4 if maximum else 0,
        files=tuple(
            MemoryFile(name=f"ram-node{number}", size=size * MIB)
            for number, size in enumerate(files)
        ),
        hotplug=max(0, maximum - memory) * MIB,
    )


def directory(**files: tuple[int, int]) -> GuestDirectory:
    """Apparent and allocated MiB of each file."""
    return GuestDirectory(
        path=DIRECTORY,
        device=(0, 51),
        uid=1,
        gid=1,
        files=tuple(
            FileUsage(
                path=f"{DIRECTORY}/{name.replace('_', '-')}",
                apparent=apparent * MIB,
                allocated=allocated * MIB,
                inode=inode,
            )
            for inode, (name, (apparent, allocated)) in enumerate(files.items(), NODE0)
        ),
    )


def note(promised: int) -> Note:
    return Note(
        name="web", uuid=GUEST.uuid, domain_id=3, directory=DIRECTORY, promised=promised * MIB
    )


@pytest.mark.parametrize("kind", [Kind.SWAP, Kind.DISK])
def test_nothing_is_done_where_the_hook_has_done_all(kind: Kind) -> None:
    held = directory(ram_node0=(128, 128))
    for guest_, promised in ((guest(128, maximum=384), 384), (guest(128), 128)):
        late = plan_late(guest_, note(promised), held, kind)
        assert (late.promise, late.allocate, late.overdue) == (0, (), False)


def test_what_may_be_plugged_in_is_promised() -> None:
    late = plan_late(guest(128, maximum=384), note(128), directory(ram_node0=(128, 0)), Kind.SWAP)
    assert (late.promise, late.settled) == (384 * MIB, True)


def test_what_was_plugged_in_is_promised_late() -> None:
    held = directory(ram_node0=(128, 0), ram_node1=(256, 0))
    assert plan_late(guest(128, 256, maximum=384), note(128), held, Kind.SWAP).promise == 384 * MIB


def test_a_promise_never_shrinks_while_the_guest_runs() -> None:
    assert plan_late(guest(128), note(384), directory(ram_node0=(128, 0)), Kind.SWAP).promise == 0


def test_extents_are_given_on_a_disk_whatever_else_is_missing() -> None:
    held = directory(ram_node0=(128, 16))
    assert plan_late(guest(128, maximum=384), note(128), held, Kind.DISK).allocate == held.files
    assert plan_late(guest(128), note(128), held, Kind.SWAP).allocate == ()


@pytest.mark.parametrize("kind", [Kind.SWAP, Kind.DISK])
def test_what_the_guest_has_given_back_is_left(kind: Kind) -> None:
    held = directory(ram_node0=(128, 16))
    late = plan_late(guest(128), replace(note(128), given=(NODE0,)), held, kind)
    assert (late.allocate, late.overdue) == ((), False)


def test_memory_plugged_in_within_the_promise_gets_its_extents_in_time() -> None:
    """Promised memory that is plugged in is not overdue; memory that was there at the start is."""
    held = directory(ram_node0=(128, 16), ram_node1=(64, 0))
    both = guest(128, 64, maximum=192)
    started = replace(note(192), files=(NotedFile(name="ram-node0", size=128 * MIB, inode=NODE0),))
    late = plan_late(both, replace(started, given=(NODE0,)), held, Kind.DISK)
    assert ([file.name for file in late.allocate], late.overdue) == (["ram-node1"], False)
    assert late.given == (NODE0, NODE0 + 1)
    late = plan_late(both, started, held, Kind.DISK)
    assert ([file.name for file in late.allocate], late.overdue) == (
        ["ram-node0", "ram-node1"],
        True,
    )


def test_of_memory_that_was_unplugged_nothing_is_remembered() -> None:
    """Another file may get its inode."""
    unplugged = replace(note(128), given=(NODE0, NODE0 + 1))
    assert plan_late(guest(128), unplugged, directory(ram_node0=(128, 0)), Kind.DISK).given == (
        NODE0,
    )


@pytest.mark.parametrize(
    "held",
    [
        pytest.param(directory(), id="nothing there yet"),
        pytest.param(directory(ram_node0=(64, 0)), id="smaller"),
        pytest.param(directory(ram_node0=(128, 0), dimm0=(64, 0)), id="a file too many"),
    ],
)
def test_a_guest_in_between_is_left_alone(held: GuestDirectory) -> None:
    late = plan_late(guest(128, maximum=384), note(128), held, Kind.DISK)
    assert not late.settled
    assert (late.promise, late.allocate, late.overdue) == (0, (), False)
