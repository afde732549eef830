"""Files: read, measured, locked, and memory files reserved."""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ramshelf.core.capacity import FileUsage
from ramshelf.core.errors import RefusedError

RUN_DIR = "/run/ramshelf"

Path = str | os.PathLike[str]


def read_text(path: Path, default: str | None = None) -> str:
    """The whole file, line ends as they are; ``default`` (if given) where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", errors="surrogateescape")
    except FileNotFoundError:
        if default is None:
            raise
        return default


def file_usages(directory: Path) -> tuple[FileUsage, ...]:
    """Every regular file below ``directory``; what vanishes meanwhile is passed over.

    Raises OSError for a directory that may not be read: its files would be missing from the sum.
    """
    usages = []
    for parent, _, names in os.walk(directory, onerror=_unless_gone):
        for name in names:
            path = os.path.join(parent, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                usages.append(FileUsage(path=path, apparent=status.st_size, allocated=status.st_blocks * 512))
    return tuple(usages)


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def size_and_used(mount_point: Path) -> tuple[int, int]:
    """Bytes that the file system has, and bytes that QEMU's user cannot have (statvfs: f_blocks, f_bavail).

    What ext4 keeps for root counts as used: root can reserve there, but QEMU, which refills the holes that a
    balloon has punched, gets SIGBUS.
    """
    figures = os.statvfs(mount_point)
    return figures.f_blocks * figures.f_frsize, (figures.f_blocks - figures.f_bavail) * figures.f_frsize


@contextmanager
def store_lock(path: Path | None = None, *, timeout: float | None = None) -> Iterator[None]:
    """The one lock under which space on the store is counted and taken.

    Held by the hook for milliseconds, by ``store clean`` while it removes; freed by the kernel when its
    holder dies. Raises RefusedError ``store.locked`` after ``timeout`` seconds (None: waits for ever).
    """
    path = path or f"{RUN_DIR}/lock"
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, timeout)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, timeout: float | None) -> None:
    if timeout is None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            raise RefusedError(
                "store.locked",
                f"The store was locked by another ramshelf for {timeout:g} s.",
                hint="'fuser -v /run/ramshelf/lock' shows who holds it.",
            ) from None
        return
