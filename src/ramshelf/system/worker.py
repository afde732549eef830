"""Calls into C and the kernel that may block for long, or for ever."""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

T = TypeVar("T")

Answer = SimpleQueue[tuple[Any, BaseException | None]]
"""A queue that gets what a call returns and raises."""

_Call = tuple[Callable[[], Any], Answer]


class Patience:
    """The seconds that are waited for what does not answer.

    That is ``each`` for one answer, and ``together`` for all that did not come; but at least a
    second for each. What answers slowly takes nothing from the others.
    """

    def __init__(self, *, each: float, together: float = float("inf")) -> None:
        self._each, self._left = each, together

    @contextmanager
    def waiting(self) -> Iterator[float]:
        """Yield how many seconds the next answer may take, while it is waited for."""
        seconds = max(1.0, min(self._each, self._left))
        begun = time.monotonic()
        try:
            yield seconds
        finally:
            if time.monotonic() - begun >= seconds:
                self._left -= seconds


def comes_back(function: Callable[[], object], patience: float) -> bool:
    """Tell whether a call into the kernel comes back within ``patience`` seconds.

    See ``answer_of``.
    """

    def call() -> bytes:
        function()
        return b""

    return answer_of(call, patience) is not None


def answer_of(function: Callable[[], bytes], patience: float) -> bytes | None:
    """Return what ``function`` returns, None where it does not within ``patience`` seconds.

    It is called in a child process, which is left behind if it does not come back: a process ends
    only when all of its threads do, and one that waits for a dead device does not even for SIGKILL.
    It has none of this one's files but the pipe that it answers by, for whoever reads what this one
    writes waits for the last that could write. An error is an empty answer: the caller gets it
    where it makes the call itself. Only a process without other threads may call this.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            with open(_only(writing), "wb") as file:
                file.write(function())
        except BaseException:  # noqa: BLE001 - see above
            os._exit(1)
        os._exit(0)
    os.close(writing)
    answer, deadline = b"", time.monotonic() + patience
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    try:
        while (left := deadline - time.monotonic()) > 0 and poll.poll(left * 1000):
            piece = os.read(reading, 1 << 16)
            if not piece:
                os.waitpid(child, 0)
                return answer
            answer += piece
        os.kill(child, signal.SIGKILL)
        return None
    finally:
        os.close(reading)


def _only(descriptor: int) -> int:
    """Close all other files, and return this one's new descriptor.

    The standard files are the null device instead.
    """
    kept = os.dup2(descriptor, 3)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    return kept


class Worker:
    """A thread that makes calls one after the other; the process may end while one blocks.

    Python handles a signal only between two of its own instructions: a call that blocks in the main
    thread could not be interrupted.
    """

    def __init__(self) -> None:
        self._ended = False
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it makes calls still, or waits for one that was made before its ``end``."""
        return self._thread.is_alive()

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
