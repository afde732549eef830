"""The agent's HTTP server: what it accepts as a request, and how little a hostile client gets."""

import gzip
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from ramshelf.agent.endpoint import Endpoint
from ramshelf.agent.lender import Lender
from ramshelf.agent.metrics import Exporter
from ramshelf.agent.scrapes import FORMATS, Scrapes
from ramshelf.core.errors import ServiceError
from ramshelf.system import httpserver
from ramshelf.system.httpserver import (
    CONNECTIONS,
    HttpServer,
    Request,
    Response,
    listen,
    parse_request,
)
from support.listener import listener

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
PATIENCE = 60
LARGE = b"x" * (30 << 20)


def answer(request: Request) -> Response:
    if request.path == "/bug":
        raise ValueError("a bug")
    return Response(body=LARGE if request.path == "/large" else request.path.encode())


def scrapes(registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic) -> Scrapes:
    return Scrapes(lambda content_type: FORMATS[content_type](registry), clock)


@contextmanager
def serving(address: str = "127.0.0.1") -> Iterator[HttpServer]:
    with closing(HttpServer(listen(address, 0), answer)) as server:
        yield server


@pytest.fixture(params=["agent", "listener"])
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """Where a large text is served: by a server in this process, or by the agent's listener."""
    socket_ = listen("127.0.0.1", 0)
    number = int(socket_.getsockname()[1])
    if request.param == "agent":
        with closing(HttpServer(socket_, Scrapes(lambda _: LARGE).answer)):
            yield number
    else:
        door = tmp_path / "door"
        with (
            listener(door),
            closing(Lender(socket_, str(door), lambda _: LARGE, lambda: None)),
        ):
            yield number


def asked(port: int, path: str, *, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with closing(connection):
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()


def half_open(
    port: int, stack: ExitStack, number: int, sent: bytes = b"GET / HT"
) -> list[socket.socket]:
    found = []
    for _ in range(number):
        client = stack.enter_context(
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        )
        with suppress(OSError):  # it had to make room already
            client.sendall(sent)
        found.append(client)
    return found


def wait_closed(client: socket.socket) -> None:
    with suppress(ConnectionResetError):
        while client.recv(65536):
            pass


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_request_is_read(end: str) -> None:
    text = f"GET /metrics?x=1 HTTP/1.1{end}Host: h{end}ACCEPT: a,{end}  b{end}{end}"
    assert parse_request(text.encode()) == Request(
        path="/metrics", headers={"host": "h", "accept": "a, b"}
    )
    assert parse_request(text.encode()[:-1]) is None


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("POST / HTTP/1.1\r\n\r\n", 405),
        ("HEAD / HTTP/1.1\r\n\r\n", 405),
        ("GET /\r\n\r\n", 400),
        ("\r\n\r\n", 400),
        ("GET / HTTP/2\r\n\r\n", 400),
        ("GET http://[ HTTP/1.1\r\n\r\n", 400),
        ("\x16\x03\x01\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n" + "A: b\r\n" * 200 + "\r\n", 400),
        ("GET / HTTP/1.1\r\nA: " + "b" * 9000, 431),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_word(text: str, status: int) -> None:
    refused = parse_request(text.encode())
    assert isinstance(refused, Response)
    assert refused.status == status
    assert refused.body.endswith(b".\n")


@given(
    st.binary(max_size=300)
    | st.from_regex(rb"GET /\S* HTTP/1\.1\r\n(.+:.+\r\n){0,3}\r\n", fullmatch=True)
)
def test_any_bytes_are_a_request_or_refused_or_not_whole(received: bytes) -> None:
    found = parse_request(received)
    assert found is None or isinstance(found, Request | Response)
    if isinstance(found, Request):
        assert not any("\n" in value or "\r" in value for value in found.headers.values())


@given(
    st.text(max_size=60)
    | st.from_regex(
        r"(application/openmetrics-text|text/plain)(;(version|escaping)=[^,;]*){0,2}",
        fullmatch=True,
    )
)
def test_whatever_format_is_asked_for_there_is_an_answer_in_a_known_one(accept: str) -> None:
    request = Request(path="/metrics", headers={"accept": accept})
    found = scrapes(CollectorRegistry()).answer(request)
    assert found.headers["Content-Type"] in {
        PLAIN,
        "text/plain; version=1.0.0; charset=utf-8; escaping=underscores",
        "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
        "application/openmetrics-text; version=0.0.1; charset=utf-8",  # of prometheus-client 0.16
    }


def test_prometheus_gets_the_format_that_it_prefers() -> None:
    """Its own Accept headers, of version 2 and 3."""
    endpoint = scrapes(Exporter().registry)
    for accept in (
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,*/*;q=0.2"
        ),
    ):
        found = endpoint.answer(Request(path="/metrics", headers={"accept": accept}))
        assert found.headers["Content-Type"].startswith("application/openmetrics-text; version=")
        assert found.body.endswith(b"# EOF\n")


def test_the_answer_is_packed_where_that_is_understood() -> None:
    endpoint = scrapes(Exporter().registry, clock=lambda: 0.0)
    plain = endpoint.answer(Request(path="/metrics", headers={}))
    packed = endpoint.answer(Request(path="/metrics", headers={"accept-encoding": "br, gzip"}))
    assert plain.headers["Content-Type"] == PLAIN
    assert packed.headers["Content-Encoding"] == "gzip"
    assert b"ramshelf_build_info" in gzip.decompress(packed.body)


def test_many_scrapes_within_a_second_cost_no_more_than_one_unless_there_is_news() -> None:
    now, collected = [0.0], []

    class Counting(CollectorRegistry):
        def collect(self) -> Iterator[None]:  # type: ignore[override]
            collected.append(now[0])
            return iter(())

    endpoint = scrapes(Counting(), clock=lambda: now[0])
    for _ in range(100):
        endpoint.answer(Request(path="/metrics", headers={"accept": PLAIN}))
    now[0] = 1.5
    endpoint.answer(Request(path="/metrics", headers={}))
    assert collected == [0.0, 1.5]
    endpoint.renew()
    endpoint.answer(Request(path="/metrics", headers={}))
    assert collected == [0.0, 1.5, 1.5]


def test_there_is_nothing_but_the_metrics() -> None:
    for path in ("/", "/metrics/", "/favicon.ico", "/metrics/../etc/passwd", ""):
        assert scrapes(CollectorRegistry()).answer(Request(path=path, headers={})).status == 404


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
def test_it_listens_on_either_kind_of_address(address: str) -> None:
    with (
        serving(address) as server,
        socket.create_connection((address, server.port), timeout=PATIENCE) as client,
    ):
        client.sendall(b"GET /here HTTP/1.0\r\n\r\n")
        received = b"".join(iter(lambda: client.recv(4096), b""))
    assert received.endswith(b"\r\n\r\n/here")


@pytest.mark.parametrize("address", ["192.0.2.1", "no.such.host.invalid", "a" * 70, ".."])
def test_an_address_that_cannot_be_had_is_an_error_of_ours(address: str) -> None:
    endpoint = Endpoint(CollectorRegistry())
    with pytest.raises(ServiceError, match="cannot be served") as raised:
        endpoint.serve(address, 10177)
    assert raised.value.code == "metrics.no-address"


def test_it_listens_where_it_is_told_and_nowhere_else_any_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1]]
    endpoint = Endpoint(CollectorRegistry())
    endpoint.serve("127.0.0.1", ports[0])
    assert asked(ports[0], "/metrics")[0] == 200
    endpoint.serve("127.0.0.1", 0)
    with pytest.raises(ConnectionRefusedError):
        asked(ports[0], "/metrics")


def test_who_holds_connections_open_keeps_nobody_else_out(port: int) -> None:
    with ExitStack() as stack:
        held = half_open(port, stack, 1000)
        assert asked(port, "/here")[0] == HTTPStatus.NOT_FOUND
        for client in held[: 1000 - CONNECTIONS]:
            wait_closed(client)


def test_an_answer_that_is_not_taken_makes_room_too(port: int) -> None:
    with ExitStack() as stack:
        half_open(port, stack, 3 * CONNECTIONS, b"GET /metrics HTTP/1.1\r\n\r\n")
        assert asked(port, "/here")[0] == HTTPStatus.NOT_FOUND


def test_who_has_an_answer_makes_room_before_who_waits_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(httpserver, "REQUEST_SECONDS", PATIENCE)
    monkeypatch.setattr(httpserver, "_CLOSE_SECONDS", PATIENCE)
    with serving() as server, ExitStack() as stack:
        [slow] = half_open(server.port, stack, 1)
        for _ in range(2 * CONNECTIONS):
            [client] = half_open(server.port, stack, 1, b"GET / HTTP/1.1\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        slow.sendall(b"TP/1.1\r\n\r\n")
        assert slow.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_large_answer_reaches_whoever_takes_it(port: int) -> None:
    assert asked(port, "/metrics") == (HTTPStatus.OK, LARGE)


def test_what_comes_in_pieces_or_is_no_request_gets_its_answer(port: int) -> None:
    for text, status in ((b"GET / HTTP/1.0\r\n\r\n", b"404"), (b"\x16\x03\x01\r\n\r\n", b"400")):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            for byte in text:
                client.sendall(bytes((byte,)))
            assert client.recv(100).split()[1] == status


def test_half_a_request_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not lengthen it."""
    monkeypatch.setattr(httpserver, "REQUEST_SECONDS", 0.3)
    with serving() as server, ExitStack() as stack:
        [client] = half_open(server.port, stack, 1)
        closed = threading.Event()

        def trickle() -> None:
            with suppress(OSError):
                while not closed.is_set():
                    client.sendall(b"x")
                    time.sleep(0.05)

        thread = threading.Thread(target=trickle)
        thread.start()
        wait_closed(client)
        closed.set()
        thread.join()


def test_an_answer_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpserver, "ANSWER_SECONDS", 0.2)
    with serving() as server, ExitStack() as stack:
        [client] = half_open(server.port, stack, 1, b"GET /large HTTP/1.1\r\n\r\n")
        time.sleep(1)
        received = 0
        with suppress(ConnectionResetError):
            while chunk := client.recv(1 << 20):
                received += len(chunk)
        assert received < 30 << 20


def test_too_long_a_request_gets_its_answer_before_the_end(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(b"GET / HTTP/1.1\r\nA: " + b"b" * 100_000)
        assert client.recv(100).startswith(b"HTTP/1.1 431 ")


def test_a_bug_in_an_answer_ends_nothing_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as server:
        for _ in range(3):
            assert asked(server.port, "/bug")[0] == HTTPStatus.INTERNAL_SERVER_ERROR
        assert asked(server.port, "/here")[0] == HTTPStatus.OK
    assert [record.getMessage() for record in caplog.records] == [
        "A request could not be answered: ValueError('a bug')"
    ]
