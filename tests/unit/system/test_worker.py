"""Calls in a thread or a process of their own, waited for with patience."""

import os
import threading
import time
from pathlib import Path

import pytest

from ramshelf.system.worker import Patience, Worker, answer_of, comes_back
from support.process import wait_until


def test_calls_are_made_in_order_and_answered() -> None:
    worker = Worker()
    assert worker.call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: 1 // 0)
    worker.end()


def test_the_thread_ends_with_the_worker() -> None:
    worker = Worker()
    thread = worker.call(threading.current_thread)
    worker.end()
    wait_until(lambda: not thread.is_alive(), "the thread has ended")


def test_patience_ends_the_wait_and_not_the_call() -> None:
    worker, go_on, done = Worker(), threading.Event(), threading.Event()

    def wait_then_tell() -> None:
        go_on.wait()
        done.set()

    with pytest.raises(TimeoutError):
        worker.call(wait_then_tell, patience=0.01)
    go_on.set()
    assert done.wait(timeout=30)
    worker.end()


def test_after_its_end_nothing_is_waited_for() -> None:
    worker = Worker()
    worker.end()
    with pytest.raises(TimeoutError):
        worker.call(lambda: None)


def test_patience_is_for_each_answer_and_for_all_that_do_not_come() -> None:
    patience = Patience(each=5, together=6)
    for _ in range(2):  # what answers takes nothing from the others
        with patience.waiting() as seconds:
            assert seconds == 5
    patience = Patience(each=1, together=1.5)
    for _ in range(2):  # a second is for each
        with patience.waiting() as seconds:
            assert seconds == 1
            time.sleep(1)


def test_a_call_that_does_not_come_back_is_left_behind() -> None:
    assert comes_back(lambda: None, 60)
    assert comes_back(lambda: os.stat("/no/such/file"), 60)
    assert not comes_back(lambda: os.read(os.pipe()[0], 1), 0.1)


def test_what_comes_back_is_the_answer() -> None:
    long = b"x" * (1 << 20)
    assert answer_of(lambda: long, 60) == long
    assert answer_of(lambda: b"%d" % (1 // 0), 60) == b""
    assert answer_of(lambda: os.read(os.pipe()[0], 1), 0.1) is None


def test_a_child_has_none_of_this_one_s_files(tmp_path: Path) -> None:
    """What hangs in the kernel for ever keeps nobody waiting who reads what this one writes."""
    listed = tmp_path / "listed"

    def list_files() -> None:
        found = [os.readlink(f"/proc/self/fd/{each}") for each in (0, 1, 2)]
        others = (
            len(os.listdir("/proc/self/fd")) - len(found) - 2
        )  # the listing's own, and the pipe
        listed.write_text(f"{set(found)} {others}")

    assert comes_back(list_files, 60)
    assert listed.read_text() == "{'/dev/null'} 0"
