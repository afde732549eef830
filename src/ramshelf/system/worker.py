"""Calls into C that may block for long, made so that Ctrl-C ends the wait for them."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

T = TypeVar("T")

Answer = SimpleQueue[tuple[Any, BaseException | None]]
"""A queue that gets what a call returns and raises."""

_Call = tuple[Callable[[], Any], Answer]


class Worker:
    """A thread that makes calls one after the other; the process may end while one blocks.

    Python handles a signal only between two of its own instructions: a call that blocks in the main
    thread could not be interrupted.
    """

    def __init__(self) -> None:
        self._ended = False
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def call(self, function: Callable[[], T], patience: float | None = None) -> T:
        """Return or raise what ``function`` does, once those before it have been called.

        Raises TimeoutError after ``patience`` seconds (None waits for ever), while the call goes
        on. It raises TimeoutError after ``end``, too.
        """
        try:
            result, error = self.post(function).get(timeout=patience)
        except Empty:
            raise TimeoutError from None
        if error is not None:
            raise error
        return cast("T", result)

    def post(self, function: Callable[[], Any]) -> Answer:
        """Have the function called without waiting; the queue gets what it returns and raises."""
        answer: Answer = SimpleQueue()
        if self._ended:
            answer.put((None, TimeoutError()))
        else:
            self._calls.put((function, answer))
        return answer

    def end(self) -> None:
        """Let the thread end once all calls are made; further ones are not made."""
        self._ended = True
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            function, answer = call
            try:
                answer.put((function(), None))
            except BaseException as error:  # noqa: BLE001 - it is raised in ``call``
                answer.put((None, error))
            del call, function, answer
