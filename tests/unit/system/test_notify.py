"""What the service manager is told, on a real socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ramshelf.system.notify import Notifier


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = str(tmp_path / "notify") if request.param == "file" else f"@ramshelf-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1) if name[0] == "@" else name)
        listening.settimeout(10)
        yield listening, name


def test_it_is_told(manager: tuple[socket.socket, str]) -> None:
    listening, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready("2 guests")
    assert listening.recv(1000) == b"READY=1\nSTATUS=2 guests"
    notifier.alive()
    assert listening.recv(1000) == b"WATCHDOG=1"
    notifier.status("3 guests")
    assert listening.recv(1000) == b"STATUS=3 guests"
    notifier.stopping()
    assert listening.recv(1000) == b"STOPPING=1"


def test_without_a_manager_nobody_is_told() -> None:
    Notifier({}).ready("")
    Notifier({"NOTIFY_SOCKET": "/nonexistent/notify"}).alive()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "180000000"}, 180.0),
        ({"WATCHDOG_USEC": "180000000", "WATCHDOG_PID": str(os.getpid())}, 180.0),
        ({"WATCHDOG_USEC": "180000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_for_this_process_only(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert Notifier(environment).watchdog == seconds
