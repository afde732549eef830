"""The agent's metrics, served by its listener: a process without privileges."""

import gzip
import json
import os
import shutil
import signal
import socket
import sys
import threading
import urllib.request
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPException
from pathlib import Path

import pytest

import ramshelf
from ramshelf.core.agent.unit import DOOR
from ramshelf.system.httpserver import listen
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


def scraped(url: str = URL, **headers: str) -> tuple[str, bytes]:
    """Return a scrape's content type and body."""
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http
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


def test_a_port_that_another_has_is_taken_once_it_is_free(waiting: Listener) -> None:  # noqa: ARG001
    with agent(door=DOOR) as running, listen("127.0.0.1", 10178) as other:
        CONF.write_text(f"{CONF.read_text()}metrics_port = 10178\n")
        running.signal(signal.SIGHUP)
        running.wait_log("began", code="metrics.no-address")
        running.wait_closed()
        other.close()
        running.signal(signal.SIGHUP)
        running.wait_log("ended", code="metrics.no-address")
        assert b"libvirt_up 1.0" in scraped(URL.replace("77", "78"))[1]


def test_reloads_in_the_middle_of_scrapes_leave_nothing_behind(waiting: Listener) -> None:
    with agent(door=DOOR) as running, ThreadPoolExecutor(8) as pool:
        good, ending = CONF.read_text(), threading.Event()
        processes = running.process.pid, waiting.process.pid
        before = held(*processes)  # the last scrape's connection may be among it
        scraping = [pool.submit(scrapes_until, ending) for _ in range(8)]
        for number in range(10):
            CONF.write_text(good + ("" if number % 2 else "metrics_port = 10178\n"))
            running.signal(signal.SIGHUP)
            wait_until(
                lambda number=number: running.events().count("reloaded") > number,  # type: ignore[misc]
                "it is read",
            )
        ending.set()
        assert all(each.result() > 0 for each in scraping)
        running.wait_metric("libvirt_up", lambda value: value == 1)
        wait_until(
            lambda: all(now <= was for now, was in zip(held(*processes), before, strict=True)),
            "nothing is left",
        )
        assert "began metrics.no-listener" not in running.events()


def scrapes_until(ending: threading.Event) -> int:
    """Scrape again and again; return how often it went well."""
    well = 0
    while not ending.is_set() or not well:
        with suppress(OSError, HTTPException):
            well += scraped(Accept=FORMATS[0])[1].endswith(b"\n")
    return well


def held(*pids: int) -> list[int]:
    """Return how many descriptors and threads each of the processes has."""
    return [len(os.listdir(f"/proc/{pid}/{kind}")) for pid in pids for kind in ("fd", "task")]


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


@pytest.mark.parametrize(
    ("place", "mode", "said"),
    [
        ("/run/closed", 0o700, "Permission denied"),
        ("/run/open", 0o755, ""),
        ("/var/tmp/open", 0o755, "its /var/tmp is another one"),
    ],
)
def test_install_says_where_the_listener_could_not_run(place: str, mode: int, said: str) -> None:
    systemd, closed = Path("/run/systemd/system"), Path(place)
    systemd.mkdir(parents=True, exist_ok=True)
    try:
        installed(closed)
        closed.chmod(mode)
        argv = (str(closed / "bin/python"), "-I", "-m", "ramshelf")
        ended = run(*argv, "agent", "install", "--dry-run", "--json")
        codes = [note["code"] for note in json.loads(ended.stdout)["notes"]]
        assert codes == (["metrics.no-listener"] if said else [])
        shown = run(*argv, "agent", "install", "--dry-run").stderr
        assert said in shown
        assert ("hint: " in shown) == bool(said)
    finally:
        shutil.rmtree(closed)
        systemd.rmdir()


def installed(place: Path) -> None:
    """Make an environment of Python's with ramshelf, which finds all else where this one does."""
    venv.create(place, symlinks=True)
    [packages] = place.glob("lib/python*/site-packages")
    shutil.copytree(Path(ramshelf.__file__).parent, packages / "ramshelf")
    found = sorted(filter(None, sys.path))
    (packages / "here.pth").write_text("".join(f"{path}\n" for path in found))


def test_a_frozen_agent_holds_up_nobody_for_ever(waiting: Listener) -> None:  # noqa: ARG001
    with agent(door=DOOR) as running:
        running.signal(signal.SIGSTOP)
        try:
            wait_until(lambda: running.scraped() == "", "no scrape is served")
        finally:
            running.signal(signal.SIGCONT)
        running.wait_metric("libvirt_up", lambda value: value == 1)
