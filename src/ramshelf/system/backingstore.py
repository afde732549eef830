"""The store as it is found on this host.

It is observed by qemu.conf, fstab, the mount table, swap, the notes and the files on the store.
"""

from __future__ import annotations

import os
import stat

from ramshelf.core.errors import ConfigError, RefusedError
from ramshelf.core.files.fstab import KIND_OPTION, parse_fstab
from ramshelf.core.files.mounts import covering, is_below
from ramshelf.core.files.qemuconf import (
    DEFAULT_MEMORY_BACKING_DIR,
    memory_directory,
    parse_qemu_conf,
    sets,
)
from ramshelf.core.record import dataclass, replace
from ramshelf.core.store.capacity import StoreUsage
from ramshelf.core.store.directory import FileUsage, directory_names
from ramshelf.core.store.find import NoStore, Store, find_store, not_followed
from ramshelf.system import ledger, livestate, storetree
from ramshelf.system.filesystem import (
    block_size,
    ext4_cluster,
    first_link,
    follow,
    inodes,
    read_text,
    resolved,
    size_and_used,
)
from ramshelf.system.procfs import disk_swaps, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ramshelf.core.domain.memory import Guest
    from ramshelf.core.files.fstab import Entry
    from ramshelf.core.files.mounts import Mount
    from ramshelf.core.files.qemuconf import MemoryDirectory
    from ramshelf.core.store.directory import GuestDirectory
    from ramshelf.core.store.ledger import Note

QEMU_CONF = "/etc/libvirt/qemu.conf"
FSTAB = "/etc/fstab"
_ROOT, _HOSTS_ROOT = "/", "/proc/1/root/"
_QUOTES = "\"'"
_LOOKS = 5
"""How often, at most, guests' files are looked at to get figures that are of one moment."""


@dataclass(frozen=True, kw_only=True)
class ObservedStore:
    """The store as it was found, with libvirt's memory backing directory.

    ``usage`` is None where there is no store. Otherwise ``notes`` are those of all guests, whether
    they are on the store or not.
    """

    directory: MemoryDirectory
    store: Store | NoStore
    usage: StoreUsage | None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Place:
    """A directory in which libvirt may put guests' directories; ``mount`` is what it lies on."""

    path: str
    store: Store | NoStore
    mount: Mount | None


def observe_store(path: str | None = None) -> ObservedStore:
    """Look at the store that libvirt's effective memory backing directory lies on.

    With ``path``, another directory is looked at instead. Raises ConfigError where qemu.conf cannot
    be parsed, and OSError where something cannot be read.
    """
    directory = memory_directory(parse_qemu_conf(read_text(QEMU_CONF, ""), QEMU_CONF))
    found = places(path or directory.path)
    store = found[0].store
    if isinstance(store, NoStore):
        return ObservedStore(directory=directory, store=store, usage=None)
    notes = holding(found)
    usage = with_files(figures(store, notes), store, found, everything=True)
    return ObservedStore(directory=directory, store=store, usage=usage, notes=notes)


def places(first: str | None = None) -> tuple[Place, ...]:
    """Return where libvirt may have put guests' directories, the likeliest place first.

    That is where qemu.conf says. But what counts for libvirt is the qemu.conf that it read when it
    started. So its default directory is such a place too, and so is, below each of fstab's stores,
    the directory that libvirt appends to its path. A store whose root directory is not owned by
    root is passed over, as QEMU's user may have planted a directory in it.
    """
    table, areas = mounts(), disk_swaps()
    entries = read_fstab(table)
    devices = named_devices(entries)
    paths = [first or configured_directory(), DEFAULT_MEMORY_BACKING_DIR]
    stores = [entry.mount_point for entry in entries if entry.option(KIND_OPTION) is not None]
    paths += [
        memory_directory({"memory_backing_dir": path}).path for path in stores if _is_roots(path)
    ]

    def find(path: str) -> Place:
        store = find_store(table, entries, path, devices=devices, swap_active=bool(areas))
        return Place(path=path, store=store, mount=covering(table, path))

    found = [_behind_links(find(path), find) for path in dict.fromkeys(paths)]
    return tuple({place.path: place for place in found}.values())


def _behind_links(place: Place, find: Callable[[str], Place]) -> Place:
    """Return the place itself, or what it leads to by links that root alone can have made.

    No link below the store's mount point is followed, and above it the paths of the mount table
    have none. Where a link is left on the way to what is no store, the result names that link.
    """
    if isinstance(place.store, Store) and not first_link(place.path, below=place.store.mount_point):
        return place
    path, links = follow(place.path)
    if links:
        there = find(path)
        store = there.store
        if isinstance(store, NoStore) or not any(
            is_below(link, store.mount_point) for link in links
        ):
            place = there
    if isinstance(place.store, NoStore) and (link := first_link(place.path)):
        return replace(place, store=not_followed(link, place.store))
    return place


def read_fstab(table: tuple[Mount, ...]) -> tuple[Entry, ...]:
    """Return what fstab mounts, at the paths at which the kernel then has it.

    mount(8) follows the links in fstab's paths.
    """
    there = {mount.mount_point for mount in table}
    return tuple(_followed(entry, there) for entry in parse_fstab(_fstab()))


def _fstab() -> str:
    """Return the text of the host's fstab.

    That is process 1's where this is a container's root directory and that process another's, the
    host's (``--pid host``): what a container has of its own says nothing of what is mounted.
    """
    try:
        if not os.path.samefile(_HOSTS_ROOT, _ROOT):
            return read_text(f"{_HOSTS_ROOT}{FSTAB}", "")
    except OSError:  # the kernel does not let us look there
        pass
    return read_text(FSTAB, "")


def _followed(entry: Entry, there: set[str]) -> Entry:
    place = entry.mount_point
    if place not in there and place.startswith("/"):
        place = resolved(place)
    spec = resolved(entry.spec) if entry.bind and entry.spec.startswith("/") else entry.spec
    if (place, spec) == (entry.mount_point, entry.spec):
        return entry
    return replace(entry, mount_point=place, spec=spec)


def configured_directory() -> str:
    """Return qemu.conf's memory backing directory; libvirt's default where it cannot be parsed."""
    text = read_text(QEMU_CONF, "")
    try:
        conf = parse_qemu_conf(text, QEMU_CONF) if sets(text, "memory_backing_dir") else {}
    except ConfigError:
        conf = {}
    return memory_directory(conf).path


def _is_roots(path: str) -> bool:
    try:
        return os.lstat(path).st_uid == 0
    except OSError:
        return False


def holding(found: tuple[Place, ...], *, but: str = "", keep: bool = False) -> tuple[Note, ...]:
    """Return the notes of what guests were promised (``ledger.holding``).

    The guests' directories are looked for in the places that were ``found``.
    """
    return ledger.holding(
        lambda guest: directory_of(guest, found),
        lambda path: _files_in(path, found),
        but=but,
        keep=keep,
    )


def _files_in(path: str, found: tuple[Place, ...]) -> tuple[FileUsage, ...]:
    parent, _, name = path.rpartition("/")
    looked = (each for place in found if place.path == parent for each in _look(place, {name}))
    return next((each.memory for each in looked), ())


def noted_again(guest: Guest, found: tuple[Place, ...]) -> Note:
    """Make the note of a guest that runs and has none, by its XML and where its directory is."""
    return ledger.noted_again(
        guest, directory_of(guest, found), lambda path: _files_in(path, found)
    )


def directory_of(guest: Guest, found: tuple[Place, ...]) -> str:
    """Return the path of a running guest's directory.

    Where there is no directory of its name, it is the path at which one is to be.
    """
    names = directory_names(guest.domain_id or 0, guest.name)
    there = (each.path for place in found for each in _look(place, set(names)))
    return next(there, f"{found[0].path}/{names[0]}")


def figures(store: Store, notes: Iterable[Note]) -> StoreUsage:
    """Return the store's figures with the notes of the guests on it.

    No file is looked at, so what is used counts as nobody's.
    """
    size, used = size_and_used(store.mount_point)
    most, left = inodes(store.mount_point)
    return StoreUsage(
        kind=store.kind,
        file_system=store.mount.fstype,
        block=block_size(store.mount_point),
        cluster=ext4_cluster(store.mount) if store.mount.fstype == "ext4" else 0,
        size=size,
        used=used,
        swap=sum(area.size for area in disk_swaps()) if store.kind.swaps else 0,
        beyond_swap=store.beyond_swap,
        inodes=most,
        inodes_free=left,
        notes=tuple(note for note in notes if lies_on(note.directory, store.mount)),
    )


def lies_on(path: str, mount: Mount) -> bool:
    """Tell whether the directory is on the mount's file system.

    A bind mount may show that file system in several places.
    """
    if not path or is_below(path, mount.mount_point):
        return bool(path)
    found = covering(mounts(), path)
    return found is not None and found.device == mount.device


def with_files(
    usage: StoreUsage, store: Store, found: tuple[Place, ...], *, everything: bool
) -> StoreUsage:
    """Return the same figures with the guests' files added.

    These are the files of guests that have notes or, with ``everything``, of all that looks like a
    guest's.

    What a guest takes or gives back between two looks would be taken for what others occupy. So the
    files are looked at again while what is used changes; in the end, what was used before or after
    counts, whichever is less.
    """
    used = usage.used
    for _ in range(_LOOKS):
        directories, lost = _files(usage.notes, found, everything=everything)
        before, (_, used) = used, size_and_used(store.mount_point)
        if used == before:
            break
    return replace(usage, used=min(before, used), directories=directories, lost=lost)


def _files(
    notes: tuple[Note, ...], found: tuple[Place, ...], *, everything: bool
) -> tuple[tuple[GuestDirectory, ...], tuple[FileUsage, ...]]:
    """Return the guests' directories, and their memory files that are in none of them any more."""
    wanted = None if everything else {note.directory.rpartition("/")[2] for note in notes}
    there = tuple(
        each for place in found if isinstance(place.store, Store) for each in _look(place, wanted)
    )
    present = {file.inode for directory in there for file in directory.files}
    lost: list[FileUsage] = []
    for note in notes:
        missing = {file.inode for file in note.files} - present
        if missing:
            lost += _open_in_qemu(note, missing, found)
    return there, tuple(lost)


def _open_in_qemu(note: Note, inodes: set[int], found: tuple[Place, ...]) -> Iterator[FileUsage]:
    """Yield those of the guest's files with these inodes that its QEMU has open.

    They are in no directory any more.
    """
    devices = {place.mount.device for place in found if place.mount is not None}
    pid = livestate.qemu_pid(note.name)
    if pid is None:
        return
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for descriptor in descriptors:
        try:
            status = os.stat(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue
        device = os.major(status.st_dev), os.minor(status.st_dev)
        if stat.S_ISREG(status.st_mode) and status.st_ino in inodes and device in devices:
            inodes.discard(status.st_ino)
            yield FileUsage(
                path=f"/proc/{pid}/fd/{descriptor}",
                apparent=status.st_size,
                allocated=status.st_blocks * 512,
                inode=status.st_ino,
            )


def directories(found: tuple[Place, ...]) -> tuple[GuestDirectory, ...]:
    """Return all that look like guests' directories, on a store or not."""
    return tuple(each for place in found for each in _look(place, None))


def _look(place: Place, names: set[str] | None) -> Iterator[GuestDirectory]:
    """Yield the guests' directories there; none where something else is mounted in between."""
    if place.mount is None:
        return
    try:
        yield from storetree.guest_directories(place.mount, place.path, names)
    except RefusedError:
        return


def named_devices(entries: Iterable[Entry]) -> dict[str, tuple[int, int]]:
    """Return the numbers of the block devices that fstab names, by its first field.

    udev's links stand for UUID= and the like.
    """
    devices = {}
    for entry in entries:
        tag, separator, value = entry.spec.partition("=")
        path = f"/dev/disk/by-{tag.lower()}/{value.strip(_QUOTES)}" if separator else entry.spec
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            continue
        if stat.S_ISBLK(status.st_mode):
            devices[entry.spec] = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return devices
