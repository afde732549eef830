"""Guests whose memory was read as a whole while they were suspended, as for a dump: they are trimmed.

On a tmpfs a page that is read is a page that is allocated. libvirt does not tell of a dump (no job-completed
event comes), but suspends the guest for it; and a guest that is suspended touches nothing itself.
"""

import subprocess
import sys
from collections.abc import Iterator

from ramshelf.agent.log import Log
from ramshelf.core.conditions import Condition
from ramshelf.core.events import Event, What
from ramshelf.core.units import MIB, to_mib
from ramshelf.node.guests import RunningGuest
from ramshelf.node.watching import Look

_WORTH = 64 * MIB
"""A guest is not trimmed for less; it may have touched as much itself since the look before."""


class Trims:
    """What a guest had allocated when it was suspended, until it goes on; then a process trims it.

    That process takes long and holds the guest still for moments. It outlives the agent.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._suspended: dict[str, int] = {}
        self._resumed: dict[str, int] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def happened(self, event: Event, seen: Look | None) -> None:
        """Take note of what libvirt has told; ``seen`` is the look before."""
        if event.what is What.SUSPENDED and (guest := _on_tmpfs(seen, event.guest)) is not None:
            self._suspended[event.guest] = guest.allocated
        elif event.what is What.RESUMED and event.guest in self._suspended:
            self._resumed[event.guest] = self._suspended.pop(event.guest)
        elif event.what is What.STOPPED:
            self._suspended.pop(event.guest, None)
            self._resumed.pop(event.guest, None)

    def turn(self, seen: Look | None) -> Iterator[Condition]:
        """Have those trimmed that have grown while they were suspended."""
        self._running = {name: trim for name, trim in self._running.items() if trim.poll() is None}
        resumed, self._resumed = self._resumed, {}
        for name, before in resumed.items():
            guest = _on_tmpfs(seen, name)
            if guest is not None and guest.allocated - before >= _WORTH and name not in self._running:
                grown = to_mib(guest.allocated - before)
                message = f"Guest {name} has {grown} MiB more than before it was suspended, and is trimmed."
                self._log.info("trimming", message, guest=name, grown_mib=grown)
                argv = (sys.executable, "-I", "-m", "ramshelf.node.aftercare", name)
                self._running[name] = subprocess.Popen(  # noqa: S603 - this very program
                    (*argv, str(guest.domain.domain_id), "trim"),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
        yield from ()


def _on_tmpfs(seen: Look | None, name: str) -> RunningGuest | None:
    if seen is None or seen.shares is None or not seen.shares.store.kind.tmpfs:
        return None
    return next((guest for guest in seen.shares.guests if guest.domain.name == name), None)
