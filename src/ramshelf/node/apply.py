"""Carry out a plan, step by step; every step may be cut off and done again."""

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from ramshelf.core.errors import RamshelfError, ToolError
from ramshelf.core.plan import (
    Action,
    Allocate,
    MakeDirectory,
    RemoveDirectory,
    RemoveFile,
    Run,
    SetValue,
    WriteFile,
)
from ramshelf.core.units import GIB
from ramshelf.system.filesystem import write_atomically
from ramshelf.system.run import Runner, run

Tell = Callable[[int, Action, float], None]
"""Is told the step's number from 0, the step, and the fraction of it that is done."""

_PAUSE = 0.2
"""Seconds between two tries of a command that may fail for a moment."""

_GOES_ON = "The same command goes on from there; 'ramshelf store remove' takes all back."


def apply(
    actions: tuple[Action, ...],
    *,
    tell: Tell = lambda _number, _action, _fraction: None,
    after_step: Callable[[int], None] = lambda _number: None,
    runner: Runner = run,
) -> None:
    """Carry out all ``actions`` in order.

    Raises the error of the step that failed, or RamshelfError ``store.interrupted``; both say that the same
    command goes on from there.
    """
    for number, action in enumerate(actions):
        where = f"step {number + 1} of {len(actions)}"
        try:
            tell(number, action, 0.0)
            _do(action, runner, partial(tell, number, action))
            after_step(number)
        except KeyboardInterrupt as interrupt:
            raise RamshelfError(
                "store.interrupted", f"Interrupted in {where} ({action.why}).", hint=_GOES_ON
            ) from interrupt
        except RamshelfError as error:
            error.hint = error.hint or f"It was {where}. {_GOES_ON}"
            raise


def _do(action: Action, runner: Runner, tell: Callable[[float], None]) -> None:
    match action:
        case Run():
            _run(action, runner)
        case WriteFile():
            os.makedirs(os.path.dirname(action.path), mode=0o755, exist_ok=True)
            write_atomically(action.path, action.text)
        case SetValue():
            with open(action.path, "w", encoding="ascii") as file:
                file.write(f"{action.value}\n")
        case RemoveFile():
            with suppress(FileNotFoundError):
                os.unlink(action.path)
        case MakeDirectory():
            with suppress(FileExistsError):
                os.mkdir(action.path, 0o700)
            os.chown(action.path, action.uid, action.gid)
            os.chmod(action.path, action.mode)
        case RemoveDirectory():
            with suppress(OSError):  # it is gone, or somebody has put something into it
                os.rmdir(action.path)
        case Allocate():
            _allocate(action, runner, tell)


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


def _allocate(action: Allocate, runner: Runner, tell: Callable[[float], None]) -> None:
    """GiB by GiB, so that it can be followed and interrupted."""
    descriptor = os.open(action.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        if action.no_copy_on_write:
            runner(["chattr", "+C", action.path])
        for offset in range(0, action.size, GIB):
            length = min(GIB, action.size - offset)
            runner(["fallocate", "--offset", str(offset), "--length", str(length), action.path], timeout=600)
            tell((offset + length) / action.size)
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
