"""The service manager, told how this process is: sd_notify(3), a datagram to $NOTIFY_SOCKET."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """Tells the service manager that started this process; where there is none it tells nobody.

    ``watchdog``: seconds after which the manager kills a process that is not ``alive``; None: it
    does not.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self.watchdog = _watchdog(environment)

    def ready(self, status: str) -> None:
        """The process serves."""
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """The process does not hang; to be told twice within ``watchdog``."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """A line for ``systemctl status``."""
        self._send(f"STATUS={text}")

    def stopping(self) -> None:
        """The process is about to end."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if self._address[:1] not in {"/", "@"}:
            return
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.sendto(message.encode(), address)


def _watchdog(environment: Mapping[str, str]) -> float | None:
    """As sd_watchdog_enabled(3): for this process only."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with suppress(KeyError, ValueError):
        return int(environment["WATCHDOG_USEC"]) / 1e6
    return None
