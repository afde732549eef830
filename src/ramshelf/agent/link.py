"""The agent's connection to libvirt, made anew whenever it is lost."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ramshelf.core.agent.events import Event
from ramshelf.core.agent.schedule import retry_pause
from ramshelf.system.hypervisor import Hypervisor

PATIENCE = 60
"""The seconds that libvirt has to answer one question.

It may wait for a hook, which waits 30 s for the store.
"""

_RESTART_TRIES = 4
"""The tries after which a libvirt that is away is no longer taken for one that restarts.

They take some seconds.
"""


@dataclass(frozen=True)
class Told:
    """What libvirt has told, and over which connection."""

    connection: int
    event: Event


class Link:
    """The connection; ``hypervisor`` is None while libvirt is away, which is retried when ``due``.

    ``hear`` gets what libvirt tells, in another thread.
    """

    def __init__(self, hear: Callable[[Told], None]) -> None:
        self._hear = hear
        self._connection = 0
        self._failures = 0
        self.hypervisor: Hypervisor | None = None
        self.due = 0.0

    @property
    def restarts(self) -> bool:
        """Whether a libvirt that is away may just be being restarted."""
        return self._failures < _RESTART_TRIES

    def connect(self, uri: str) -> None:
        """Try once to connect; raises what ``Hypervisor`` raises."""
        self._failures += 1
        self.due = time.monotonic() + retry_pause(self._failures)
        hypervisor = Hypervisor(uri, patience=PATIENCE)
        try:
            self._connection += 1
            hypervisor.watch(partial(self._told, self._connection))
        except BaseException:
            hypervisor.close()
            raise
        self.hypervisor, self._failures = hypervisor, 0

    def disconnect(self) -> None:
        """Close the connection; the next try finds out whether libvirt is there."""
        if self.hypervisor is not None:
            self.hypervisor.close()
            self.hypervisor, self.due = None, 0.0

    def lost(self, told: Told) -> None:
        """Disconnect where the lost connection is this one, and not one before it."""
        if told.connection == self._connection:
            self.disconnect()

    def _told(self, connection: int, event: Event) -> None:
        self._hear(Told(connection, event))
