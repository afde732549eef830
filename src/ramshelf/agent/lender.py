"""Has another process serve the metrics: it gets the listening socket, and asks for the texts.

Strangers reach that process and not the agent, so it is not trusted: it can have a text made a few
times a second, and nothing else.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ramshelf.agent.loan import READY, lend, reply
from ramshelf.agent.scrapes import FORMATS
from ramshelf.core.errors import ServiceError

_CONNECT_SECONDS = 5.0
_READY_SECONDS = 60.0
"""The seconds after which it is told that nobody serves; a slow machine that boots needs some."""

_REPLY_SECONDS = 10.0
REST = 0.1
"""The seconds between two texts, at least; the listener keeps each for a second."""

REST_SHARE = 9
"""The rest in CPU seconds of the text before, at least: of 1000 guests one takes 0.1 s."""

_PAUSE = 1.0
"""The seconds until it is told that a loan has ended: one that ends at once costs little, too."""

_CONTENT_TYPES = tuple(FORMATS)


class Lender:
    """A loan of ``listener`` to who listens at ``door``, a Unix socket, until ``close``.

    ``text`` makes the text of one of ``FORMATS``. ``told`` is called, in a thread of the lender's,
    when ``alive`` or ``trouble`` may have changed. Raises ServiceError ``metrics.no-listener``.
    """

    def __init__(
        self,
        listener: socket.socket,
        door: str,
        text: Callable[[str], bytes],
        told: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._door = door
        self._text = text
        self._told = told
        self._complaint = ""
        self._ending = threading.Event()
        self.alive = True
        self.trouble: ServiceError | None = None
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connection.settimeout(_CONNECT_SECONDS)
            self._connection.connect(door)
            lend(self._connection, listener)
        except OSError as error:
            self._connection.close()
            raise self._no_listener(error.strerror or str(error)) from error
        self._thread = threading.Thread(target=self._run, name="lender", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the loan, and listen no more, whatever the other side does."""
        self._ending.set()
        # So nobody listens there any longer, although another process has the socket, too.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()
        self._listener.close()

    def _run(self) -> None:
        try:
            self._wait_ready()
            while not self._ending.is_set():
                self._connection.settimeout(None)
                asked = self._connection.recv(1)
                if not asked:
                    break
                begun = time.thread_time()
                text = self._made(_CONTENT_TYPES[asked[0]])
                self._connection.settimeout(_REPLY_SECONDS)
                reply(self._connection, text)
                self._ending.wait(max(REST, REST_SHARE * (time.thread_time() - begun)))
        except (OSError, IndexError):  # it is gone, or says what no listener of ours does
            pass
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        if not self._ending.wait(_PAUSE):
            self.alive = False
            self._told()

    def _wait_ready(self) -> None:
        self._connection.settimeout(_READY_SECONDS)
        try:
            said = self._connection.recv(1)
        except TimeoutError:
            self.trouble = self._no_listener("nobody answers")
            self._told()
            self._connection.settimeout(None)
            said = self._connection.recv(1)
        if said != READY:
            self.trouble = self._no_listener("it ended at once")
            raise ConnectionError
        if self.trouble is not None:
            self.trouble = None
            self._told()

    def _made(self, content_type: str) -> bytes:
        try:
            return self._text(content_type)
        except Exception as error:  # noqa: BLE001 - it must not end the loan
            if repr(error) != self._complaint:  # whoever asks again does not fill the log
                self._complaint = repr(error)
                logging.getLogger(__name__).warning(
                    "A scrape could not be answered: %s", self._complaint
                )
            return b""

    def _no_listener(self, reason: str) -> ServiceError:
        return ServiceError(
            "metrics.no-listener",
            f"The metrics are not served, since nobody takes scrapes at {self._door}: {reason}.",
            hint="See 'systemctl status ramshelf-metrics.socket ramshelf-metrics.service'.",
            facts={"path": self._door},
        )
