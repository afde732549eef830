"""The guard of a guest that moves cold, and the two ends that such a move has.

In the end the guest runs there, or here again.

``python -m ramshelf.node.migration.cold_guard HERE THERE NAME TIMEOUT`` (node/guard.py) brings
about one of these where ``guest migrate --offline`` was killed, or could not find out which it is.
The hook's log tells which it was.
"""

import sys
import time
from uuid import UUID

from ramshelf.core.errors import HostError, RamshelfError, RefusedError
from ramshelf.core.findings import Finding, Severity
from ramshelf.node.guard import IDLE, listen
from ramshelf.node.guest.stop import runs
from ramshelf.system.claims import being_made
from ramshelf.system.hooklog import record
from ramshelf.system.hypervisor import Domain, Hypervisor

MOVING = "moving"
"""What the guard is told before the guest is asked to stop."""

_STOPS = 30
"""Seconds, besides the time-out, in which a guest may still end here.

That is how long libvirt waits for other jobs.
"""

_PATIENCE = 900
"""Seconds for the other host to answer, and for libvirt to be there."""

_ANSWER = 90
"""Seconds for one answer of the other host.

libvirt waits 30 s for a start to end before it gives one.
"""

_POLL = 0.5


def take_back(there: Hypervisor, domain: Domain) -> None:
    """Remove what there is of the guest there; what was begun there for it comes to nothing."""
    if _found(there, domain) is None:
        # It has not come that far, or somebody else was quicker to define a guest of that name.
        return
    there.undefine(domain.name)  # from here on nothing starts it
    if _found(there, domain) is not None:
        there.destroy(domain.name)


def start_again(here: Hypervisor, name: str, definition: str | None) -> None:
    """Start the guest here; ``definition`` is None where libvirt has kept it."""
    if definition is not None:
        here.define(definition)
    try:
        here.start(name)
    except RefusedError as error:
        if error.code != "guest.state":  # with that code somebody was quicker
            raise


def leave(here: Hypervisor, name: str) -> tuple[Finding, ...]:
    """Undefine the guest here.

    Return a note where libvirt does not do so, as with a guest that has snapshots.
    """
    if name not in here.names():
        return ()
    try:
        here.undefine(name)
    except RamshelfError as error:
        return (
            Finding(
                code="migration.still-defined",
                severity=Severity.WARNING,
                sentence=f"Guest {name} is still defined here, too: {error.sentence}",
                hint=f"Do not start it here: 'virsh undefine {name}', with what that asks for.",
            ),
        )
    return ()


def main(here_uri: str, there_uri: str, name: str, timeout: float) -> None:
    """See to it that the guest runs on one of the hosts and nothing of it is left on the other.

    ``timeout`` is how long the guest may take to stop (seconds); one that does not stop is left
    alone.
    """
    with Hypervisor(here_uri) as here:
        domain = here.find(name)
        definition = None if here.persistent(name) else here.definition(name)
    if listen() == IDLE:
        return
    facts = {"guest": name, "uuid": domain.uuid, "there": there_uri}
    deadline = time.monotonic() + _PATIENCE
    with being_made(str(UUID(domain.uuid))):  # its claim in Placement stays
        while True:
            try:
                with Hypervisor(here_uri) as here:
                    if not _ends(here, domain, timeout):
                        return
                    with Hypervisor(there_uri, elsewhere=True, patience=_ANSWER) as there:
                        event = _settle(here, there, domain, definition)
            except RamshelfError as error:
                if isinstance(error, RefusedError | HostError) or time.monotonic() > deadline:
                    record("move-left", **facts, code=error.code, reason=error.sentence)
                    return
                time.sleep(_POLL)
            else:
                record(event, **facts)
                return


def _ends(here: Hypervisor, domain: Domain, timeout: float) -> bool:
    """Tell whether the guest ends here in time, and nobody has started it here again since."""
    deadline = time.monotonic() + timeout + _STOPS
    while runs(here, domain):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return domain.name not in here.names(active=True)


def _settle(here: Hypervisor, there: Hypervisor, domain: Domain, definition: str | None) -> str:
    """Bring the move to one of its two ends; return the event for the hook's log."""
    there.progress(domain.name)  # waits for a start that goes on there
    found = _found(there, domain)
    left = definition is None and domain.name not in here.names()  # it has run there
    if left or (found is not None and found.active):
        leave(here, domain.name)
        return "move-finished"
    take_back(there, domain)
    start_again(here, domain.name, definition)
    return "move-undone"


def _found(there: Hypervisor, domain: Domain) -> Domain | None:
    """Return the domain as it is there; None where there is none of that name and UUID."""
    if domain.name not in there.names():
        return None
    found = there.find(domain.name)
    return found if found.uuid == domain.uuid else None


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
