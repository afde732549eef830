"""How files are read and measured."""

from __future__ import annotations

import errno
import os
import stat

from ramshelf.core.errors import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ramshelf.core.files.mounts import Mount

    Path = str | os.PathLike[str]

RUN_DIR = "/run/ramshelf"


def read_text(path: Path, default: str | None = None) -> str:
    """Return the whole file, line ends as they are; ``default`` (if given) where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", errors="surrogateescape")
    except FileNotFoundError:
        if default is None:
            raise
        return default


def last_bytes(path: Path, most: int) -> str:
    """Return the whole lines among the last ``most`` bytes of a plain file; '' of anything else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return ""
        begin = max(0, status.st_size - most)
        text = os.pread(descriptor, most, begin).decode("utf-8", errors="surrogateescape")
        return text.partition("\n")[2] if begin else text
    finally:
        os.close(descriptor)


def size_and_used(mount_point: Path) -> tuple[int, int]:
    """Return the bytes that the file system has, and those that QEMU's user cannot have.

    They come from statvfs (f_blocks, f_bavail). What ext4 keeps for root counts as used: root can
    reserve there, but QEMU, which refills the holes that a balloon has punched, gets SIGBUS.
    """
    figures = os.statvfs(mount_point)
    return (
        figures.f_blocks * figures.f_frsize,
        (figures.f_blocks - figures.f_bavail) * figures.f_frsize,
    )


def inodes(mount_point: Path) -> tuple[int, int]:
    """Return how many inodes the file system can have, and how many are left.

    They come from statvfs (f_files, f_favail).
    """
    figures = os.statvfs(mount_point)
    return figures.f_files, figures.f_favail


def block_size(mount_point: Path) -> int:
    """Return the bytes of one of the file system's blocks (statvfs: f_frsize)."""
    return os.statvfs(mount_point).f_frsize


_EXT4_SUPERBLOCK, _EXT4_MAGIC = 1024, b"\x53\xef"


def ext4_cluster(mount: Mount) -> int:
    """Return the bytes that an ext4 gives out at a time; 0 where its superblock is not seen.

    They come from the superblock (s_log_cluster_size). With bigalloc they are more than a block, of
    which statvfs says nothing.
    """
    try:
        device = os.open(mount.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return 0
    try:
        number = os.fstat(device).st_rdev
        block = os.pread(device, 64, _EXT4_SUPERBLOCK)
    except OSError:
        return 0
    finally:
        os.close(device)
    if (os.major(number), os.minor(number)) != mount.device or block[56:58] != _EXT4_MAGIC:
        return 0
    return 1024 << int.from_bytes(block[28:32], "little")


_MOST_LINKS = 40
"""The most links in a path that the kernel follows (MAXSYMLINKS)."""


def resolved(path: str) -> str:
    """Return the path with those links followed that root alone can have made (``follow``)."""
    return follow(path)[0]


def follow(path: str) -> tuple[str, tuple[str, ...]]:
    """Follow those links in an absolute path that root alone can have made; return both.

    The result is the path that this leads to, and these links. Such a link is root's, and so is
    each directory from the root down to it, where nobody else may write: so nobody else has made
    the link, nor can put another one or another directory in its place. From the first directory on
    where that is not so, or where there is none, the path stays as it is, links included: whoever
    opens it follows none (storetree).
    """
    done, left = "", _parts(path)
    links: list[str] = []
    while path.startswith("/") and left and _is_roots_alone(done or "/"):
        part = left.pop(0)
        if part == "..":
            done = done.rpartition("/")[0]
            continue
        here = f"{done}/{part}"
        try:
            target = os.readlink(here)
        except OSError:  # no link, or nothing at all
            done = here
            continue
        if os.lstat(here).st_uid != 0 or len(links) == _MOST_LINKS:
            left.insert(0, part)
            break
        links.append(here)
        left = _parts(target) + left
        if target.startswith("/"):
            done = ""
    if not links or ".." in left:
        return path, ()
    return "/".join((done, *left)) or "/", tuple(links)


def first_link(path: str, below: str = "") -> str:
    """Return the first part of the way to ``path`` that is a symbolic link; '' where none is.

    The way is looked at from ``below`` on.
    """
    done = below.rstrip("/")
    for part in _parts(path[len(done) :]):
        done = f"{done}/{part}"
        if os.path.islink(done):
            return done
    return ""


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in {"", "."}]


def _is_roots_alone(directory: str) -> bool:
    """Tell whether root alone can change what is in the directory.

    An access control list shows as the group's mode.
    """
    try:
        status = os.lstat(directory)
    except OSError:
        return False
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == 0 and not others_write


def have_directory(path: str, mode: int) -> None:
    """Make the directory, and those above it, unless it is there. Raises OSError."""
    if not os.path.isdir(path):  # as a rule it is there, which spares the hook makedirs
        os.makedirs(path, mode=mode, exist_ok=True)


def make_directory(path: str, *, uid: int, gid: int, mode: int) -> None:
    """Make a directory, or give one that is there this owner and mode; its parent must be there.

    A link on the way is followed where root alone can have made it. Raises RefusedError
    ``file.link`` for other links, as QEMU's user may plant them on the store, and for what is no
    directory. Raises OSError for other errors.
    """
    parts = [part for part in path.split("/") if part]
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    current = os.open("/", flags)
    try:
        for part in parts[:-1]:
            status = os.fstat(current)
            trusted = status.st_uid == 0 and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            below = os.open(part, flags & ~os.O_NOFOLLOW if trusted else flags, dir_fd=current)
            os.close(current)
            current = below
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=current)
        except FileExistsError:
            pass
        made = os.open(parts[-1], flags, dir_fd=current)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
            error.filename = path  # not only the part of it that was opened
            raise
        raise RefusedError(
            "file.link",
            f"{path} leads through a link, or through what is no directory.",
            hint="Somebody other than root has put it there: see what it is, and remove it.",
            facts={"path": path},
        ) from error
    finally:
        os.close(current)
    try:
        os.fchown(made, uid, gid)
        os.fchmod(made, mode)
    finally:
        os.close(made)
