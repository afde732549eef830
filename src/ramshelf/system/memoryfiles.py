"""A guest's directory and the memory files in it: looked at, reserved, removed.

The directory belongs to QEMU's user, so root walks it by descriptor and follows no link in it.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ramshelf.core.capacity import FileUsage
from ramshelf.core.errors import RefusedError
from ramshelf.core.reservation import GuestDirectory, Reservation

_SELINUX = "security.selinux"


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor of the directory ``path``; OSError where it is none, or a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def observe_directory(path: str) -> GuestDirectory:
    """The directory and what lies in it."""
    with opened(path) as descriptor:
        status = os.fstat(descriptor)
        files, others = [], []
        for name in sorted(os.listdir(descriptor)):
            entry = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            full = os.path.join(path, name)
            if stat.S_ISREG(entry.st_mode):
                files.append(FileUsage(path=full, apparent=entry.st_size, allocated=entry.st_blocks * 512))
            else:
                others.append(full)
    return GuestDirectory(
        path=path,
        device=(os.major(status.st_dev), os.minor(status.st_dev)),
        uid=status.st_uid,
        gid=status.st_gid,
        files=tuple(files),
        others=tuple(others),
    )


def create(directory: GuestDirectory, reservation: Reservation) -> None:
    """Make one memory file, owned and labelled like its directory. Raises RefusedError, OSError."""
    with opened(directory.path) as parent:
        file = os.open(
            reservation.name,
            os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=parent,
        )
        try:
            os.fchown(file, directory.uid, directory.gid)
            with suppress(OSError):  # no SELinux, or a file system without labels
                os.setxattr(file, _SELINUX, os.getxattr(parent, _SELINUX))
            os.ftruncate(file, reservation.size)
            if reservation.allocate:
                _allocate(file, reservation.size, directory.path)
        finally:
            os.close(file)


def allocate(usage: FileUsage) -> None:
    """Give a memory file that is in use all its extents; what is written stays. Raises as ``create``."""
    file = os.open(usage.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _allocate(file, usage.apparent, os.path.dirname(usage.path))
    finally:
        os.close(file)


def _allocate(file: int, size: int, directory: str) -> None:
    try:
        _fallocate(file, 0, 0, size)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise RefusedError(
                "store.no-fallocate",
                f"The file system of {directory} cannot reserve space for guest memory.",
                hint="Make the store anew: ramshelf store create makes ext4 with extents, or xfs.",
                facts={"directory": directory},
            ) from error
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise RefusedError(
                "store.full",
                f"The store has no room left for the memory in {directory}.",
                hint="Something else takes its space; 'ramshelf capacity' shows who holds what.",
                facts={"directory": directory},
            ) from error
        raise OSError(error.errno, error.strerror, directory) from error


def punch(file: int, offset: int, length: int) -> None:
    """Make this range of the file a hole, which reads as zeros; its size stays. Raises OSError."""
    _fallocate(file, _PUNCH_HOLE | _KEEP_SIZE, offset, length)


_KEEP_SIZE, _PUNCH_HOLE = 1, 2
"""fallocate(2)'s FALLOC_FL_*."""


def _fallocate(file: int, mode: int, offset: int, length: int) -> None:
    # fallocate(2) itself: posix_fallocate writes to each block where the file system knows no other way,
    # which is slow, and unsafe on the memory of a running guest.
    import ctypes  # noqa: PLC0415 - 3 ms, needed on disks only

    libc = ctypes.CDLL(None, use_errno=True)
    function = getattr(libc, "fallocate64", None) or libc.fallocate  # glibc on 32 bits; musl
    arguments = (ctypes.c_int(file), ctypes.c_int(mode), ctypes.c_int64(offset), ctypes.c_int64(length))
    while function(*arguments) != 0:
        if (number := ctypes.get_errno()) != errno.EINTR:
            raise OSError(number, os.strerror(number))


def remove(directory: GuestDirectory, names: tuple[str, ...]) -> None:
    """Remove these files; what is gone already is passed over."""
    with opened(directory.path) as parent:
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)


def empty(directory: GuestDirectory) -> None:
    """Remove all that lies in the directory."""
    remove(directory, tuple(os.path.basename(file.path) for file in directory.files))
    if not directory.others:
        return
    import shutil  # noqa: PLC0415 - 10 ms, hardly ever needed

    with opened(directory.path) as parent:
        for name in map(os.path.basename, directory.others):
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                shutil.rmtree(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)
