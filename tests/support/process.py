"""Helpers that run programs as a user would, and that wait."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ramshelf.system.run import Completed

HANG = 300
"""The seconds after which what is waited for counts as hanging, however busy the machine is."""


def run(
    *argv: str, ok: Sequence[int] = (0,), stdin: str | None = None, timeout: float = HANG
) -> Completed:
    """Run ``argv``; an exit status that is not in ``ok`` fails the test, with all output shown."""
    ended = subprocess.run(
        argv,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    completed = Completed(
        argv=argv, status=ended.returncode, stdout=ended.stdout, stderr=ended.stderr
    )
    assert ended.returncode in ok, (
        f"{completed.argv} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}"
    )
    return completed


def wait_until(ready: Callable[[], bool], what: str, *, timeout: float = HANG) -> None:
    """Poll until ``ready()``; raise TimeoutError, which says ``what`` was waited for, if it is not.

    Whoever waits leaves the guests at least three quarters of a CPU.
    """
    deadline = time.monotonic() + timeout
    while True:
        begin = time.monotonic()
        if ready():
            return
        end = time.monotonic()
        if end > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(min(1, max(0.05, 3 * (end - begin))))


def thread_states(pid: int) -> frozenset[str]:
    """Return the states of a process's threads, as letters of proc_pid_stat(5) such as R, S, T."""
    states = set()
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                stat = Path(f"/proc/{pid}/task/{thread}/stat").read_text(errors="replace")
                states.add(stat.rpartition(")")[2].split()[0])
    return frozenset(states)
