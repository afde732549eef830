"""Claims that are being made: a locked file in /run for each, from the claim to the guest's run.

That takes seconds, during which Placement has an allocation whose guest does not run yet. The lock
goes with the process that holds it, so that a start which was killed leaves nothing that counts.

A guest that comes from another host is claimed for from there, before it has arrived here. The hook
tells of it (core/hook/call.py), and it is expected for a while. As soon as it has arrived, it is a
guest that runs here.
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
from ramshelf.system.locks import open_locked

_DIRECTORY = Path(RUN_DIR, "claims")
_EXPECTED = Path(RUN_DIR, "coming")
"""The directory with an empty file for each guest that is expected, called UUID.SECOND.

SECOND is the second since boot until which the guest is expected. All is in the name, so that
whoever is killed leaves either the whole or nothing.
"""

_MOST_EXPECTED = 1000
"""The most guests that are expected at one time.

Whoever may start guests can make one more be expected.
"""

_EXPECTED_FOR = 120
"""Seconds that a guest has from its claim until its directory is on the store.

As a rule, libvirt takes one or two.
"""


@contextmanager
def being_made(uuid: str) -> Iterator[None]:
    """Have the guest's claim count as being made while the context lasts.

    Waits for another process that makes the same claim.
    """
    path = _DIRECTORY / uuid
    descriptor = open_locked(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def expect(uuid: str) -> None:
    """Have the guest's claim count as being made until the guest arrives.

    Of too many guests that are expected, the one that has been expected longest is forgotten.
    Raises ValueError for what is no UUID.
    """
    uuid = str(UUID(uuid))
    _EXPECTED.mkdir(mode=0o755, parents=True, exist_ok=True)
    (_EXPECTED / f"{uuid}.{_clock() + _EXPECTED_FOR:.0f}").touch(mode=0o600)
    expected = sorted(_expected(), reverse=True)
    for _, name in expected[_MOST_EXPECTED:]:
        (_EXPECTED / name).unlink(missing_ok=True)


def in_the_making() -> frozenset[str]:
    """Return the guests whose claims are being made, and remove what does not count any more."""
    made = {name for name in _names(_DIRECTORY) if _is_held(str(_DIRECTORY / name))}
    return frozenset(made | {name.partition(".")[0] for _, name in _expected()})


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _expected() -> list[tuple[int, str]]:
    """Return the guests that are still expected, and remove the files of the others.

    Each comes as the second until which it is expected and the name of its file.
    """
    found = []
    for name in _names(_EXPECTED):
        until = name.partition(".")[2]
        if until.isdecimal() and _clock() < int(until):
            found.append((int(until), name))
        else:
            with suppress(FileNotFoundError, PermissionError):  # only root can remove it
                (_EXPECTED / name).unlink()
    return found


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _is_held(path: str) -> bool:
    """Tell whether somebody holds the file locked, and remove it where nobody does.

    To a user that may not open the file it looks held.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(FileNotFoundError):
            os.unlink(path)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
