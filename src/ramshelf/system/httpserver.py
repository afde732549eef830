"""A small HTTP server in one thread, which clients that mean harm cannot make large or slow.

It answers GET requests and closes each connection after its answer. Any local user may connect to a
port of the loopback interface, so everything is bounded: the number of connections, the size of a
request, the time for a request and for its answer, and how many connections are taken in a second.
Where all connections are in use, one makes room for the next: the oldest that has its answer, else
the oldest that has not sent its request. Whoever sends a request at once gets an answer, however
many others hold connections open.
"""

import http.client
import io
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

CONNECTIONS = 32
"""The most connections at one time; the kernel keeps some more in its queue (``_BACKLOG``)."""

REQUEST_SECONDS = 5.0
"""Seconds from the beginning of a connection until its request must have come."""

ANSWER_SECONDS = 30.0
"""Seconds that the other side has to take the answer."""

REQUEST_BYTES = 8192
"""The most bytes that a request may have, headers and all."""

_CLOSE_SECONDS = 1.0
"""Seconds that the other side has to close after its answer.

A socket that is closed with something unread sends a reset, which can overtake the answer (RFC
9112, section 9.6).
"""

_BACKLOG = 128
_TURN = 16
"""The most connections that are taken in before others are served again.

Each is read at once, so that one which has sent its request is served before it could have to make
room.
"""

_PAUSE = 0.01
"""Seconds that the server rests after a whole ``_TURN``.

A flood of connections must not take the processor from the rest of the process, with which the
server shares Python's lock.
"""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A GET request: the path without its query, and the headers by their names in lower case."""

    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Response:
    """What is sent back; ``headers`` come beside those that every answer has."""

    status: HTTPStatus = HTTPStatus.OK
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal(status: HTTPStatus, word: str, **headers: str) -> Response:
    """Make an answer that says in a sentence why there is no other."""
    return Response(
        status=status,
        body=f"{word}\n".encode(),
        headers={"Content-Type": "text/plain; charset=utf-8", **headers},
    )


def parse_request(received: bytes) -> Request | Response | None:
    """Return the request once all of it has come, and None before.

    For what cannot be served, the answer that says so is returned.
    """
    head, end, _ = received.partition(b"\r\n\r\n")
    if not end:
        head, end, _ = received.partition(b"\n\n")
    if len(received) > REQUEST_BYTES:
        return refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request is too long.")
    if not end:
        return None
    line, _, fields = head.partition(b"\n")
    words = line.decode("latin-1").split()
    if len(words) != 3 or words[2] not in {"HTTP/1.0", "HTTP/1.1"}:
        return refusal(HTTPStatus.BAD_REQUEST, "This is no HTTP/1 request.")
    if words[0] != "GET":
        return refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET is served.", Allow="GET")
    try:
        headers = http.client.parse_headers(io.BytesIO(fields + b"\r\n\r\n"))
        path = urlsplit(words[1]).path
    except (http.client.HTTPException, ValueError):
        return refusal(HTTPStatus.BAD_REQUEST, "The request cannot be read.")
    return Request(
        path=path,
        headers={name.lower(): " ".join(value.split()) for name, value in headers.items()},
    )


def _encoded(response: Response) -> bytes:
    headers = {"Content-Length": str(len(response.body)), "Connection": "close", **response.headers}
    lines = [f"HTTP/1.1 {response.status.value} {response.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode("latin-1") + response.body


@dataclass(eq=False, kw_only=True)
class _Connection:
    """A connection and how far it has come; its times are by the monotonic clock.

    ``pending`` is what is still to be sent, None before the request has come. ``since`` is when the
    present part (request, answer, close) began, and ``deadline`` when that must have ended.
    """

    socket: socket.socket
    since: float
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    pending: memoryview | None = None

    @property
    def sends(self) -> bool:
        return bool(self.pending)

    @property
    def answered(self) -> bool:
        return self.pending is not None and not self.pending

    @property
    def worth(self) -> tuple[bool, bool, float]:
        """Those with the least make room for others; one that is answered loses nothing by it."""
        return (self.sends, not self.answered, self.since)

    def begin(self, pending: bytes | memoryview, seconds: float) -> None:
        """Begin the next part, which may take so many seconds."""
        self.since = time.monotonic()
        self.deadline = self.since + seconds
        self.pending = memoryview(pending)


class HttpServer:
    """A server on a socket that listens already (``listen``), which it closes at its ``close``.

    ``answer`` is called for each request, in the server's thread, and must not take long.
    """

    def __init__(self, listener: socket.socket, answer: Callable[[Request], Response]) -> None:
        self._answer = answer
        self._listener = listener
        self._listener.setblocking(False)
        self._waker, wake = socket.socketpair()
        self._wake = wake
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._connections: set[_Connection] = set()
        self._told = ""
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port on which the server listens, also where any port was asked for (0)."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Stop listening, and drop the connections that are open."""
        self._wake.close()
        self._thread.join()
        for connection in tuple(self._connections):
            self._drop(connection)
        self._selector.close()
        self._listener.close()
        self._waker.close()

    def _serve(self) -> None:
        while True:
            for key, events in self._selector.select(self._patience()):
                if key.fileobj is self._waker:
                    return
                if key.fileobj is self._listener:
                    self._take_in()
                elif key.data in self._connections:  # else it has made room for another just now
                    self._move(key.data, writable=bool(events & selectors.EVENT_WRITE))
            now = time.monotonic()
            for connection in [each for each in self._connections if each.deadline <= now]:
                self._drop(connection)

    def _patience(self) -> float | None:
        """Return the seconds until the first deadline; None to wait until something happens."""
        first = min((connection.deadline for connection in self._connections), default=None)
        return None if first is None else max(0.0, first - time.monotonic())

    def _take_in(self) -> None:
        for _ in range(_TURN):
            try:
                taken, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # it is gone already, or the process has no descriptor left
                break
            if len(self._connections) >= CONNECTIONS:
                self._drop(min(self._connections, key=lambda each: each.worth))
            taken.setblocking(False)
            now = time.monotonic()
            connection = _Connection(socket=taken, since=now, deadline=now + REQUEST_SECONDS)
            self._connections.add(connection)
            self._selector.register(taken, selectors.EVENT_READ, connection)
            self._move(connection, writable=False)
        time.sleep(_PAUSE)

    def _move(self, connection: _Connection, *, writable: bool) -> None:
        """Go on with a connection as far as it can go now."""
        try:
            if connection.sends:
                if writable:
                    self._send(connection)
            elif not self._received(connection):
                self._drop(connection)
        except BlockingIOError:
            return
        except OSError:  # the other side is gone
            self._drop(connection)

    def _received(self, connection: _Connection) -> bool:
        """Read once, and tell whether the other side is still there.

        What comes after the answer is thrown away.
        """
        chunk = connection.socket.recv(REQUEST_BYTES)
        if connection.pending is None and chunk:
            connection.received += chunk
            request = parse_request(bytes(connection.received))
            if request is not None:
                response = request if isinstance(request, Response) else self._answered(request)
                connection.received.clear()
                connection.begin(_encoded(response), ANSWER_SECONDS)
                self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)
                self._send(connection)
        return bool(chunk)

    def _answered(self, request: Request) -> Response:
        try:
            return self._answer(request)
        except Exception as error:  # noqa: BLE001 - it must not end the server
            if repr(error) != self._told:  # whoever asks again and again does not fill the log
                self._told = repr(error)
                logging.getLogger(__name__).warning(
                    "A request could not be answered: %s", self._told
                )
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "This is a bug; the log says more.")

    def _send(self, connection: _Connection) -> None:
        assert connection.pending is not None  # noqa: S101 - it has its request
        # The agent's listener may not call what is behind socket.send (agent/loan.py).
        sent = os.write(connection.socket.fileno(), connection.pending)
        connection.pending = connection.pending[sent:]
        if not connection.pending:
            connection.begin(b"", _CLOSE_SECONDS)
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
            connection.socket.shutdown(socket.SHUT_WR)

    def _drop(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection.socket)
        connection.socket.close()


def listen(address: str, port: int) -> socket.socket:
    """Return a socket that listens on ``address``: a name, an IPv4 or an IPv6 address.

    Raises OSError or UnicodeError (what can be no host's name) where that cannot be had.
    """
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, place = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
