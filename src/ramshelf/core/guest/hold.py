"""What becomes of a guest that was paused for a moment by somebody who died before it was resumed.

It is resumed, if it is still paused as it was then: at somebody's request. libvirt does nothing,
and keeps no record of it, when a guest is to be paused that is paused already; so whoever has asked
for that since is not known, and the guest goes on, as it does at the end of every such moment. The
other way round a guest would stay stopped that nobody wanted to stop. One that has been resumed
since is left as it is.
"""

from enum import Enum, auto

PAUSABLE = frozenset({"running", "idle", "paused"})
"""The states of a guest that can be held still, in virsh's words."""

LIBVIRT_WAIT = 60.0
"""Seconds in which libvirt may still do what a dead process has asked for: it waits 30 s for other
jobs."""


class Left(Enum):
    """What to do for such a guest: ``FORGET`` that it was paused, ``RESUME`` it, see to it ``LATER``."""

    FORGET = auto()
    RESUME = auto()
    LATER = auto()


def left(state: str, *, requested: bool, busy: bool) -> Left:
    """What to do for a guest in this state.

    ``requested``: it is paused since somebody asked for it, not by an error or a migration.
    ``busy``: it is being saved, dumped or migrated, which may have paused it, and is not to be
    disturbed. One that runs is to be resumed as well: libvirt says that there is nothing to resume,
    but first waits for a pause that is under way.
    """
    if state not in PAUSABLE:
        return Left.FORGET
    if busy:
        return Left.LATER
    return Left.RESUME if requested or state != "paused" else Left.FORGET
