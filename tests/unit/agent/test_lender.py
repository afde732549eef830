"""The loan of the listening socket: a listener that is taken over gains nothing by it."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import Event

import pytest

from ramshelf.agent import lender
from ramshelf.agent.lender import REST, REST_SHARE, Lender
from ramshelf.agent.loan import READY, ask, borrow
from ramshelf.core.errors import ServiceError
from ramshelf.system.httpserver import listen
from support.listener import listener
from support.process import wait_until

PATIENCE = 60


class Lent:
    """A loan, and the texts that were made for it: ``content``, else each one's content type."""

    def __init__(self, door: Path, content: Callable[[], bytes] | None = None) -> None:
        self.made = 0
        self.content = content
        self.told = Event()
        self.socket = listen("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self.lender = Lender(self.socket, str(door), self.text, self.told.set)

    def text(self, content_type: str) -> bytes:
        self.made += 1
        return self.content() if self.content is not None else content_type.encode()

    def close(self) -> None:
        self.lender.close()

    def wait_told(self) -> None:
        assert self.told.wait(PATIENCE)
        self.told.clear()


@pytest.fixture
def door(tmp_path: Path) -> Path:
    return tmp_path / "door"


@pytest.fixture
def waiting(door: Path) -> Iterator[socket.socket]:
    """A listener of the test's own, which may do whatever one could that was taken over."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as found:
        found.bind(str(door))
        found.listen()
        found.settimeout(PATIENCE)
        yield found


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


def scraped(port: int, accept: str = "text/plain") -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310 - it is http
        return bytes(answer.read())


def test_the_listener_serves_each_format_as_long_as_the_loan_lasts(door: Path) -> None:
    with listener(door):
        with closing(Lent(door)) as lent:
            for accept in ("text/plain", "application/openmetrics-text;version=1.0.0"):
                assert scraped(lent.port, accept).decode().startswith(accept.partition(";")[0])
            assert lent.made == 2
        assert refused(lent.port)
        with closing(Lent(door)) as again:
            assert scraped(again.port)


def test_where_nobody_waits_it_is_an_error_of_ours(door: Path) -> None:
    with listen("127.0.0.1", 0) as mine, pytest.raises(ServiceError) as caught:
        Lender(mine, str(door), lambda _: b"", lambda: None)
    assert caught.value.code == "metrics.no-listener"


def test_a_listener_that_says_nothing_is_told_of_until_it_does(
    door: Path, waiting: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lender, "_READY_SECONDS", 0.1)
    with closing(Lent(door)) as lent:
        lent.wait_told()
        assert lent.lender.trouble is not None
        connection, _ = waiting.accept()
        with connection, borrow(connection):
            connection.sendall(READY)
            lent.wait_told()
            assert lent.lender.trouble is None
            assert lent.lender.alive


@pytest.mark.parametrize("said", [b"", b"\x00", READY + b"\xfe", READY + b"GET /"])
def test_a_listener_that_ends_or_says_what_none_says_has_lost_the_loan(
    door: Path, waiting: socket.socket, said: bytes
) -> None:
    with closing(Lent(door)) as lent:
        connection, _ = waiting.accept()
        with connection, borrow(connection):
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            lent.wait_told()
            assert not lent.lender.alive
            assert (lent.lender.trouble is None) == said.startswith(READY)
            assert lent.made == 0


def test_a_listener_that_asks_all_the_time_gets_few_texts(
    door: Path, waiting: socket.socket
) -> None:
    """The first at once, each other one after a rest."""
    with closing(Lent(door)) as lent:
        connection, _ = waiting.accept()
        with connection, borrow(connection):
            connection.sendall(READY)
            begun = time.monotonic()
            connection.sendall(b"\0" * 1000)
            while lent.made < 3:
                time.sleep(0.01)
            assert time.monotonic() - begun >= 2 * REST


def test_texts_that_take_long_are_made_the_less_often(door: Path, waiting: socket.socket) -> None:
    def slow() -> bytes:
        begun = time.thread_time()
        while time.thread_time() < begun + 0.1:
            pass
        return b"text"

    with closing(Lent(door, slow)) as lent:
        connection, _ = waiting.accept()
        with connection, borrow(connection):
            connection.sendall(READY)
            begun = time.monotonic()
            connection.sendall(b"\0" * 1000)
            while lent.made < 3:
                time.sleep(0.01)
            assert time.monotonic() - begun >= 2 * REST_SHARE * 0.1


def test_descriptors_that_it_sends_are_not_taken(door: Path, waiting: socket.socket) -> None:
    with closing(Lent(door)) as lent:
        connection, _ = waiting.accept()
        with connection, borrow(connection):
            socket.send_fds(connection, [READY], [0, 1, 2])
            assert ask(connection, 0)
            before = os.listdir("/proc/self/fd")
            for _ in range(3):
                socket.send_fds(connection, [b"\0"], [0] * 200)
            wait_until(lambda: lent.made == 4, "it has answered", timeout=PATIENCE)
            assert os.listdir("/proc/self/fd") == before


def test_a_listener_that_takes_no_answer_has_its_time(
    door: Path, waiting: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lender, "_REPLY_SECONDS", 0.1)
    with closing(Lent(door, lambda: b"x" * (30 << 20))) as lent:
        connection, _ = waiting.accept()
        with connection, borrow(connection):
            connection.sendall(READY + b"\0")
            lent.wait_told()
            assert not lent.lender.alive


def test_nobody_listens_any_more_though_the_listener_keeps_the_socket(
    door: Path, waiting: socket.socket
) -> None:
    lent = Lent(door)
    connection, _ = waiting.accept()
    with connection, borrow(connection):
        lent.close()
        assert refused(lent.port)
        listen("127.0.0.1", lent.port).close()


def test_a_text_that_cannot_be_made_ends_no_loan(door: Path, waiting: socket.socket) -> None:
    def fails() -> bytes:
        raise ValueError("a bug")

    with closing(Lent(door, fails)) as lent:
        connection, _ = waiting.accept()
        with connection, borrow(connection):
            connection.sendall(READY)
            assert ask(connection, 0) == b""
            assert lent.lender.alive


def test_who_connects_to_the_listener_and_lends_nothing_goes_first_but_not_for_long(
    door: Path,
) -> None:
    with listener(door):
        for said in (b"", b"\0", b"GET / HTTP/1.1\r\n\r\n"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
                stranger.connect(str(door))
                stranger.sendall(said)
                with closing(Lent(door)) as lent:
                    assert scraped(lent.port)
                with suppress(ConnectionResetError):
                    stranger.settimeout(PATIENCE)
                    assert stranger.recv(1) == b""


def test_a_listener_that_is_killed_leaves_the_loan_to_the_next(door: Path) -> None:
    with listener(door) as running, closing(Lent(door)) as lent:
        assert scraped(lent.port)
        running.kill()
        lent.wait_told()
        wait_until(lambda: not lent.lender.alive, "the loan has ended", timeout=PATIENCE)
        running.start()
        with closing(Lent(door)) as again:
            assert scraped(again.port)


def test_the_listener_imports_little() -> None:
    program = (
        "import sys, ramshelf.agent.listener\n"
        "print({name.partition('.')[0] for name in sys.modules}"
        " & {'libvirt', 'lxml', 'oslo_config', 'click', 'psutil', 'keystoneauth1'})"
    )
    ended = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "set()\n"


def test_the_listener_says_who_starts_it() -> None:
    argv = [sys.executable, "-I", "-m", "ramshelf.agent.listener"]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "ramshelf agent install" in ended.stderr
