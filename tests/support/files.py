"""Memory files and guests' directories that a test made itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ramshelf.core.store.directory import FileUsage, GuestDirectory
from ramshelf.system import storetree


def usage(path: Path | str) -> FileUsage:
    """The file as it is seen on a store; of one that is not there its path alone."""
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
    """A guest's directory: a descriptor of it, and what lies in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor, storetree.observe(descriptor, str(path))
    finally:
        os.close(descriptor)


def observed(path: Path) -> GuestDirectory:
    """What lies in a guest's directory."""
    with opened(path) as (_, directory):
        return directory
