"""Calls in a thread of their own, waited for with patience."""

import threading

import pytest

from ramshelf.system.worker import Worker
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
