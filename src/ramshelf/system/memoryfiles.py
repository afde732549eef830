"""The memory files in an opened guest's directory: how they are made, allocated and removed.

system/storetree.py opens them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys

from ramshelf.core.errors import RefusedError
from ramshelf.core.store.ledger import NotedFile
from ramshelf.system.storetree import names, open_file, open_guest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ramshelf.core.guest.reservation import Reservation
    from ramshelf.core.store.directory import FileUsage, GuestDirectory

_SELINUX = "security.selinux"

_MOST = 100_000
"""The most entries that are removed at a time; the next time goes on."""


def create(parent: int, directory: GuestDirectory, reservation: Reservation) -> NotedFile:
    """Make a memory file in the opened directory, with its owner and label, all of it a hole.

    Raises OSError: FileExistsError where somebody was quicker.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(reservation.name, flags, 0o600, dir_fd=parent)
    try:
        os.fchown(file, directory.uid, directory.gid)
        try:
            os.setxattr(file, _SELINUX, os.getxattr(parent, _SELINUX))
        except OSError:
            pass  # no SELinux, or a file system without labels
        os.ftruncate(file, reservation.size)
        inode = os.fstat(file).st_ino
    finally:
        os.close(file)
    return NotedFile(name=reservation.name, size=reservation.size, inode=inode)


def allocate(parent: int, usage: FileUsage) -> None:
    """Give a memory file all its extents, in use or not; what is written stays.

    Raises RefusedError ``store.no-fallocate`` or ``store.full``, FileNotFoundError where another
    file is in its place, or another OSError.
    """
    with open_file(parent, usage.name, writable=True, inode=usage.inode) as file:
        _allocate(file, usage.apparent, usage.path.rpartition("/")[0])


def _allocate(file: int, size: int, directory: str) -> None:
    try:
        _reserve(file, size)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise RefusedError(
                "store.no-fallocate",
                f"The file system of {directory} cannot reserve space for guest memory.",
                hint="Make the store again: ramshelf store create makes ext4 with extents, or xfs.",
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


_FS_IOC_RESVSP64 = 0x4030582A
"""The ioctl _IOW('X', 42, struct space_resv) of linux/falloc.h.

This is the number that it has on x86, ARM, S/390 and RISC-V.
"""


def _reserve(file: int, size: int) -> None:
    """Allocate the file's extents up to ``size`` by the kernel's own fallocate.

    posix_fallocate writes to each block where the file system knows no other way, which is slow,
    and unsafe on the memory of a running guest. The ioctl does the same as the system call with
    FALLOC_FL_KEEP_SIZE (ioctl_preallocate), and spares the hook the milliseconds that the import of
    ctypes takes.
    """
    start, rest = bytes(8), bytes(24)  # l_type, l_whence and padding; l_sysid, l_pid, l_pad
    request = start + bytes(8) + size.to_bytes(8, "little" if _LITTLE else "big") + rest
    while True:
        try:
            fcntl.ioctl(file, _FS_IOC_RESVSP64, request)
        except InterruptedError:
            continue
        except OSError as error:
            if error.errno != errno.ENOTTY:
                raise
            _fallocate(file, _KEEP_SIZE, 0, size)
        return


_LITTLE = sys.byteorder == "little"


def punch(file: int, offset: int, length: int) -> None:
    """Make this range of the file a hole, which reads as zeros; the size of the file stays.

    Raises OSError.
    """
    _fallocate(file, _PUNCH_HOLE | _KEEP_SIZE, offset, length)


_KEEP_SIZE, _PUNCH_HOLE = 1, 2
"""The flags FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE of fallocate(2)."""


def _fallocate(file: int, mode: int, offset: int, length: int) -> None:
    import ctypes  # noqa: PLC0415 - 3 ms, which the hook is spared

    libc = ctypes.CDLL(None, use_errno=True)
    function = getattr(libc, "fallocate64", None) or libc.fallocate  # glibc on 32 bits; musl
    arguments = (
        ctypes.c_int(file),
        ctypes.c_int(mode),
        ctypes.c_int64(offset),
        ctypes.c_int64(length),
    )
    while function(*arguments) != 0:
        if (number := ctypes.get_errno()) != errno.EINTR:
            raise OSError(number, os.strerror(number))


def remove(parent: int, gone: tuple[str, ...]) -> None:
    """Remove these files from the opened directory; what is gone already is passed over."""
    for name in gone:
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass


def put_away(directory: int, name: str) -> None:
    """Have nothing of this name in the opened directory.

    A directory that is not empty gets another name.
    """
    if not _removed(directory, name):
        _rename(name, directory, directory)


def _rename(name: str, source: int, target: int) -> None:
    """Move an entry to the directory ``target``, under a name that nobody can have foreseen."""
    os.rename(name, f".removed-{os.urandom(8).hex()}", src_dir_fd=source, dst_dir_fd=target)


def empty(directory: int, most: int = _MOST) -> None:
    """Remove all that lies in the opened directory, however deep, and follow no link.

    What lies in a directory below is brought up, so that depth costs nothing. Raises OSError:
    ENOTEMPTY where there is more than is removed at a time, or more comes all the while; EBUSY
    where another file system is mounted.
    """
    left = most
    while found := names(directory, left):
        for name in found:
            left -= 1
            if left <= 0:
                raise OSError(errno.ENOTEMPTY, "there is more than is removed at a time", name)
            if not _removed(directory, name):
                left = _bring_up(directory, name, left)


def _removed(directory: int, name: str) -> bool:
    """Remove a file, a link or an empty directory, and tell whether it is gone now."""
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            os.rmdir(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return True  # gone, or another thing now: the next round tells
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def _bring_up(directory: int, name: str, left: int) -> int:
    """Empty the directory ``name``, and move directories in it that are not empty up.

    They come into ``directory``. Return how many entries may still be removed.
    """
    try:
        inner = open_guest(directory, name)
    except (FileNotFoundError, NotADirectoryError):
        return left
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return left
    with inner as descriptor:
        for entry in names(descriptor, left):
            left -= 1
            if not _removed(descriptor, entry):
                _rename(entry, descriptor, directory)
    return left
