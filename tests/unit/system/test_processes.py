"""To which process a SIGHUP goes: to one that catches it, and is still the same."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ramshelf.system.filesystem import read_text
from ramshelf.system.processes import hang_up, parse_stat

CATCHES = "signal.signal(signal.SIGHUP, lambda *_: print('caught', flush=True))"
PROGRAMS = {
    "catches": CATCHES,
    "ignores": "signal.signal(signal.SIGHUP, signal.SIG_IGN)",
    "would end": "pass",
    "catches another": CATCHES.replace("SIGHUP", "SIGUSR1"),
}


@contextmanager
def program(line: str) -> Iterator[subprocess.Popen[str]]:
    text = f"import signal\n{line}\nprint('ready', flush=True)\nwhile True: signal.pause()\n"
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as found:
        try:
            assert found.stdout
            assert found.stdout.readline() == "ready\n"
            yield found
            assert found.poll() is None
        finally:
            found.kill()


def started(pid: int) -> int:
    return parse_stat(read_text(f"/proc/{pid}/stat")).started


@pytest.mark.parametrize("name", PROGRAMS)
def test_only_who_catches_it_gets_it(name: str) -> None:
    with program(PROGRAMS[name]) as found:
        assert hang_up(found.pid, started(found.pid)) == (name == "catches")
        if name == "catches":
            assert found.stdout
            assert found.stdout.readline() == "caught\n"


def test_another_process_of_that_number_does_not() -> None:
    with program(CATCHES) as found:
        assert not hang_up(found.pid, started(found.pid) - 1)


def test_who_has_ended_does_not() -> None:
    ended = subprocess.Popen(["true"])
    at = started(ended.pid)
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert not hang_up(ended.pid, at)
    ended.wait()
    assert not hang_up(ended.pid, at)
