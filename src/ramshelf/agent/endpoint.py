"""Where the agent's metrics are served, and by whom: the agent itself, or its listener."""

import socket
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from ramshelf.agent.lender import Lender
from ramshelf.agent.scrapes import FORMATS, Scrapes
from ramshelf.core.errors import ServiceError
from ramshelf.system.httpserver import HttpServer, listen


class Endpoint:
    """Serves what ``registry`` collects where ``serve`` says.

    With ``door``, the Unix socket at which a listener waits, that one is lent the socket and
    answers. ``told`` is called, in another thread, when ``serve`` should be called again.
    """

    def __init__(
        self, registry: CollectorRegistry, door: str = "", told: Callable[[], None] = lambda: None
    ) -> None:
        self._registry = registry
        self._door, self._told = door, told
        self._scrapes = Scrapes(self._text)
        self._place: tuple[str, int] | None = None
        self._server: HttpServer | Lender | None = None

    def serve(self, address: str, port: int) -> None:
        """Listen on this address and port, and no longer where it was; port 0 is nowhere.

        Raises ServiceError ``metrics.no-address`` and ``metrics.no-listener``, after which it is to
        be tried again.
        """
        lent = self._server if isinstance(self._server, Lender) else None
        same = self._place == (address, port)
        trouble = lent.trouble if lent is not None and same else None
        if not same or (lent is not None and not lent.alive):
            self.close()
            if port:
                self._server = self._serving(_listening(address, port))
            self._place = address, port
        if trouble is not None:
            raise trouble

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
        self._server = self._place = None

    def renew(self) -> None:
        """Have the next scrape get the news."""
        self._scrapes.renew()

    def _serving(self, listener: socket.socket) -> HttpServer | Lender:
        if not self._door:
            return HttpServer(listener, self._scrapes.answer)
        try:
            return Lender(listener, self._door, self._text, self._told)
        except ServiceError:
            listener.close()
            raise

    def _text(self, content_type: str) -> bytes:
        return FORMATS[content_type](self._registry)


def _listening(address: str, port: int) -> socket.socket:
    try:
        return listen(address, port)
    except (OSError, UnicodeError) as error:
        raise ServiceError(
            "metrics.no-address",
            f"The metrics cannot be served on {address} port {port}: "
            f"{getattr(error, 'strerror', None) or error}.",
            hint="Set [ramshelf] metrics_address and metrics_port; port 0 serves none.",
            facts={"address": address, "port": port},
        ) from error
