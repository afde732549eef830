"""What becomes of a guest that was paused for a moment by a process that died before resuming it.

It is resumed if it is still paused as it was then, which is at somebody's request. When a guest
that is paused already is to be paused, libvirt does nothing and keeps no record. So it is not known
whether anybody has asked for that since, and the guest goes on. Otherwise a guest that nobody
wanted to stop would stay stopped. A guest that has been resumed since is left as it is.
"""

from enum import Enum, auto

PAUSABLE = frozenset({"running", "idle", "paused"})
"""The states of a guest that can be held still, in virsh's words."""

LIBVIRT_WAIT = 60.0
"""Seconds in which libvirt may still do what a dead process has asked for.

libvirt waits 30 s for other jobs.
"""

IN_THE_WAY = frozenset({"outgoing migration", "save", "snapshot", "dump"})
"""libvirt's jobs, in virsh's words, during which a guest that is paused cannot be resumed.

One that begins between a pause for a moment and the request to resume takes the guest for one that
somebody has paused. The guest would arrive, or be restored, as such.
"""


class Left(Enum):
    """What to do for such a guest.

    ``FORGET``: forget that it was paused. ``RESUME``: resume it. ``LATER``: look at it again later.
    """

    FORGET = auto()
    RESUME = auto()
    LATER = auto()


def left(state: str, *, requested: bool, busy: bool) -> Left:
    """Decide what to do for a guest in this state.

    ``requested``: it is paused because somebody asked for it, not because of an error or a
    migration. ``busy``: it is being saved, dumped or migrated, which may have paused it, and is not
    to be disturbed. A guest that runs is to be resumed as well: libvirt says that there is nothing
    to resume, but first waits for a pause that is under way.
    """
    if state not in PAUSABLE:
        return Left.FORGET
    if busy:
        return Left.LATER
    return Left.RESUME if requested or state != "paused" else Left.FORGET
