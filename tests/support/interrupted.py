"""Plans that are carried out by a process that is killed between two steps."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

Interruptible = Callable[[Callable[[int], None]], object]
"""Carries out a plan, and calls what it is given after each step with the step's number."""


def in_child(do: Interruptible, last: int) -> bool:
    """Do it in a process that is killed after step ``last``; whether it ended before."""
    child = os.fork()
    if child == 0:
        try:
            do(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == last else None)
        except BaseException as error:  # noqa: BLE001 - the parent tells of it
            Path("/run/child-error").write_text(repr(error))
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in {0, signal.SIGKILL}, Path("/run/child-error").read_text()
    return status == 0


def one_step_at_a_time(do: Interruptible) -> None:
    """Run it again, killed after its first step each time, until nothing is left to do."""
    ended = (in_child(do, 0) for _ in range(40))
    assert True in ended, "it never ends"
