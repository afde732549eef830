"""What Nova asks of Glance and of Neutron, answered from a directory and with empty lists.

In Keystone's place stands that everybody is the operator.

They are WSGI applications for the process that Nova runs in; nothing here needs ramshelf.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

Environ = dict[str, Any]
Response = Callable[[str, list[tuple[str, str]]], object]
Application = Callable[[Environ, Response], Iterable[bytes]]

_TEXT, _TEXT_OR_NOT, _NUMBER = (
    {"type": "string"},
    {"type": ["null", "string"]},
    {"type": ["null", "integer"]},
)
_SCHEMA = {
    "name": "image",
    "properties": {
        **dict.fromkeys(("id", "status", "visibility", "created_at", "updated_at"), _TEXT),
        **dict.fromkeys(("name", "owner", "checksum", "container_format"), _TEXT_OR_NOT),
        **dict.fromkeys(("size", "min_ram", "min_disk"), _NUMBER),
        "tags": {"type": "array"},
        "disk_format": {**_TEXT_OR_NOT, "enum": ["raw", "aki", "ari"]},
    },
    "additionalProperties": _TEXT,
}
"""What an image has of its own; all else are its properties.

glanceclient tells them apart by this schema.
"""


_FIRST: Mapping[str, Any] = {
    "visibility": "private",
    "tags": [],
    "size": None,
    "min_ram": 0,
    "min_disk": 0,
}


class Images:
    """Glance v2 with images in a directory: ID.json describes one, and ID.data has its contents."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __call__(self, environ: Environ, respond: Response) -> Iterable[bytes]:
        """Answer a request for /v2/..."""
        method, parts = environ["REQUEST_METHOD"], environ["PATH_INFO"].strip("/").split("/")[1:]
        match method, parts:
            case "GET", ["schemas", "image"]:
                return _answer(respond, _SCHEMA)
            case "POST", ["images"]:
                given = json.loads(_body(environ))
                now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                new = {
                    "id": str(uuid.uuid4()),
                    "status": "queued",
                    "created_at": now,
                    "updated_at": now,
                }
                return _answer(respond, self._save({**_FIRST, **given, **new}), "201 Created")
            case _, ["images", identity, *rest] if (self._directory / f"{identity}.json").exists():
                return self._image(method, identity, rest, environ, respond)
        return _answer(respond, {}, "404 Not Found")

    def _image(
        self, method: str, identity: str, rest: list[str], environ: Environ, respond: Response
    ) -> Iterable[bytes]:
        described, data = (self._directory / f"{identity}.{end}" for end in ("json", "data"))
        image = json.loads(described.read_text())
        match method, rest:
            case "GET", []:
                return _answer(respond, image)
            case "GET", ["file"]:
                size = data.stat().st_size
                respond(
                    "200 OK",
                    [("Content-Type", "application/octet-stream"), ("Content-Length", str(size))],
                )
                return _pieces(data)
            case "PUT", ["file"]:
                data.write_bytes(_body(environ))
                self._save({**image, "status": "active", "size": data.stat().st_size})
                respond("204 No Content", [])
                return []
            case "PATCH", []:
                for change in json.loads(_body(environ)):
                    name = change["path"].strip("/")
                    if change["op"] == "remove":
                        del image[name]
                    else:
                        image[name] = change["value"]
                return _answer(respond, self._save(image))
            case "DELETE", []:
                described.unlink()
                data.unlink(missing_ok=True)
                respond("204 No Content", [])
                return []
        return _answer(respond, {}, "404 Not Found")

    def _save(self, image: dict[str, Any]) -> dict[str, Any]:
        (self._directory / f"{image['id']}.json").write_text(json.dumps(image))
        return image


def networks(environ: Environ, respond: Response) -> Iterable[bytes]:
    """Answer like Neutron v2.0 of a cloud that has no ports, no networks and no extensions."""
    collection = environ["PATH_INFO"].strip("/").split("/")[1].removesuffix(".json")
    return _answer(respond, {collection.replace("-", "_"): []})


def operator(application: Application) -> Application:
    """Tell an application of each request what Keystone's middleware would: whose it is."""
    who = {
        "HTTP_X_USER_ID": "operator",
        "HTTP_X_PROJECT_ID": "project",
        "HTTP_X_ROLES": "admin,manager,member,reader",
    }
    return lambda environ, respond: application({**environ, **who}, respond)


def _answer(respond: Response, document: object, status: str = "200 OK") -> Iterable[bytes]:
    body = json.dumps(document).encode()
    respond(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece


def _body(environ: Environ) -> bytes:
    """Return the body of a request; wsgiref leaves it to the application to put chunks together."""
    stream = environ["wsgi.input"]
    if environ.get("HTTP_TRANSFER_ENCODING", "").lower() != "chunked":
        return bytes(stream.read(int(environ.get("CONTENT_LENGTH") or 0)))
    body = b""
    while size := int(stream.readline().split(b";")[0], 16):
        body += stream.read(size)
        stream.readline()
    stream.readline()
    return body
