"""Calls into C that may block for long, made so that Ctrl-C ends the wait for them."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar, cast

T = TypeVar("T")


class Worker:
    """Makes calls one after the other in a thread of its own; the process may end while one blocks.

    Python handles a signal only between two of its own instructions: a call that blocks in the main thread
    could not be interrupted.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[tuple[Any, BaseException | None]]]]
        self._calls = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def call(self, function: Callable[[], T]) -> T:
        """What ``function`` returns or raises, once those before it have been called."""
        answer: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._calls.put((function, answer))
        result, error = answer.get()
        if error is not None:
            raise error
        return cast("T", result)

    def _work(self) -> None:
        while True:
            function, answer = self._calls.get()
            try:
                answer.put((function(), None))
            except BaseException as error:  # noqa: BLE001 - it is raised where the call was asked for
                answer.put((None, error))
