"""Messages to the service manager about how this process is.

As sd_notify(3) says, each is a datagram to $NOTIFY_SOCKET.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """A sender to the service manager that started this process; without one it tells nobody.

    ``watchdog`` is the number of seconds after which the manager kills a process that has not
    called ``alive``. None means that it kills none.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self.watchdog = _watchdog(environment)

    def ready(self, status: str) -> None:
        """Tell that the process serves, with a line for ``systemctl status``."""
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """Tell that the process does not hang; this is to be called twice within ``watchdog``."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Set the line for ``systemctl status``."""
        self._send(f"STATUS={text}")

    def stopping(self) -> None:
        """Tell that the process is about to end."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if self._address[:1] not in {"/", "@"}:
            return
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.sendto(message.encode(), address)


def _watchdog(environment: Mapping[str, str]) -> float | None:
    """Return the seconds as sd_watchdog_enabled(3) does, for this process only."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with suppress(KeyError, ValueError):
        return int(environment["WATCHDOG_USEC"]) / 1e6
    return None
