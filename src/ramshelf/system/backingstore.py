"""The store on this host, observed: qemu.conf, fstab, mount table, swap, the notes and the files on
it.
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
_QUOTES = "\"'"
_LOOKS = 5
"""How often guests' files are looked at, at most, for figures that are of one moment."""


@dataclass(frozen=True, kw_only=True)
class ObservedStore:
    """``usage`` is None where there is no store, else ``notes`` are those of all guests, on it or not."""

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

    ``path`` looks at another directory instead. Raises ConfigError where qemu.conf cannot be
    parsed, OSError where something cannot be read.
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
    """Where libvirt may have put guests' directories, the likeliest first.

    That is where qemu.conf says. But what counts for libvirt is the qemu.conf that it read when it
    started, so also its default, and below the stores of fstab what it appends there. That is
    passed over where QEMU's user owns the store's root: such a directory may have been planted.
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
    """The place itself, or what it leads to by links that root alone can have made.

    Below the store's mount point none is followed, and above it the mount table's paths have none.
    Where one is left on the way to what is no store, it is named.
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
    """What fstab mounts, where the kernel then has it: mount(8) follows the links in its paths."""
    there = {mount.mount_point for mount in table}
    return tuple(_followed(entry, there) for entry in parse_fstab(read_text(FSTAB, "")))


def _followed(entry: Entry, there: set[str]) -> Entry:
    place = entry.mount_point
    if place not in there and place.startswith("/"):
        place = resolved(place)
    spec = resolved(entry.spec) if entry.bind and entry.spec.startswith("/") else entry.spec
    if (place, spec) == (entry.mount_point, entry.spec):
        return entry
    return replace(entry, mount_point=place, spec=spec)


def configured_directory() -> str:
    """The memory backing directory by qemu.conf; libvirt's default where that cannot be parsed."""
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
    """What guests were promised (ledger.holding), by the places where their directories may be."""
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
    """The note of a guest that runs and has none, by its XML and where its directory is."""
    return ledger.noted_again(
        guest, directory_of(guest, found), lambda path: _files_in(path, found)
    )


def directory_of(guest: Guest, found: tuple[Place, ...]) -> str:
    """The path of a running guest's directory: where there is one of its name, else where one is to
    be.
    """
    names = directory_names(guest.domain_id or 0, guest.name)
    there = (each.path for place in found for each in _look(place, set(names)))
    return next(there, f"{found[0].path}/{names[0]}")


def figures(store: Store, notes: Iterable[Note]) -> StoreUsage:
    """The store's figures with the notes of the guests on it, no file looked at: what is used is
    nobody's.
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
    """Whether the directory is on the mount's file system, which a bind mount may show in several
    places.
    """
    if not path or is_below(path, mount.mount_point):
        return bool(path)
    found = covering(mounts(), path)
    return found is not None and found.device == mount.device


def with_files(
    usage: StoreUsage, store: Store, found: tuple[Place, ...], *, everything: bool
) -> StoreUsage:
    """The same with the files: of guests that have notes, or of ``everything`` that looks like a
    guest's.

    What a guest takes or gives back between two looks would be taken for what others occupy. So the
    files are looked at again while what is used changes; in the end it counts as before or after,
    whichever is less.
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
    """The guests' directories, and their memory files that are in none of them any more."""
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
    """Of these files of the guest those that its QEMU has open, though they are in no directory any
    more.
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
    """All that look like guests' directories, on a store or not."""
    return tuple(each for place in found for each in _look(place, None))


def _look(place: Place, names: set[str] | None) -> Iterator[GuestDirectory]:
    """The guests' directories there; none where something else is mounted in between."""
    if place.mount is None:
        return
    try:
        yield from storetree.guest_directories(place.mount, place.path, names)
    except RefusedError:
        return


def named_devices(entries: Iterable[Entry]) -> dict[str, tuple[int, int]]:
    """The block devices that fstab names, by its first field; udev's links stand for UUID= and the
    like.
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
