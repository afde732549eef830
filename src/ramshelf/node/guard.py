"""A guard process, which finishes what another process may not live to finish.

It is told through a pipe how things stand. When the pipe ends, it acts upon the last word.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from ramshelf.core.errors import ServiceError

IDLE = ""
"""The word for "nothing to do"; it applies until the guard is told another one."""


class Guard:
    """The guard ``python -m MODULE ARGUMENT...``, which is listening already; a context manager.

    It has a session of its own, so that Ctrl-C does not reach it. Raises ServiceError
    ``guest.no-guard`` where it does not start.
    """

    def __init__(self, module: str, *arguments: str, pass_fds: Sequence[int] = ()) -> None:
        self._word = IDLE
        self._process = subprocess.Popen(  # noqa: S603 - this very program
            (sys.executable, "-I", "-m", module, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        with self._process.stdout as ready:
            if not ready.readline():
                raise ServiceError(
                    "guest.no-guard", "The process that is to guard the guest does not start."
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.close()
        if self._word == IDLE:
            self._process.wait()  # otherwise it has something to do first

    def tell(self, word: str) -> None:
        """Tell the guard how things stand.

        Raises ServiceError ``guest.no-guard`` if the guard has died and is needed.
        """
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        try:
            os.write(self._process.stdin.fileno(), f"{word}\n".encode())
        except BrokenPipeError as error:
            if word != IDLE:
                raise ServiceError(
                    "guest.no-guard", "The process that guards the guest has died."
                ) from error
        self._word = word


def listen() -> str:
    """Return the last word that the guard was told, once the pipe has ended.

    This runs in the guard. The pipe ends when the process that it guards for has ended, or has
    nothing more to tell.
    """
    print(flush=True)  # noqa: T201 - the other end waits for it
    word = IDLE
    for line in sys.stdin:
        word = line.strip()
    return word
