"""Notes of guests that ramshelf has paused for a moment.

There is a file for each guest that is being trimmed, called NAME.held, in a directory where root
alone writes. Whoever holds the guest has the file locked (flock(2)): the kernel takes that lock
back with the process, however it ends. The file says which run of the guest was paused, from before
libvirt is asked to pause it until it was resumed; else it is empty. So the guest in a file that is
not empty has not been let go yet, and if the file is not locked, whoever paused the guest has died.

The hook asks for these notes on its way: what is imported here it has already.
"""

from __future__ import annotations

import fcntl
import os
import time

from ramshelf.system.locks import open_locked

_DIRECTORY = "/run/ramshelf/held"
_SUFFIX = ".held"

_PATIENCE = 1.0
"""Seconds to wait for another one's lock; whoever only looks has it for less."""


def orphaned() -> tuple[str, ...]:
    """Return the names of the guests that were paused by somebody who has died.

    There are none where this user may not know.
    """
    return tuple(name for name in _names() if pending(name) and not _is_locked(_path(name)))


def pending(name: str) -> bool:
    """Tell whether the guest is paused for a moment, by somebody who may have died."""
    try:
        return os.stat(_path(name)).st_size > 0
    except OSError:
        return False


class HeldNote:
    """The guest's note, locked; a context manager.

    ``domain_id`` and ``uuid`` are the run of the guest that is to be resumed; None and '' where
    none is. ``asked`` is when libvirt was asked to pause it, in seconds since boot, and 0 once it
    has. Raises BlockingIOError where somebody else has the note.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._path = _path(name)
        os.makedirs(os.path.dirname(_DIRECTORY), mode=0o755, exist_ok=True)
        os.makedirs(_DIRECTORY, mode=0o700, exist_ok=True)
        self._file = open_locked(self._path, _PATIENCE)
        words = os.pread(self._file, 4096, 0).decode(errors="replace").split()
        self.domain_id = int(words[0]) if len(words) > 2 else None
        self.uuid = words[1] if len(words) > 2 else ""
        self.asked = float(words[2]) if len(words) > 2 else 0.0

    def __enter__(self) -> HeldNote:  # noqa: PYI034 - typing costs the hook milliseconds
        return self

    def __exit__(self, *_: object) -> None:
        """Let others have the note; it stays as long as it says that a guest is to be resumed."""
        if self.domain_id is None:
            os.unlink(self._path)
        os.close(self._file)

    @property
    def age(self) -> float:
        """Seconds since libvirt was asked to pause the guest; infinite once it has."""
        return _clock() - self.asked if self.asked else float("inf")

    def write(self, domain_id: int, uuid: str) -> None:
        """Have whoever comes next resume this run of the guest."""
        self.domain_id, self.uuid, self.asked = domain_id, uuid, _clock()
        self._write()

    def paused(self) -> None:
        """Say that libvirt has paused the guest: if it runs, nothing is left to be done."""
        self.asked = 0.0
        self._write()

    def _write(self) -> None:
        text = f"{self.domain_id} {self.uuid} {self.asked:.0f}\n".encode()
        # In one piece: a signal ends no write that has begun in a page.
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))

    def clear(self) -> None:
        """Have nobody resume the guest."""
        self.domain_id = None
        os.ftruncate(self._file, 0)


def _path(name: str) -> str:
    return f"{_DIRECTORY}/{name}{_SUFFIX}"


def _names() -> list[str]:
    try:
        entries = os.listdir(_DIRECTORY)
    except OSError:
        return []
    return [entry[: -len(_SUFFIX)] for entry in entries if entry.endswith(_SUFFIX)]


def _is_locked(path: str) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True  # it is gone, so there is nothing to be let go
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
