"""What the hook decides about a guest that is starting: to refuse it, or which files to reserve.

Each ``check`` raises RefusedError with what libvirt's user sees. The hook calls them in the order
in which they stand in this module.
"""

from __future__ import annotations

from ramshelf.core.errors import RefusedError
from ramshelf.core.record import dataclass
from ramshelf.core.store.directory import PROMISE_FILE
from ramshelf.core.store.find import NoStore
from ramshelf.core.units import to_mib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ramshelf.core.domain.memory import Guest
    from ramshelf.core.store.directory import FileUsage, GuestDirectory
    from ramshelf.core.store.find import Store
    from ramshelf.core.store.kind import Kind
    from ramshelf.core.store.ledger import Note


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """A file to make, and its size in bytes."""

    name: str
    size: int


def check_pages(guest: Guest) -> None:
    """Refuse huge pages where the guest asks for file backing.

    Huge pages win over file backing, and they are not on the store.
    """
    if guest.source == "file" and guest.hugepages:
        raise RefusedError(
            "guest.huge-pages",
            f"Guest {guest.name} asks for file-backed memory and for huge pages; it cannot have "
            "both.",
            hint=(
                "Remove <hugepages> from its <memoryBacking> (in Nova: hw:mem_page_size from the "
                "flavor)."
            ),
            facts={"guest": guest.name},
        )


def directory_missing(guest: Guest) -> RefusedError:
    """Return the error for a guest whose directory is nowhere where libvirt may have put it."""
    return RefusedError(
        "guest.directory-missing",
        f"The memory directory of guest {guest.name} is not where qemu.conf says.",
        hint=(
            "memory_backing_dir was changed while libvirtd ran: restart libvirtd, or change it "
            "back."
        ),
        facts={"guest": guest.name},
    )


def require_store(store: Store | NoStore, *, off: bool) -> Store | None:
    """Return the store to reserve the guest on, or None where this host is to have none.

    ``off``: file_backed_memory is 0, so that nobody promised a store here. A store that is there is
    guarded all the same, and so is one that fstab names but that is not mounted.
    """
    if isinstance(store, NoStore):
        if off and store.expected is None:
            return None
        raise RefusedError(store.code, store.sentence, hint=store.hint)
    if store.mount.read_only:
        raise RefusedError(
            "store.read-only",
            f"The store at {store.mount_point} is read-only.",
            hint="A file system that met errors turns read-only: see the kernel's messages.",
            facts={"store": store.mount_point},
        )
    return store


def check_leftovers(guest: Guest, directory: GuestDirectory, others: Iterable[Note]) -> None:
    """Refuse to empty a directory that belongs to another guest, by the notes of those that run.

    libvirt uses a directory that is there as it is, and QEMU uses the files in it: what an earlier
    guest with the same number left, after a crash of the host, would be the new guest's memory.
    """
    owner = next((note.name for note in others if note.directory == directory.path), None)
    if owner is not None:
        raise RefusedError(
            "guest.directory-in-use",
            f"The memory directory {directory.path} of guest {guest.name} is in use by guest "
            f"{owner}.",
            hint="Start the guest again: libvirt then gives it another number and directory.",
            facts={"guest": guest.name, "directory": directory.path, "live": owner},
        )


def reservations(guest: Guest) -> tuple[Reservation, ...]:
    """Return the files that hold the guest's place, before QEMU opens them.

    Each has its full size; where the store is a disk, the extents are allocated at that time.
    PROMISE_FILE is for older versions: it stands for what cannot be named yet, which is a file
    whose name QEMU chooses, and memory to be hot-plugged.
    """
    files = tuple(
        Reservation(name=file.name, size=file.size) for file in guest.files if file.name is not None
    )
    if sum(file.size for file in files) < guest.promise:
        return (Reservation(name=PROMISE_FILE, size=guest.promise), *files)
    return files


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How a started guest's files differ from those that it was to have.

    ``unallocated`` are to be given their extents. ``superfluous`` are to be removed: the
    reservation that QEMU did not take because it named its file otherwise, and the promise that is
    fulfilled. ``wrong`` is reported. ``adopted`` are the names of the files that QEMU has named
    itself. ``given`` are, on a disk, the inodes of all files that are its memory: once those that
    are ``unallocated`` have got their extents, all of these have had them.
    """

    unallocated: tuple[FileUsage, ...]
    superfluous: tuple[FileUsage, ...]
    wrong: tuple[str, ...]
    adopted: frozenset[str] = frozenset()
    given: tuple[int, ...] = ()


def verify(
    guest: Guest,
    directory: GuestDirectory,
    kind: Kind,
    opened: frozenset[int] | None = None,
    given: Iterable[int] = (),
) -> Verification:
    """Compare the files of a guest that has started with those that it was to have.

    ``opened`` are the inodes that its QEMU has open: other files were put there by somebody else,
    and are strangers whatever they look like. It is None where that was not looked at. ``given``
    are the inodes of the files that had all their extents before: QEMU punches holes in them where
    the guest gives memory back (virtio-mem, a balloon, free page reporting;
    ram_block_discard_range), and these holes are left.
    """
    names = {file.name: file.size for file in guest.files if file.name is not None}
    present = {file.name: file for file in directory.memory}
    strangers = {name: file for name, file in present.items() if name not in names}
    superfluous = []
    # QEMU has made files that were not reserved: those with no known name, or (before QEMU 5.0,
    # which knows no memory ids) one in place of a file that was reserved.
    expected = [file.size for file in guest.files if file.name is None]
    adopted = set()
    for stranger in list(strangers.values()):
        if opened is not None and stranger.inode not in opened:
            continue
        if stranger.apparent in expected:
            expected.remove(stranger.apparent)
        elif (replaced := _replaced(guest, present, stranger.apparent)) is not None:
            superfluous.append(present.pop(replaced))
            del names[replaced]
        else:
            continue
        adopted.add(stranger.name)
        del strangers[stranger.name]
    wrong = [f"{name} is not there" for name in names if name not in present]
    wrong += [
        f"{name} has {to_mib(present[name].apparent)} MiB instead of {to_mib(size)}"
        for name, size in names.items()
        if name in present and present[name].apparent != size
    ]
    wrong += [f"{name} is not known" for name in strangers]
    wrong += [f"a file of {to_mib(size)} MiB is not there" for size in expected]
    if not wrong and not guest.hotplug:
        superfluous += [file for file in directory.files if file.is_promise]

    def on_disk(file: FileUsage) -> bool:
        return not kind.tmpfs and (names.get(file.name) == file.apparent or file.name in adopted)

    ours = tuple(filter(on_disk, present.values()))
    before = frozenset(given)
    return Verification(
        unallocated=tuple(
            file for file in ours if file.allocated < file.apparent and file.inode not in before
        ),
        given=tuple(file.inode for file in ours),
        superfluous=tuple(superfluous),
        adopted=frozenset(adopted),
        wrong=tuple(wrong),
    )


def _replaced(guest: Guest, present: dict[str, FileUsage], size: int) -> str | None:
    """Return the name of the reserved main memory where QEMU may have chosen another name.

    That concerns a guest without NUMA cells; for others the result is None.
    """
    main = guest.files[0].name
    if (
        main is None
        or main.startswith("ram-node")
        or main not in present
        or present[main].apparent != size
    ):
        return None
    return main
