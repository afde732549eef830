"""Trims guests whose memory was read as a whole, as for a dump or a migration that failed.

On a tmpfs a page that is read is a page that is allocated. libvirt does not tell of a dump (no
job-completed event comes), but suspends the guest for it. Nor does it tell that a migration has
been given up, but it tells of each pass of one over the memory (migration-iteration), as it does of
a snapshot's. So what is remembered is when that began, and libvirt is asked whether it still goes
on. An agent that starts has missed the beginning: it asks libvirt about each guest, once.
"""

import subprocess
from collections.abc import Iterator

from ramshelf.agent.log import Log
from ramshelf.core.agent.conditions import Condition
from ramshelf.core.agent.events import Event, What
from ramshelf.core.errors import RefusedError
from ramshelf.core.units import MIB, to_mib
from ramshelf.node.agent.look import Look
from ramshelf.node.guest.aftercare import leave
from ramshelf.node.guest.look import RunningGuest
from ramshelf.system.hypervisor import Hypervisor

_WORTH = 64 * MIB
"""The bytes below which a guest is not trimmed.

It may have touched as much itself since the look before.
"""


class Trims:
    """What a guest had allocated before it was read, until it runs and nobody reads it.

    Then it is trimmed. The process that does so takes long and holds the guest still for moments.
    It outlives the agent.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._begins = True
        self._read: dict[str, int] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def happened(self, event: Event, seen: Look | None) -> None:
        """Take note of what libvirt has told; ``seen`` is the look before."""
        if (
            event.what in {What.SUSPENDED, What.READ}
            and (guest := _on_tmpfs(seen, event.guest)) is not None
        ):
            self._read.setdefault(event.guest, guest.allocated)
        elif event.what is What.STOPPED:
            self._read.pop(event.guest, None)

    def turn(self, hypervisor: Hypervisor, seen: Look | None) -> Iterator[Condition]:
        """Have those guests trimmed that have grown while they were read."""
        self._running = {name: trim for name, trim in self._running.items() if trim.poll() is None}
        if self._begins and seen is not None and seen.shares is not None:
            self._begins = False
            for one in seen.shares.guests if seen.shares.store.kind.tmpfs else ():
                if _busy(hypervisor, one):
                    self._read.setdefault(one.domain.name, 0)
        for name, before in tuple(self._read.items()):
            guest = _on_tmpfs(seen, name)
            if guest is not None and (guest.domain.state != "running" or _busy(hypervisor, guest)):
                continue
            del self._read[name]
            if (
                guest is not None
                and guest.allocated - before >= _WORTH
                and name not in self._running
            ):
                grown = to_mib(guest.allocated - before)
                message = (
                    f"Guest {name} has up to {grown} MiB more than before it was read, and is "
                    "trimmed."
                )
                self._log.info("trimming", message, guest=name, grown_mib=grown)
                self._running[name] = leave(name, guest.domain.domain_id or 0, "trim")
        yield from ()


def _busy(hypervisor: Hypervisor, guest: RunningGuest) -> bool:
    """Tell whether the guest is still being read.

    One that has ended since the look counts as read, and is gone with the next look.
    """
    try:
        return hypervisor.busy(guest.domain.domain_id or 0)
    except RefusedError:
        return True


def _on_tmpfs(seen: Look | None, name: str) -> RunningGuest | None:
    if seen is None or seen.shares is None or not seen.shares.store.kind.tmpfs:
        return None
    return next((guest for guest in seen.shares.guests if guest.domain.name == name), None)
