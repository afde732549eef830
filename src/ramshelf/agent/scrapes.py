"""Answers scrapes: in the format that Prometheus prefers, and packed where that is understood."""

import gzip
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

from ramshelf.system.httpserver import Request, Response, refusal

PATH = "/metrics"

_FRESH = 1.0
"""The seconds for which a text is given out again, unless there is news.

So a flood of scrapes costs no more.
"""

_NAMES = ("text/plain", "application/openmetrics-text")
_VERSIONS = ("", "0.0.1", "0.0.4", "1.0.0")
"""The versions of Prometheus' formats that may be asked for; '' is the usual one.

prometheus_client takes any word for a version: it fails at some, and makes another text for each.
"""


def _choice(name: str, version: str) -> str:
    return f"{name};version={version}" if version else name


FORMATS: Mapping[str, Callable[[CollectorRegistry], bytes]] = {
    content_type: encode
    for encode, content_type in (
        choose_encoder(_choice(name, version)) for name in _NAMES for version in _VERSIONS
    )
}
"""What makes the text of each format, by its content type: all that can ever be asked for."""


@dataclass(frozen=True)
class _Made:
    body: bytes
    when: float


class Scrapes:
    """Serves ``/metrics``, and nothing else; ``text`` makes the text of one of ``FORMATS``."""

    def __init__(
        self, text: Callable[[str], bytes], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._text = text
        self._clock = clock
        self._made: dict[tuple[str, bool], _Made] = {}

    def renew(self) -> None:
        """Have the next scrape get the news."""
        self._made = {}

    def answer(self, request: Request) -> Response:
        """Return the metrics in the format that the request prefers."""
        if request.path != PATH:
            return refusal(HTTPStatus.NOT_FOUND, f"Only {PATH} is here.")
        _, content_type = choose_encoder(_formats(request.headers.get("accept", "")))
        zipped = gzip_accepted(request.headers.get("accept-encoding", ""))
        key, now = (content_type, zipped), self._clock()
        kept = self._made  # it may be renewed meanwhile
        made = kept.get(key)
        if made is None or now - made.when >= _FRESH:
            text = self._text(content_type)
            made = kept[key] = _Made(gzip.compress(text) if zipped else text, now)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if zipped:
            headers["Content-Encoding"] = "gzip"
        return Response(body=made.body, headers=headers)


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
            kept.append(_choice(name, version))
    return ",".join(kept)
