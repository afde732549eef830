"""``python -m ramshelf.agent.listener``: takes scrapes from the network in the agent's place.

The agent connects to the Unix socket that the service manager hands over (sd_listen_fds(3)), lends
the socket that listens for scrapes, and is asked for the texts. This program needs no privilege, no
file and no socket of its own. It serves one loan after another until it is killed.
"""

import os
import select
import socket
import sys
from contextlib import suppress
from http import HTTPStatus

from ramshelf.agent.loan import accept, ask, borrow
from ramshelf.agent.scrapes import FORMATS, Scrapes
from ramshelf.system.httpserver import HttpServer, Request, Response, refusal

_BORROW_SECONDS = 5.0
"""The seconds that whoever connects has to lend a socket."""

_ASK_SECONDS = 20.0
"""The seconds after which an agent that does not answer has lent its socket no longer."""

_FIRST_DESCRIPTOR = 3
_NUMBERS = {content_type: number for number, content_type in enumerate(FORMATS)}


def main() -> None:
    """Serve each agent that connects, for as long as it stays connected."""
    if (os.environ.get("LISTEN_PID"), os.environ.get("LISTEN_FDS")) != (str(os.getpid()), "1"):
        sys.exit("This is run by ramshelf-metrics.service, which 'ramshelf agent install' makes.")
    with socket.socket(fileno=_FIRST_DESCRIPTOR) as door:
        while True:
            connection, _ = door.accept()
            with connection:
                try:
                    _serve(connection)
                except OSError as error:
                    sys.stderr.write(f"Whoever connected lends no socket: {error}.\n")


def _serve(connection: socket.socket) -> None:
    """Serve a loan until it ends."""
    connection.settimeout(_BORROW_SECONDS)
    listener = borrow(connection)
    connection.settimeout(_ASK_SECONDS)
    accept(connection)  # before the server's thread can ask

    def text(content_type: str) -> bytes:
        made = ask(connection, _NUMBERS[content_type])
        if not made:
            raise RuntimeError("the agent could not make the text, as its log says")
        return made

    scrapes = Scrapes(text)

    def answer(request: Request) -> Response:
        try:
            return scrapes.answer(request)
        except OSError:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, "The agent does not answer.")

    server = HttpServer(listener, answer)
    try:
        _wait_hung_up(connection)
    finally:
        server.close()


def _wait_hung_up(connection: socket.socket) -> None:
    """Wait until the other side, or this one, has ended the connection."""
    ended = select.poll()
    ended.register(connection, select.POLLRDHUP)
    ended.poll()


if __name__ == "__main__":
    main()
