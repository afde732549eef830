"""What the hook decides about a guest that starts, and one that has started."""

import pytest

from ramshelf.core.domain.memory import Guest, MemoryFile
from ramshelf.core.errors import RefusedError
from ramshelf.core.files.fstab import Entry
from ramshelf.core.files.mounts import Mount
from ramshelf.core.guest.reservation import (
    check_leftovers,
    check_pages,
    require_store,
    reservations,
    verify,
)
from ramshelf.core.record import replace
from ramshelf.core.store.directory import PROMISE_FILE, FileUsage, GuestDirectory
from ramshelf.core.store.find import NoStore, Store
from ramshelf.core.store.kind import Kind
from ramshelf.core.store.ledger import Note
from ramshelf.core.units import MIB

DIRECTORY = "/ram/3-guest"


def guest(*files: tuple[str | None, int], hotplug_mib: int = 0) -> Guest:
    memory = sum(size for _, size in files)
    return Guest(
        name="guest",
        uuid="u",
        domain_id=3,
        virt_type="qemu",
        memory=memory * MIB,
        max_memory=(memory + hotplug_mib) * MIB,
        slots=0,
        source="file",
        access="shared",
        allocation=None,
        discard=False,
        hugepages=False,
        locked=False,
        passthrough=False,
        files=tuple(MemoryFile(name=name, size=size * MIB) for name, size in files),
        hotplug=hotplug_mib * MIB,
    )


def directory(**files: tuple[int, int]) -> GuestDirectory:
    return GuestDirectory(
        path=DIRECTORY,
        device=(0, 51),
        uid=64055,
        gid=64055,
        files=tuple(
            FileUsage(
                path=f"{DIRECTORY}/{name}", apparent=apparent * MIB, allocated=allocated * MIB
            )
            for name, (apparent, allocated) in files.items()
        ),
    )


def the_store(*, read_only: bool = False, device: tuple[int, int] = (0, 51)) -> Store:
    mount = Mount(
        mount_id=1,
        parent_id=0,
        device=device,
        root="/",
        mount_point="/ram",
        options=("ro",) if read_only else ("rw",),
        fstype="tmpfs",
        source="ramshelf",
        super_options=("rw",),
    )
    return Store(kind=Kind.RAM, mount=mount, memory_dir="/ram", marked=True)


def code(error: pytest.ExceptionInfo[RefusedError]) -> str:
    return error.value.code


def test_huge_pages_with_a_file_are_refused() -> None:
    check_pages(guest(("pc.ram", 1)))
    check_pages(replace(guest(), source=None, hugepages=True))
    check_pages(replace(guest(), source="memfd", hugepages=True))
    with pytest.raises(RefusedError) as caught:
        check_pages(replace(guest(), hugepages=True))
    assert code(caught) == "guest.huge-pages"


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        (the_store(read_only=True), "store.read-only"),
        (NoStore(code="store.not-mounted", sentence="", hint=""), "store.not-mounted"),
    ],
)
@pytest.mark.parametrize("off", [False, True])
def test_only_a_store_that_works_is_used(
    store: Store | NoStore, expected: str, *, off: bool
) -> None:
    if off and isinstance(store, NoStore):
        entry = Entry(spec="x", mount_point="/ram", fstype="tmpfs", options=())
        store = replace(store, expected=entry)
    assert require_store(the_store(), off=off) == the_store()
    with pytest.raises(RefusedError) as caught:
        require_store(store, off=off)
    assert code(caught) == expected


def test_where_it_is_off_no_store_is_missed() -> None:
    missing = NoStore(code="store.root-file-system", sentence="", hint="")
    assert require_store(missing, off=True) is None
    with pytest.raises(RefusedError):
        require_store(missing, off=False)


def test_what_is_another_guests_is_no_leftover() -> None:
    other = Note(name="other", uuid="", domain_id=3, directory=DIRECTORY)
    check_leftovers(guest(), directory(), ())
    check_leftovers(guest(), directory(), (replace(other, directory="/ram/4-other"),))
    with pytest.raises(RefusedError) as caught:
        check_leftovers(guest(), directory(), (other,))
    assert code(caught) == "guest.directory-in-use"


@pytest.mark.parametrize(
    ("starting", "expected"),
    [
        (guest(("pc.ram", 256)), [("pc.ram", 256)]),
        (guest(("ram-node0", 64), ("dimm0", 32)), [("ram-node0", 64), ("dimm0", 32)]),
        (guest((None, 256)), [(PROMISE_FILE, 256)]),
        (guest((None, 256), ("dimm0", 32)), [(PROMISE_FILE, 288), ("dimm0", 32)]),
        (guest(("pc.ram", 256), hotplug_mib=64), [(PROMISE_FILE, 320), ("pc.ram", 256)]),
    ],
)
def test_reservations(starting: Guest, expected: list[tuple[str, int]]) -> None:
    assert [(each.name, each.size // MIB) for each in reservations(starting)] == expected


def names(files: tuple[FileUsage, ...]) -> list[str]:
    return [file.path.rpartition("/")[2] for file in files]


@pytest.mark.parametrize(
    ("started", "files", "unallocated", "superfluous", "wrong"),
    [
        (guest(("pc.ram", 64)), {"pc.ram": (64, 64)}, [], [], 0),
        (guest(("pc.ram", 64)), {"pc.ram": (64, 10)}, ["pc.ram"], [], 0),
        (guest(("pc.ram", 64)), {}, [], [], 1),
        (guest(("pc.ram", 64)), {"pc.ram": (32, 32)}, [], [], 1),
        (guest(("pc.ram", 64)), {"pc.ram": (64, 64), "stranger": (7, 7)}, [], [], 1),
        # QEMU named its file: the promise is fulfilled.
        (
            guest((None, 64)),
            {PROMISE_FILE: (64, 0), "x.ram": (64, 0)},
            ["x.ram"],
            [PROMISE_FILE],
            0,
        ),
        (guest((None, 64)), {PROMISE_FILE: (64, 0)}, [], [], 1),
        (guest((None, 64), hotplug_mib=8), {PROMISE_FILE: (72, 0), "x.ram": (64, 64)}, [], [], 0),
        # QEMU named it otherwise: ours is not needed.
        (guest(("pc.ram", 64)), {"pc.ram": (64, 64), "ram": (64, 0)}, ["ram"], ["pc.ram"], 0),
        # Names of NUMA cells and devices are libvirt's: such a file is a stranger.
        (guest(("ram-node0", 64)), {"ram-node0": (64, 64), "ram": (64, 0)}, [], [], 1),
    ],
)
def test_verify(
    started: Guest,
    files: dict[str, tuple[int, int]],
    unallocated: list[str],
    superfluous: list[str],
    wrong: int,
) -> None:
    found = verify(started, directory(**files), Kind.DISK)
    assert (names(found.unallocated), names(found.superfluous)) == (unallocated, superfluous)
    assert len(found.wrong) == wrong
    assert verify(started, directory(**files), Kind.RAM).unallocated == ()


def test_a_file_that_had_its_extents_is_left_with_its_holes() -> None:
    held = directory(**{"pc.ram": (64, 10)})
    [file] = held.files
    before = verify(guest(("pc.ram", 64)), held, Kind.DISK)
    assert (names(before.unallocated), before.given) == (["pc.ram"], (file.inode,))
    after = verify(guest(("pc.ram", 64)), held, Kind.DISK, given=before.given)
    assert (after.unallocated, after.given) == ((), (file.inode,))
    assert verify(guest(("pc.ram", 64)), held, Kind.RAM).given == ()


def test_what_qemu_has_not_open_is_a_stranger_whatever_it_looks_like() -> None:
    """Planted files are one as large as QEMU's own, one in the main memory's place, a huge one."""
    opened = frozenset({7})

    def files(**inodes: int) -> GuestDirectory:
        return GuestDirectory(
            path=DIRECTORY,
            device=(0, 51),
            uid=1,
            gid=1,
            files=tuple(
                FileUsage(path=f"{DIRECTORY}/{name}", apparent=64 * MIB, allocated=0, inode=inode)
                for name, inode in inodes.items()
            ),
        )

    found = verify(guest((None, 64)), files(planted=9, chosen=7), Kind.DISK, opened)
    assert (found.adopted, names(found.unallocated)) == (frozenset({"chosen"}), ["chosen"])
    assert found.wrong == ("planted is not known",)
    found = verify(guest(("pc.ram", 64)), files(**{"pc.ram": 7, "planted": 9}), Kind.DISK, opened)
    assert (found.superfluous, names(found.unallocated)) == ((), ["pc.ram"])
