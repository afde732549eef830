"""What libvirt tells of its guests by itself."""

import enum

from ramshelf.core.record import dataclass


class What(enum.Enum):
    """What has happened, as far as it matters to the store."""

    STARTED = "started"
    STOPPED = "stopped"
    MEMORY = "memory"
    """A device was added, removed or resized."""
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    """It was suspended and resumed, as before and after a dump, which reads all of its memory."""
    READ = "read"
    """A pass over all of the guest's memory has begun, for a migration, a snapshot or a save."""
    BALLOON = "balloon"
    """The guest was given memory, or has given some back: its files stay as large as they are."""
    LOST = "lost"
    """The connection to libvirt has ended, or does not answer any more."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that libvirt has told.

    ``reason`` is libvirt's word for why, such as ``booted`` or ``crashed``, '' where it gives none.
    """

    what: What
    guest: str = ""
    uuid: str = ""
    reason: str = ""
