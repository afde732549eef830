"""Claims that are being made: a locked file each in /run, for the seconds from the claim to the guest's run.

Between the two Placement has an allocation whose guest does not run yet. The lock goes with the
process that holds it, so that a start which was killed leaves nothing that counts.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ramshelf.system.filesystem import RUN_DIR

_DIRECTORY = Path(RUN_DIR, "claims")


@contextmanager
def being_made(uuid: str) -> Iterator[None]:
    """While this lasts the guest's claim counts as being made; waits for another that makes the same."""
    _DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = _DIRECTORY / uuid
    descriptor = _locked(str(path))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def in_the_making() -> frozenset[str]:
    """The guests whose claims are being made; what a killed start has left is removed."""
    try:
        names = os.listdir(_DIRECTORY)
    except FileNotFoundError:
        return frozenset()
    return frozenset(name for name in names if _is_held(str(_DIRECTORY / name)))


def _locked(path: str) -> int:
    """The locked file of that path: one that its holder has removed meanwhile is not."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)


def _is_held(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(FileNotFoundError):
            os.unlink(path)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
