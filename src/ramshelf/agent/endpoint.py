"""Serves the agent's metrics, in the formats that Prometheus asks for."""

import gzip
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

from ramshelf.core.errors import ServiceError
from ramshelf.system.httpserver import HttpServer, Request, Response, refusal

PATH = "/metrics"

_FRESH = 1.0
"""The seconds for which a text is given out again, unless there is news.

So a flood of scrapes costs no more.
"""

_VERSIONS = frozenset({"", "0.0.1", "0.0.4", "1.0.0"})
"""The versions of Prometheus' formats that may be asked for; '' is the usual one.

prometheus_client takes any word for a version: it fails at some, and makes another text for each.
"""


@dataclass(frozen=True)
class _Made:
    text: bytes
    when: float


class Endpoint:
    """Serves what ``registry`` collects as ``/metrics``, and nothing else, where ``serve`` says."""

    def __init__(
        self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._made: dict[tuple[str, bool], _Made] = {}
        self._place: tuple[str, int] | None = None
        self._server: HttpServer | None = None

    def serve(self, address: str, port: int) -> None:
        """Listen on this address and port, and no longer where it was; port 0 is nowhere.

        Raises ServiceError ``metrics.no-address``, after which it is to be tried again.
        """
        if self._place == (address, port):
            return
        self.close()
        if port:
            try:
                self._server = HttpServer(address, port, self.answer)
            except (OSError, UnicodeError) as error:  # UnicodeError: what can be no host's name
                raise ServiceError(
                    "metrics.no-address",
                    f"The metrics cannot be served on {address} port {port}: "
                    f"{getattr(error, 'strerror', None) or error}.",
                    hint="Set [ramshelf] metrics_address and metrics_port; port 0 serves none.",
                    facts={"address": address, "port": port},
                ) from error
        self._place = address, port

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
        self._server = self._place = None

    def renew(self) -> None:
        """Have the next scrape get the news."""
        self._made = {}

    def answer(self, request: Request) -> Response:
        """Return the metrics in the format that the request prefers."""
        if request.path != PATH:
            return refusal(HTTPStatus.NOT_FOUND, f"Only {PATH} is here.")
        encode, content_type = choose_encoder(_formats(request.headers.get("accept", "")))
        zipped = gzip_accepted(request.headers.get("accept-encoding", ""))
        key, now = (content_type, zipped), self._clock()
        kept = self._made  # it may be renewed meanwhile
        made = kept.get(key)
        if made is None or now - made.when >= _FRESH:
            text = encode(self._registry)
            made = kept[key] = _Made(gzip.compress(text) if zipped else text, now)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if zipped:
            headers["Content-Encoding"] = "gzip"
        return Response(body=made.text, headers=headers)


def _formats(accept: str) -> str:
    """Return the formats of an Accept header in their order, with a version only where known.

    Formats with another version are left out, and so is how names are to be escaped: none of ours
    needs it.
    """
    kept = []
    for choice in accept.split(","):
        name, *parameters = (word.strip() for word in choice.split(";"))
        version = next((word[8:] for word in parameters if word.startswith("version=")), "")
        if version in _VERSIONS:
            kept.append(f"{name};version={version}" if version else name)
    return ",".join(kept)
