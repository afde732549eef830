"""Placement's answers to ramshelf-nova, for tests of what it does with them; needs a Nova."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from keystoneauth1.exceptions import ConnectFailure

from support.nova_objects import host_uuid


@dataclass(frozen=True)
class Response:
    """As much of a response as is read."""

    document: Any
    status_code: int = 200
    text: str = ""

    def json(self) -> Any:
        """Return its body."""
        return self.document


class Placement:
    """Hosts by name with their traits; ``asked`` is what it was asked, ``away`` makes it fail."""

    def __init__(self, hosts: Mapping[str, Iterable[str]] | None = None) -> None:
        self.hosts = {name: frozenset(traits) for name, traits in (hosts or {}).items()}
        self.asked: list[str] = []
        self.away = False

    def get(self, url: str, version: str = "1.39") -> Response:
        """Answer as Placement does."""
        assert version == "1.39"
        self.asked.append(url)
        if self.away:
            raise ConnectFailure("it is away")
        path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
        if path == "/traits":
            prefix = query["name"][0].removeprefix("startswith:")
            known = frozenset[str]().union(*self.hosts.values())
            return Response(
                {"traits": sorted(trait for trait in known if trait.startswith(prefix))}
            )
        wanted = set(query["required"][0].removeprefix("in:").split(","))
        found = [
            {"uuid": host_uuid(name)} for name, traits in self.hosts.items() if wanted & traits
        ]
        return Response({"resource_providers": found})
