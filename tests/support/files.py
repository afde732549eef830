"""Memory files and guests' directories that a test has made itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ramshelf.core.store.directory import FileUsage, GuestDirectory
from ramshelf.system import storetree


def usage(path: Path | str) -> FileUsage:
    """Return the file as it is seen on a store; of one that is not there only the path."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return FileUsage(path=str(path), apparent=0, allocated=0)
    return FileUsage(
        path=str(path),
        apparent=status.st_size,
        allocated=status.st_blocks * 512,
        inode=status.st_ino,
    )


@contextmanager
def opened(path: Path) -> Iterator[tuple[int, GuestDirectory]]:
    """Yield a descriptor of a guest's directory, and what lies in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor, storetree.observe(descriptor, str(path))
    finally:
        os.close(descriptor)


def observed(path: Path) -> GuestDirectory:
    """Return what lies in a guest's directory."""
    with opened(path) as (_, directory):
        return directory
