"""The agent's metrics, served by its listener: a process without privileges."""

import gzip
import os
import signal
import socket
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from ramshelf.core.agent.unit import DOOR
from support.agent import CONF, Agent, agent, promtool
from support.libvirtd import Libvirtd
from support.listener import UNPRIVILEGED, Listener, listener
from support.process import HANG, run, wait_until
from support.stores import store

URL = "http://127.0.0.1:10177/metrics"
FORMATS = (
    "text/plain; version=0.0.4",
    "text/plain; version=1.0.0",
    "application/openmetrics-text; version=1.0.0",
)


@pytest.fixture
def waiting(libvirtd: Libvirtd) -> Iterator[Listener]:  # noqa: ARG001
    """A listener that waits for the agent."""
    with store("tmpfs", 256), listener(Path(DOOR), UNPRIVILEGED) as found:
        yield found


def scraped(**headers: str) -> tuple[str, bytes]:
    """Return a scrape's content type and body."""
    request = urllib.request.Request(URL, headers=headers)
    with urllib.request.urlopen(request, timeout=HANG) as answer:  # noqa: S310 - http
        return answer.headers["Content-Type"], answer.read()


def test_a_process_without_privileges_serves_every_format(waiting: Listener) -> None:
    status = Path(f"/proc/{waiting.process.pid}/status")
    with agent(door=DOOR) as running:
        assert "Uid:\t65534\t65534\t65534\t65534\n" in status.read_text()
        assert "CapBnd:\t0000000000000000\n" in status.read_text()
        for accept in FORMATS:
            kind, body = scraped(Accept=accept)
            assert kind.startswith(accept)
            assert b"ramshelf_build_info" in body
        _, packed = scraped(**{"Accept-Encoding": "gzip"})
        assert b"ramshelf_build_info" in gzip.decompress(packed)
        assert promtool(running.scraped()) == ""
        looked = running.scrape()["ramshelf_look_timestamp_seconds"]
        running.wait_metric("ramshelf_look_timestamp_seconds", lambda value: value > looked)


def test_without_the_agent_the_port_is_closed_and_the_next_one_has_the_listener(
    waiting: Listener,  # noqa: ARG001
) -> None:
    with agent(door=DOOR) as running:
        for number in (signal.SIGKILL, signal.SIGTERM):
            running.signal(number)
            running.process.wait(timeout=HANG)
            running.wait_closed()
            running.process = Agent(door=DOOR).process
            running.wait_metric("libvirt_up", lambda value: value == 1)


def test_a_reload_takes_the_listener_elsewhere_and_back(waiting: Listener) -> None:  # noqa: ARG001
    with agent(door=DOOR) as running:
        good = CONF.read_text()
        CONF.write_text(f"{good}metrics_port = 10178\n")
        running.signal(signal.SIGHUP)
        running.wait_closed()
        CONF.write_text(good)
        running.signal(signal.SIGHUP)
        running.wait_metric("libvirt_up", lambda value: value == 1)
        assert "began metrics.no-address" not in running.events()


def test_a_listener_that_is_killed_or_hangs_is_no_trouble_of_the_agent_s(waiting: Listener) -> None:
    with agent(door=DOOR) as running:
        waiting.kill()
        waiting.start()
        running.wait_metric("libvirt_up", lambda value: value == 1)
        waiting.process.send_signal(signal.SIGSTOP)
        try:
            running.signal(signal.SIGHUP)
            running.wait_log("reloaded")
        finally:
            waiting.process.send_signal(signal.SIGCONT)
        running.wait_metric("libvirt_up", lambda value: value == 1)


def test_without_a_listener_the_agent_says_so_and_does_the_rest(libvirtd: Libvirtd) -> None:  # noqa: ARG001
    with store("tmpfs", 256), ExitStack() as stack, agent(wait=False, door=DOOR) as running:
        assert DOOR in running.wait_log("began", code="metrics.no-listener")["message"]
        running.wait_log("began", code="hook.missing")
        stack.enter_context(listener(Path(DOOR), UNPRIVILEGED))
        running.wait_metric("ramshelf_look_timestamp_seconds", lambda value: value > 0)
        running.wait_log("ended", code="metrics.no-listener")


def test_strangers_do_not_get_to_the_unix_socket(waiting: Listener) -> None:  # noqa: ARG001
    program = f"import socket; socket.socket(socket.AF_UNIX).connect({DOOR!r})"
    refused = run(*UNPRIVILEGED, sys.executable, "-c", program, ok=(1,))
    assert "PermissionError" in refused.stderr


@pytest.mark.parametrize("said", [b"", b"\xff", os.urandom(4096)])
def test_whoever_lends_nothing_makes_room_for_the_agent(waiting: Listener, said: bytes) -> None:  # noqa: ARG001
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.connect(DOOR)
        stranger.sendall(said)
        with agent(door=DOOR) as running:
            assert running.scrape()["libvirt_up"] == 1


def test_many_scrapes_at_once_are_all_answered(waiting: Listener) -> None:  # noqa: ARG001
    with agent(door=DOOR), ThreadPoolExecutor(24) as pool:
        accepts = FORMATS * 100
        found = pool.map(lambda accept: scraped(Accept=accept)[0], accepts)
        for kind, accept in zip(found, accepts, strict=True):
            assert kind.startswith(accept)


def test_a_frozen_agent_holds_up_nobody_for_ever(waiting: Listener) -> None:  # noqa: ARG001
    with agent(door=DOOR) as running:
        running.signal(signal.SIGSTOP)
        try:
            wait_until(lambda: running.scraped() == "", "no scrape is served")
        finally:
            running.signal(signal.SIGCONT)
        running.wait_metric("libvirt_up", lambda value: value == 1)
