"""system/ptrace: a process of one's own is held still, and goes on with the end of who holds it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ramshelf.core.errors import RamshelfError
from ramshelf.system.ptrace import stopped

TRACEE = """
import os, signal, sys, threading, time

def signalled(number, frame):
    os.write(1, b"signal\\n")

def work():
    while True:
        sum(range(100))

def begin():  # threads begin and end all the time
    while True:
        thread = threading.Thread(target=sum, args=(range(100),))
        thread.start()
        thread.join()

signal.signal(signal.SIGUSR1, signalled)
threading.Thread(target=work, daemon=True).start()
threading.Thread(target=begin, daemon=True).start()
os.write(1, b"up\\n")
parent = os.getppid()
while os.getppid() == parent:  # whatever becomes of the tests
    time.sleep(0.01)
"""
HOLDER = """
import sys
from ramshelf.system.ptrace import stopped
with stopped(int(sys.argv[1]), timeout=30):
    print(flush=True)
    sys.stdin.read()
"""
Tracee = subprocess.Popen[bytes]


@pytest.fixture
def tracee() -> Iterator[Tracee]:
    """A process with threads, that says when it gets a signal."""
    with subprocess.Popen([sys.executable, "-c", TRACEE], stdout=subprocess.PIPE) as process:
        assert said(process) == b"up\n"
        try:
            with stopped(process.pid, timeout=30):
                pass
        except RamshelfError as error:
            process.kill()
            pytest.skip(error.sentence)  # a sandbox, or Yama
        yield process
        process.kill()


def said(process: Tracee) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def states(pid: int) -> set[str]:
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    found = set()
    for stat in stats:
        with suppress(ProcessLookupError, FileNotFoundError):  # a thread that has ended meanwhile
            found.add(stat.read_text().rpartition(")")[2].split()[0])
    return found


def is_held(process: Tracee) -> bool:
    """Whether no thread runs; one that has just ended is there as long as it is traced."""
    found = states(process.pid)
    return "t" in found and found <= {"t", "Z", "X"}


def has_ended(process: Tracee) -> bool:
    """Whether it has ended, asked without poll().

    Its parent, which traces it, would be told of its stop instead.
    """
    return states(process.pid) <= {"Z", "X"}


def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_thread_runs_while_it_is_held_and_all_do_after_it(tracee: Tracee) -> None:
    for _ in range(50):
        with stopped(tracee.pid, timeout=30):
            assert is_held(tracee)
        assert "t" not in states(tracee.pid)


def test_it_goes_on_when_who_holds_it_is_killed(tracee: Tracee) -> None:
    argv = [sys.executable, "-c", HOLDER, str(tracee.pid)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert said(holder) == b"\n"
        assert is_held(tracee)
        os.kill(tracee.pid, signal.SIGUSR1)
        holder.kill()
    assert "t" not in states(tracee.pid)
    assert said(tracee) == b"signal\n"


def test_a_signal_that_comes_meanwhile_is_taken_after_it(tracee: Tracee) -> None:
    for _ in range(20):
        with stopped(tracee.pid, timeout=30):
            os.kill(tracee.pid, signal.SIGUSR1)
        assert said(tracee) == b"signal\n"


def test_a_signal_that_comes_as_it_is_seized_is_taken_after_it(tracee: Tracee) -> None:
    for _ in range(100):
        os.kill(tracee.pid, signal.SIGUSR1)
        with stopped(tracee.pid, timeout=30):
            pass
        assert said(tracee) == b"signal\n"


def test_others_can_stop_it_meanwhile_but_not_let_it_go_on(tracee: Tracee) -> None:
    with stopped(tracee.pid, timeout=30):
        os.kill(tracee.pid, signal.SIGCONT)
        assert is_held(tracee)
        os.kill(tracee.pid, signal.SIGSTOP)
    until(lambda: states(tracee.pid) == {"T"})
    with stopped(tracee.pid, timeout=30):
        pass
    until(lambda: states(tracee.pid) == {"T"})
    os.kill(tracee.pid, signal.SIGCONT)
    until(lambda: "T" not in states(tracee.pid))
    os.kill(tracee.pid, signal.SIGUSR1)
    assert said(tracee) == b"signal\n"


def test_what_is_asked_or_made_to_end_ends_while_it_is_held(tracee: Tracee) -> None:
    with stopped(tracee.pid, timeout=30):
        os.kill(tracee.pid, signal.SIGTERM)
        until(lambda: has_ended(tracee))
    assert tracee.wait(timeout=60) == -signal.SIGTERM


def test_what_is_asked_to_end_does_not_while_it_is_kept(tracee: Tracee) -> None:
    with stopped(tracee.pid, timeout=30) as holder:
        with holder.kept() as kept:
            assert kept
            os.kill(tracee.pid, signal.SIGTERM)
            time.sleep(0.1)  # it would end at once
            assert is_held(tracee)
        until(lambda: has_ended(tracee))
        with holder.kept() as kept:
            assert not kept


def test_what_is_killed_while_it_is_held_is_gone_for_all(tracee: Tracee) -> None:
    with stopped(tracee.pid, timeout=30):
        os.kill(tracee.pid, signal.SIGKILL)
        until(lambda: has_ended(tracee))
    assert tracee.wait(timeout=60) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError), stopped(tracee.pid, timeout=30):
        pass


def test_only_one_can_hold_it(tracee: Tracee) -> None:
    with stopped(tracee.pid, timeout=30):
        with pytest.raises(RamshelfError) as caught, stopped(tracee.pid, timeout=30):
            pass
        assert caught.value.code == "guest.traced"
        assert is_held(tracee)
