"""The one way to look at what lies on the store: by descriptor, from the mount point down.

QEMU's user owns the guests' directories, and libvirtd gives it their parents at every start of its
own: what is looked at may be renamed, removed or planted at that very moment. So each component is
opened by itself, and no link is followed at any of them. Those that root alone can have made have
been resolved in the path before (filesystem.resolved). Nothing is opened that could block, all lies
on the store's own device, guests' directories are looked at one level deep, and entries are
bounded. What is done next goes by descriptor, too.
"""

from __future__ import annotations

import errno
import os
import stat

from ramshelf.core.errors import RefusedError
from ramshelf.core.store.directory import FileUsage, GuestDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from ramshelf.core.files.mounts import Mount

MOST_GUESTS = 20_000
"""The most entries of the memory backing directory that are looked at.

A host has hundreds of guests.
"""

MOST_FILES = 1_024
"""The most entries of a guest's directory that are looked at.

libvirt makes one file for each NUMA cell and memory device.
"""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Opened:
    """A context manager that gives the number of a descriptor, and closes it at the end."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __enter__(self) -> int:
        return self.descriptor

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.descriptor)


def open_directory(mount: Mount, path: str) -> Opened:
    """Open the directory ``path`` on this mount.

    Raises FileNotFoundError or NotADirectoryError where there is none, and RefusedError
    ``store.other-device`` where something else is mounted in between.
    """
    parts = [part for part in path.split("/") if part]
    above = len([part for part in mount.mount_point.split("/") if part])
    current = os.open("/", _DIRECTORY)
    device = 0
    try:
        for depth, part in enumerate(parts, start=1):
            current = _into(current, part)
            found = os.fstat(current).st_dev
            if depth == above:
                device = found
                _require(_is_mounts(found, mount), mount, path)
            elif depth > above > 0:
                _require(found == device, mount, path)
    except BaseException:
        os.close(current)
        raise
    return Opened(current)


def take_over(directory: int) -> None:
    """Make root own the opened directory that holds guests' directories; everybody may enter it.

    libvirtd gives it to QEMU's user at each start of its own. Whoever owns it can put a link in the
    place of a guest's directory, and libvirt (9.0 at least) removes what lies behind that when the
    guest ends. QEMU only needs to pass through. Where the file system does not allow it the
    directory is left as it is.
    """
    status = os.fstat(directory)
    if status.st_uid == 0:
        return
    try:
        os.fchown(directory, 0, -1)
        os.fchmod(directory, (stat.S_IMODE(status.st_mode) | 0o711) & ~0o022)
    except OSError:
        return


def open_guest(parent: int, name: str) -> Opened:
    """Open a guest's directory in the opened memory backing directory, on the same device.

    Raises OSError where it is none: FileNotFoundError, NotADirectoryError, or ELOOP for a link.
    """
    descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    if os.fstat(descriptor).st_dev != os.fstat(parent).st_dev:
        os.close(descriptor)
        raise NotADirectoryError(errno.ENOTDIR, "another file system is mounted there", name)
    return Opened(descriptor)


def open_file(parent: int, name: str, *, writable: bool = False, inode: int = 0) -> Opened:
    """Open a regular file in an opened guest's directory, whatever has been put in its place.

    ``inode`` is that of the file that was seen before, and 0 stands for any. Raises
    FileNotFoundError where there is no such file.
    """
    try:
        descriptor = os.open(name, _FILE | (os.O_RDWR if writable else os.O_RDONLY), dir_fd=parent)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:  # a link, a socket or FIFO
            raise FileNotFoundError(errno.ENOENT, "something else is there now", name) from error
        raise
    status = os.fstat(descriptor)
    if (
        not stat.S_ISREG(status.st_mode)
        or (inode and status.st_ino != inode)
        or status.st_dev != os.fstat(parent).st_dev
    ):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "the file is another one now", name)
    return Opened(descriptor)


def open_memory(file: FileUsage, *, writable: bool = False) -> int:
    """Open a memory file that was observed before, whatever happened to its path since.

    Return its descriptor. Raises FileNotFoundError where the path leads to another file now, or
    through a link; else OSError.
    """
    parts = [part for part in file.path.split("/") if part]
    current = os.open("/", _DIRECTORY)
    try:
        for part in parts[:-1]:
            current = _into(current, part)
        with open_file(current, parts[-1], writable=writable, inode=file.inode) as descriptor:
            return os.dup(descriptor)
    except OSError as error:
        if error.errno in _NONE:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file.path) from error
        raise
    finally:
        os.close(current)


def names(directory: int, most: int = MOST_GUESTS) -> tuple[str, ...]:
    """Return the entries of an opened directory, sorted, no more than ``most`` of them."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            found.append(entry.name)
            if len(found) >= most:
                break
    return tuple(sorted(found))


def observe(directory: int, path: str) -> GuestDirectory:
    """Return an opened guest's directory and what lies in it, one level deep.

    ``path`` is what the directory is called.
    """
    status = os.fstat(directory)
    files, others = [], []
    found = names(directory, MOST_FILES)
    for name in found:
        try:
            entry = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(entry.st_mode):
            files.append(
                FileUsage(
                    path=f"{path}/{name}",
                    apparent=entry.st_size,
                    allocated=entry.st_blocks * 512,
                    inode=entry.st_ino,
                )
            )
        else:
            others.append(name)
    return GuestDirectory(
        path=path,
        device=(os.major(status.st_dev), os.minor(status.st_dev)),
        inode=status.st_ino,
        changed=status.st_ctime_ns,
        uid=status.st_uid,
        gid=status.st_gid,
        files=tuple(files),
        others=tuple(others),
        cut=len(found) >= MOST_FILES,
    )


def guest_directories(
    mount: Mount, path: str, wanted: set[str] | None = None
) -> Iterator[GuestDirectory]:
    """Yield the directories of guests in the directory ``path`` of the mount.

    They are those of the names ``wanted``, or all. A guest's directory is called ID-NAME. What is
    none, is a link, or has gone meanwhile is passed over; nothing is given where ``path`` is not
    there. Raises RefusedError ``store.other-device``, or OSError.
    """
    try:
        opened = open_directory(mount, path)
    except OSError as error:
        if error.errno in _NONE:
            return
        raise
    with opened as parent:
        for name in names(parent) if wanted is None else sorted(wanted):
            if not is_guest_directory(name):
                continue
            try:
                directory = open_guest(parent, name)
            except OSError as error:
                if error.errno in _NONE:
                    continue
                raise
            with directory as descriptor:
                yield observe(descriptor, f"{path}/{name}")


def is_guest_directory(name: str) -> bool:
    """Tell whether it is called ID-NAME, as libvirt calls guests' directories.

    lost+found is not.
    """
    number, dash, rest = name.partition("-")
    return bool(dash and rest) and number.isascii() and number.isdigit()


_NONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def _into(parent: int, name: str) -> int:
    """Open the directory below in place of its parent, which is closed."""
    descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    os.close(parent)
    return descriptor


def _is_mounts(found: int, mount: Mount) -> bool:
    """Tell whether it is the mount's device.

    btrfs gives each subvolume a number that the mount table does not have, so any number is right
    there.
    """
    return mount.fstype == "btrfs" or (os.major(found), os.minor(found)) == mount.device


def _require(right: bool, mount: Mount, path: str) -> None:  # noqa: FBT001 - what is required
    if not right:
        raise RefusedError(
            "store.other-device",
            f"{path} is not on the file system at {mount.mount_point}.",
            hint=(
                "Something else is mounted in between; 'findmnt --target' with both paths shows it."
            ),
            facts={"directory": path, "store": mount.mount_point},
        )
