"""Carrying out a plan step by step; every step may be interrupted and done again."""

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from ramshelf.core.errors import InterruptedByUserError, RamshelfError, RefusedError, ToolError
from ramshelf.core.plan import (
    Action,
    AllocateFile,
    CopyFiles,
    EditFile,
    HangUp,
    MakeDirectory,
    RemoveDirectory,
    RemoveFile,
    RemoveTree,
    Run,
    SetValue,
    WriteFile,
)
from ramshelf.core.units import GIB
from ramshelf.system.filesystem import make_directory, read_text
from ramshelf.system.processes import hang_up
from ramshelf.system.run import Runner, run
from ramshelf.system.steps import log_step
from ramshelf.system.textfiles import change_text

Tell = Callable[[int, Action, float], None]
"""Called with the step's number (from 0), the step, and the fraction of it that is done."""

_INTERRUPTED = {
    "store": "store.interrupted",
    "hook": "hook.interrupted",
    "agent": "agent.interrupted",
}

_UNTOLD = (HangUp, SetValue, RemoveTree, MakeDirectory, RemoveDirectory)
"""The actions that run no program and change no text, so that nobody else logs them."""

_PAUSE = 0.2
"""The seconds between two tries of a command that may fail for a moment."""


def apply(
    actions: tuple[Action, ...],
    *,
    noun: str,
    tell: Tell = lambda _number, _action, _fraction: None,
    after_step: Callable[[int], None] = lambda _number: None,
    runner: Runner = run,
    reversible: bool = True,
) -> None:
    """Carry out all ``actions`` of ``ramshelf NOUN ...`` in order.

    Raises the error of the step that failed, or RamshelfError ``NOUN.interrupted``. Both say that
    the same command goes on from there, unless the error has a hint of its own, and, where the plan
    is ``reversible``, that ``ramshelf NOUN remove`` takes all of it back. RefusedError
    ``file.changed`` means that somebody else has changed a file of the plan.
    """
    goes_on = "The same command goes on from there."
    if reversible:
        goes_on = f"The same command goes on from there; 'ramshelf {noun} remove' takes all back."
    for number, action in enumerate(actions):
        where = f"step {number + 1} of {len(actions)}"
        try:
            tell(number, action, 0.0)
            if isinstance(action, _UNTOLD):
                log_step(action.lines()[0])
            _do(action, runner, partial(tell, number, action))
            after_step(number)
        except KeyboardInterrupt as interrupt:
            raise InterruptedByUserError(
                f"Interrupted in {where} ({action.why}).", code=_INTERRUPTED[noun], hint=goes_on
            ) from interrupt
        except RamshelfError as error:
            error.hint = error.hint or f"It was {where}. {goes_on}"
            raise


def _do(action: Action, runner: Runner, tell: Callable[[float], None]) -> None:
    match action:
        case Run():
            _run(action, runner)
        case HangUp():
            hang_up(action.pid, action.started)
        case WriteFile():
            _make_parents(action.path)
            change_text(
                action.path, partial(_whole, action), mode=action.mode, beside=action.beside or None
            )
        case EditFile():
            _make_parents(action.path)
            change_text(action.path, action.changed)
        case CopyFiles():
            _copy(action)
        case SetValue():
            _set(action)
        case RemoveFile():
            _remove(action)
        case RemoveTree():
            with suppress(FileNotFoundError):
                import shutil  # noqa: PLC0415 - not for those who only look

                shutil.rmtree(action.path)
        case MakeDirectory():
            make_directory(action.path, uid=action.uid, gid=action.gid, mode=action.mode)
        case RemoveDirectory():
            with suppress(OSError):  # it is gone, or somebody has put something into it
                os.rmdir(action.path)
        case AllocateFile():
            _allocate(action, runner, tell)


def _make_parents(path: str) -> None:
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)


def _whole(action: WriteFile, found: str | None) -> str:
    if found not in {action.text, action.before}:
        raise _changed(action.path)
    return action.text


def _remove(action: RemoveFile) -> None:
    if action.before is not None:
        change_text(action.path, partial(_none, action))
        return
    log_step(action.lines()[0])
    with suppress(FileNotFoundError):
        os.unlink(action.path)


def _none(action: RemoveFile, found: str | None) -> str | None:
    if found not in {None, action.before}:
        raise _changed(action.path)
    if (
        found
        and action.copy_of
        and read_text(action.copy_of, "").rstrip("\n") != found.rstrip("\n")
    ):
        return found
    return None


def _set(action: SetValue) -> None:
    if read_text(action.path).strip() not in {action.value, action.before}:
        raise _changed(action.path)
    with open(action.path, "w", encoding="ascii") as file:
        file.write(f"{action.value}\n")


def _changed(path: str) -> RefusedError:
    return RefusedError(
        "file.changed",
        f"Somebody else has changed {path} meanwhile.",
        hint=(
            "It is as they left it. Look at it, and run the same command again: it goes on from "
            "there."
        ),
        facts={"path": path},
    )


def _copy(action: CopyFiles) -> None:
    """Copy the files one by one, so that each is either old or new.

    Whoever uses the directory names it only when all files are there. Everybody may read it,
    whatever root's umask is, because a user's own libvirt calls the same hook.
    """
    for parent, _, names in os.walk(action.path):
        for name in names:
            path = os.path.join(parent, name)
            if os.path.relpath(path, action.path) not in action.files or not _proper(path):
                os.unlink(path)
    for name, text in action.files.items():
        path = f"{action.path}/{name}"
        _make_parents(path)
        change_text(path, partial(_always, text), mode=0o644)
    for parent, _, _ in os.walk(action.path):
        os.chmod(parent, 0o755)  # noqa: S103 - modules, for everybody to read


def _proper(path: str) -> bool:
    status = os.lstat(path)
    return (status.st_uid, status.st_mode) == (os.geteuid(), stat.S_IFREG | 0o644)


def _always(text: str, _found: str | None) -> str:
    return text


def _run(action: Run, runner: Runner) -> None:
    deadline = time.monotonic() + action.patience
    while True:
        try:
            runner(action.argv, timeout=action.timeout)
        except ToolError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _allocate(action: AllocateFile, runner: Runner, tell: Callable[[float], None]) -> None:
    """Allocate the file GiB by GiB, so that it can be followed and interrupted.

    Where there is no room it has its former size again, and has not filled others' file system.
    """
    descriptor = os.open(action.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        if action.no_copy_on_write:
            runner(["chattr", "+C", action.path])
        before = os.fstat(descriptor).st_size
        try:
            for offset in range(0, action.size, GIB):
                length = min(GIB, action.size - offset)
                runner(
                    ["fallocate", "--offset", str(offset), "--length", str(length), action.path],
                    timeout=600,
                )
                tell((offset + length) / action.size)
        except ToolError:
            os.ftruncate(descriptor, before)
            raise
        os.fsync(descriptor)
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_blocks * 512 < action.size:
        raise RamshelfError(
            "store.not-allocated",
            f"The file system of {action.path} did not allocate all of the file.",
            hint="Use a file on ext4 or xfs, or a device.",
            facts={"allocated": status.st_blocks * 512, "size": action.size},
        )
