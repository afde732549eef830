"""Resuming guests that were paused for a moment by a process that has died meanwhile.

That is done by whoever comes next: the guard of the dead process (node/guest/hold_guard.py), each
look of the agent, the next trim or stop, and what the hook leaves behind. system/heldnotes.py says
which guests these are; the hook's log tells which were resumed.
"""

import time
from contextlib import suppress

from ramshelf.core.errors import RamshelfError, RefusedError
from ramshelf.core.guest.hold import LIBVIRT_WAIT, Left, left
from ramshelf.system.heldnotes import HeldNote, orphaned, pending
from ramshelf.system.hooklog import record
from ramshelf.system.hypervisor import Domain, Hypervisor

_PATIENCE = 900
"""Seconds for libvirt to be there again and to have ended other jobs."""

_MOMENT = 5.0
"""Seconds, at most, to wait for the moment to pass in which somebody holds a guest."""


def resume_left(hypervisor: Hypervisor) -> tuple[RamshelfError, ...]:
    """Resume what was left paused; return the error of each guest for which that failed.

    Raises ServiceError ``libvirt.*`` where libvirt goes away. A guest that cannot be resumed yet is
    left to whoever comes next.
    """
    failed = []
    for name in orphaned():
        try:
            with suppress(BlockingIOError), HeldNote(name) as note:  # otherwise somebody is quicker
                _settle(hypervisor, note)
        except RamshelfError as error:
            if error.code == "libvirt.connection-lost":
                raise
            failed.append(error)
    return tuple(failed)


def until_resumed(uri: str, name: str) -> None:
    """Resume what was left paused as soon as that can be done, until this guest is resumed."""
    deadline = time.monotonic() + _PATIENCE
    while pending(name) and time.monotonic() < deadline:
        with suppress(RamshelfError), Hypervisor(uri) as hypervisor:
            resume_left(hypervisor)
        if pending(name):
            time.sleep(0.2)


def find_settled(hypervisor: Hypervisor, name: str) -> Domain:
    """Return the domain of this name, as ``Hypervisor.find``, once it is not held for a moment."""
    resume_left(hypervisor)
    deadline = time.monotonic() + _MOMENT
    while (domain := hypervisor.find(name)).state == "paused":
        if not pending(name) or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return domain


def _settle(hypervisor: Hypervisor, note: HeldNote) -> None:
    if note.domain_id is None:
        return
    try:
        domain = hypervisor.find(note.name)
        if (domain.domain_id, domain.uuid) != (note.domain_id, note.uuid):
            note.clear()  # it has ended
            return
        what = left(
            domain.state,
            requested=hypervisor.paused_by_request(note.domain_id),
            busy=hypervisor.busy(note.domain_id),
        )
        if what is Left.RESUME:
            hypervisor.resume(note.domain_id)
            record("resumed", guest=note.name, uuid=note.uuid, id=note.domain_id)
    except RefusedError as error:
        if error.code == "guest.not-found":
            note.clear()
        elif error.code != "guest.state":
            raise
        elif note.age > LIBVIRT_WAIT:  # it runs, and nothing is to pause it any more
            note.clear()
    else:
        if what is not Left.LATER:
            note.clear()
