"""Locks between ramshelf's processes: files below /run that are locked with flock(2).

The kernel frees a lock when its holder dies. A file that is removed while others wait for it counts
for none of them: they open the path again.
"""

from __future__ import annotations

import fcntl
import os
import time

from ramshelf.core.errors import RefusedError
from ramshelf.system.filesystem import RUN_DIR, have_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    Path = str | os.PathLike[str]

_STORE = f"{RUN_DIR}/lock"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class store_lock:  # noqa: N801 - used as a function is: `with store_lock():`
    """The one lock under which space on the store is counted and taken; a context manager.

    The hook holds it for milliseconds, ``store clean`` while it removes. Raises RefusedError
    ``store.locked`` after ``timeout`` seconds (None: waits for ever). With another ``path`` it is
    another lock.
    """

    def __init__(self, path: Path = _STORE, *, timeout: float | None = None) -> None:
        self._path = path
        self._timeout = timeout

    def __enter__(self) -> None:
        try:
            self._descriptor = open_locked(self._path, self._timeout)
        except BlockingIOError:
            raise RefusedError(
                "store.locked",
                f"The store was locked by another ramshelf for {self._timeout:g} s.",
                hint="'fuser -v /run/ramshelf/*lock' shows who holds it.",
            ) from None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)


def open_locked(path: Path, timeout: float | None = None) -> int:
    """Lock the file at this path and return its descriptor.

    It and its directory are made where there is none. Raises BlockingIOError after ``timeout``
    seconds (None: waits for ever).
    """
    while True:
        have_directory(os.path.dirname(path), 0o755)
        try:
            descriptor = os.open(path, _FLAGS, 0o600)
        except FileNotFoundError:
            continue  # The directory was removed meanwhile.
        try:
            # Whoever can read a file can lock it, and keep everybody else out.
            os.fchmod(descriptor, 0o600)
            _lock(descriptor, timeout)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
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
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
