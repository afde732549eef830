"""Secrets are kept out of what is said."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.errors import RamshelfError
from ramshelf.core.secrets import hide, secret_values, without_secrets
from ramshelf.system.placementapi import PlacementApi
from ramshelf.system.settings import load_config

SETTINGS = (
    ("password", "geheim"),
    ("auth_url", "http://a:b@h/v3"),
    ("application_credential_secret", " s3 "),
    ("username", "nova"),
    ("token", ""),
)


def test_secrets_are_known_by_the_names_of_their_keys() -> None:
    assert secret_values(SETTINGS) == {"geheim", "s3"}


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Unable to reach http://user:pa@ss@h:5000/v3.", "Unable to reach http://***@h:5000/v3."),
        ("http://h/a:b@c and http://h:80/x", "http://h/a:b@c and http://h:80/x"),
        ("qemu+ssh://root@host/system", "qemu+ssh://root@host/system"),
        ('{"password": "geheim"}', '{"password": "***"}'),
        ("geheimnis", "geheimnis"),
    ],
)
def test_they_are_hidden(text: str, hidden: str) -> None:
    assert hide(text, {"geheim"}) == hidden


@given(st.text(), st.sets(st.text(min_size=1)))
def test_any_text_can_be_looked_through(text: str, secrets: set[str]) -> None:
    assert isinstance(hide(text, secrets), str)


def test_an_error_keeps_all_else() -> None:
    error = RamshelfError("a.b", "No geheim.", hint="Do.", facts={"url": "x://u:p@h", "status": 3})
    found = without_secrets(error, {"geheim"})
    assert (found.code, found.sentence, found.hint) == ("a.b", "No ***.", "Do.")
    assert found.facts == {"url": "x://***@h", "status": 3}


class Echo(http.server.BaseHTTPRequestHandler):
    """What answers where a Keystone should, and quotes what it was sent."""

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["content-length"])).decode()
        body = json.dumps(
            {"error": {"message": f"bad: {sent}", "code": 400, "title": "Bad Request"}}
        ).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def echo() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://user:geheim@127.0.0.1:1/v3", "placement.unreachable"),
        ("x://user:geheim@host", "placement.unreachable"),
        ("http://user:geheim@[::1/v3", "placement.configuration"),
        ("http://127.0.0.1:{echo}/v3", "placement.error"),
    ],
)
def test_no_error_of_placements_quotes_a_secret_of_the_configuration(
    tmp_path: Path, url: str, code: str
) -> None:
    pytest.importorskip("keystoneauth1")
    conf = tmp_path / "ramshelf.conf"
    with echo() as port:
        conf.write_text(
            f"[placement]\nauth_type = password\nauth_url = {url.format(echo=port)}\n"
            "username = nova\npassword = geheim\nproject_name = service\n"
        )
        with (
            PlacementApi(load_config([str(conf)])) as placement,
            pytest.raises(RamshelfError) as raised,
        ):
            placement.ask("GET", "/")
    assert "geheim" not in f"{raised.value} {raised.value.hint} {dict(raised.value.facts)}"
    assert raised.value.code == code
