"""What the hook does about a guest that is starting, decided: refuse it, or which files to reserve.

Each ``check`` raises RefusedError with what libvirt's user sees; the order in which the hook calls them is
that of this module.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ramshelf.core.capacity import PROMISE_FILE, FileUsage
from ramshelf.core.errors import RefusedError
from ramshelf.core.guest import Guest
from ramshelf.core.kind import Kind
from ramshelf.core.store import NoStore, Store
from ramshelf.core.units import to_mib


@dataclass(frozen=True, kw_only=True)
class GuestDirectory:
    """The directory that libvirt made for a guest's memory files.

    ``device``: major and minor number of the file system that it really lies on. ``files`` are its regular
    files; ``others`` the paths of whatever else is in it.
    """

    path: str
    device: tuple[int, int]
    uid: int
    gid: int
    files: tuple[FileUsage, ...]
    others: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """A file to make: ``allocate`` with its extents, else by its apparent size alone."""

    name: str
    size: int
    allocate: bool


def check_pages(guest: Guest) -> None:
    """Refuse huge pages where the guest asks for file backing: they win, and are not on the store."""
    if guest.source == "file" and guest.hugepages:
        raise RefusedError(
            "guest.huge-pages",
            f"Guest {guest.name} asks for file-backed memory and for huge pages; it cannot have both.",
            hint="Remove <hugepages> from its <memoryBacking> (in Nova: hw:mem_page_size from the flavor).",
            facts={"guest": guest.name},
        )


def the_directory(guest: Guest, paths: tuple[str, ...]) -> str:
    """The one of the directories that exist by the guest's id and name in which libvirt expects its files."""
    if len(paths) == 1:
        return paths[0]
    if not paths:
        raise RefusedError(
            "guest.directory-missing",
            f"The memory directory of guest {guest.name} is not where qemu.conf says.",
            hint="memory_backing_dir was changed while libvirtd ran: restart libvirtd, or change it back.",
            facts={"guest": guest.name},
        )
    raise RefusedError(
        "guest.directory-ambiguous",
        f"Guest {guest.name} has more than one memory directory: {', '.join(paths)}.",
        hint="Remove the leftovers with 'ramshelf store clean', then start it again.",
        facts={"guest": guest.name, "directories": list(paths)},
    )


def check_store(store: Store | NoStore, directory: GuestDirectory, *, off: bool) -> Store | None:
    """The store that the guest is to be reserved on; None where this host has none and is to have none.

    ``off``: file_backed_memory is 0, so that nobody promised a store here. A store that is there is
    guarded all the same, and one that fstab names but is not mounted too.
    """
    if isinstance(store, NoStore):
        if off and store.expected is None:
            return None
        raise RefusedError(store.code, store.sentence, hint=store.hint, facts={"directory": directory.path})
    facts = {"directory": directory.path, "store": store.mount_point}
    if directory.device != store.mount.device:
        raise RefusedError(
            "store.other-device",
            f"{directory.path} is not on the store at {store.mount_point}.",
            hint="Something else is mounted in between; 'findmnt --target' with both paths shows it.",
            facts=facts,
        )
    if store.mount.read_only:
        raise RefusedError(
            "store.read-only",
            f"The store at {store.mount_point} is read-only.",
            hint="A file system that met errors turns read-only: see the kernel's messages.",
            facts=facts,
        )
    return store


def check_leftovers(
    guest: Guest, directory: GuestDirectory, *, live: str | None, holders: Iterable[int]
) -> None:
    """Refuse to remove what lies in the guest's directory unless it is nobody's.

    libvirt uses a directory that is there as it is, and QEMU the files in it: what an earlier guest with
    the same number left, after a crash of the host, would be the new guest's memory. ``live``: another
    guest that libvirt's state files know by this number; ``holders``: processes that have the files open.
    """
    pids = sorted(holders)
    if live is None and not pids:
        return
    user = f"guest {live}" if live is not None else f"process {pids[0]}"
    raise RefusedError(
        "guest.directory-in-use",
        f"The memory directory {directory.path} of guest {guest.name} is in use by {user}.",
        hint="Start the guest again: libvirt then gives it another number and directory.",
        facts={"guest": guest.name, "directory": directory.path, "live": live, "processes": pids},
    )


def reservations(guest: Guest, kind: Kind) -> tuple[Reservation, ...]:
    """The files that hold the guest's place, before QEMU opens them.

    A memory file at full size, its extents allocated where the store is a disk (on a tmpfs that would take
    real pages, and its size is what counts). The promise stands for what cannot be named yet: a file whose
    name QEMU chooses, until it has started, and memory to be hot-plugged, which calls no hook, for as
    long as the guest runs. It is accounted, not allocated: it must not take the place of what it is for.
    """
    files = tuple(
        Reservation(name=file.name, size=file.size, allocate=not kind.tmpfs)
        for file in guest.files
        if file.name is not None
    )
    if sum(file.size for file in files) < guest.promise:
        return (Reservation(name=PROMISE_FILE, size=guest.promise, allocate=False), *files)
    return files


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How a started guest's files differ from what it was to have.

    ``unallocated`` are to be given their extents, ``superfluous`` to be removed (the reservation that QEMU
    did not take, having named its file otherwise; the promise that is fulfilled), ``wrong`` is told.
    """

    unallocated: tuple[FileUsage, ...]
    superfluous: tuple[FileUsage, ...]
    wrong: tuple[str, ...]


def verify(guest: Guest, directory: GuestDirectory, kind: Kind) -> Verification:
    """Hold the files of a guest that has started against those it was to have."""
    names = {file.name: file.size for file in guest.files if file.name is not None}
    present = {_name(file): file for file in directory.files if not file.is_promise}
    strangers = {name: file for name, file in present.items() if name not in names}
    superfluous = []
    # QEMU has made files that were not reserved: those with no known name, or (before QEMU 5.0, which knows
    # no memory ids) one in place of the one that was.
    expected = [file.size for file in guest.files if file.name is None]
    for stranger in list(strangers.values()):
        if stranger.apparent in expected:
            expected.remove(stranger.apparent)
        elif (replaced := _replaced(guest, present, stranger.apparent)) is not None:
            superfluous.append(present.pop(replaced))
            del names[replaced]
        else:
            continue
        del strangers[_name(stranger)]
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
    return Verification(
        unallocated=()
        if kind.tmpfs
        else tuple(file for file in present.values() if file.allocated < file.apparent),
        superfluous=tuple(superfluous),
        wrong=tuple(wrong),
    )


def _replaced(guest: Guest, present: dict[str, FileUsage], size: int) -> str | None:
    """The reserved main memory of a guest without NUMA cells, where QEMU may have chosen another name."""
    main = guest.files[0].name
    if main is None or main.startswith("ram-node") or main not in present or present[main].apparent != size:
        return None
    return main


def _name(file: FileUsage) -> str:
    return file.path.rpartition("/")[2]
