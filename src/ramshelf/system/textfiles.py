"""Text files that others edit too.

They are written whole, and changed in the text that they have at that moment.
"""

from __future__ import annotations

import fcntl
import os
import stat

from ramshelf.core.errors import RefusedError
from ramshelf.system.filesystem import RUN_DIR, read_text
from ramshelf.system.locks import store_lock
from ramshelf.system.steps import log_step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Path = str | os.PathLike[str]

LOCK = f"{RUN_DIR}/files.lock"
"""The lock that ``change_text`` holds for milliseconds, whichever file it changes."""

_TRIES = 20


def change_text(
    path: Path,
    change: Callable[[str | None], str | None],
    *,
    mode: int | None = None,
    beside: Path | None = None,
) -> None:
    """Change a file's text as it is now; None stands for no file, before and after.

    ``change`` is asked again where somebody else was quicker. ``mode`` and ``beside`` are as for
    ``write_atomically``. Raises what ``change`` raises, and RefusedError ``file.changed`` where
    others change the file again and again.
    """
    with store_lock(LOCK):
        for _ in range(_TRIES):
            found, text = _stamp(path), _text(path)
            changed = change(text)
            if changed == text:
                return

            def unchanged(found: object = found, text: str | None = text) -> bool:
                return _text(path) == text and _stamp(path) == found

            if changed is not None:
                if write_atomically(path, changed, mode=mode, beside=beside, only_if=unchanged):
                    return
            elif unchanged():
                log_step(f"rm {os.fspath(path)}")
                os.unlink(path)
                return
    raise RefusedError(
        "file.changed",
        f"Others change {os.fspath(path)} all the time.",
        hint="Find out who does; then run the same command again.",
        facts={"path": os.fspath(path)},
    )


def write_atomically(
    path: Path,
    text: str,
    *,
    mode: int | None = None,
    beside: Path | None = None,
    only_if: Callable[[], bool] = lambda: True,
) -> bool:
    """Write a file so that the old or the new one is there, never half of one.

    The text goes to a temporary file; fsync, a rename and an fsync of the directory follow. A file
    that is there keeps its owner, its SELinux label and, unless ``mode`` is given, its mode; a new
    one gets 0644. A symbolic link stays one. The temporary file lies next to the file, or in the
    directory ``beside`` on the same file system. It is always the same one, so that the next to
    come takes up what a crash has left, and it is locked, so that two at once do not mix.
    ``only_if`` is asked right before the rename; return its answer.
    """
    target = os.path.realpath(path)
    parent, name = os.path.split(target)
    temporary = f"{os.fspath(beside) if beside is not None else parent}/.{name}.ramshelf"
    descriptor = _locked(temporary)
    try:
        _take_after(descriptor, target, mode)
        with open(
            descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="", closefd=False
        ) as file:
            file.write(text)
        os.fsync(descriptor)
        if not only_if():
            os.unlink(temporary)
            return False
        log_step(f"mv {temporary} {target}")
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(descriptor)
    directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return True


def _locked(temporary: str) -> int:
    """Open the temporary file, empty and ours alone for as long as it is open."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _number(os.fstat(descriptor)) == _number(_status(temporary)):
                os.ftruncate(descriptor, 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # who held it has made it the file itself, or removed it


def _take_after(descriptor: int, target: str, mode: int | None) -> None:
    """Give a new file the owner, label and mode of the one that it replaces."""
    status = _status(target)
    if status is None:
        os.fchmod(descriptor, 0o644 if mode is None else mode)
        return
    os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode) if mode is None else mode)
    try:
        os.setxattr(descriptor, "security.selinux", os.getxattr(target, "security.selinux"))
    except OSError:
        pass  # no SELinux, no label


def _text(path: Path) -> str | None:
    try:
        return read_text(path)
    except FileNotFoundError:
        return None


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _number(status: os.stat_result | None) -> tuple[int, int] | None:
    return (status.st_dev, status.st_ino) if status is not None else None


def _stamp(path: Path) -> object:
    """Return what differs once somebody has written the file, or put another one in its place."""
    status = _status(path)
    if status is None:
        return None
    return _number(status), status.st_size, status.st_mtime_ns, status.st_ctime_ns
