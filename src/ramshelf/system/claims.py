"""Claims that are being made: a locked file each in /run, for the seconds from the claim to the guest's run.

Between the two Placement has an allocation whose guest does not run yet. The lock goes with the
process that holds it, so that a start which was killed leaves nothing that counts.

A guest that comes from another host is claimed for from there, before it has arrived here: it is expected for
a while, told by the hook (core/hookcall.py), and as soon as it has arrived it is a guest that runs here.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from ramshelf.system.filesystem import RUN_DIR
from ramshelf.system.textfiles import write_atomically

_DIRECTORY = Path(RUN_DIR, "claims")
_EXPECTED = Path(RUN_DIR, "coming")
"""A file for each guest that is expected: the second since boot until which it is."""

_EXPECTED_FOR = 120
"""Seconds from the claim to the guest's directory on the store: libvirt takes one or two, as a rule."""


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


def expect(uuid: str) -> None:
    """Have the guest's claim count as being made until it arrives; ValueError for what is no UUID."""
    _EXPECTED.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomically(_EXPECTED / str(UUID(uuid)), f"{_clock() + _EXPECTED_FOR:.0f}\n")


def in_the_making() -> frozenset[str]:
    """The guests whose claims are being made; what does not count any more is removed."""
    made = {name for name in _names(_DIRECTORY) if _is_held(str(_DIRECTORY / name))}
    return frozenset(made | {name for name in _names(_EXPECTED) if _is_expected(_EXPECTED / name)})


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _is_expected(path: Path) -> bool:
    with suppress(FileNotFoundError, ValueError):
        if _clock() < float(path.read_text()):
            return True
        path.unlink()
    return False


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


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
