"""A guest's claim in Placement while the guest moves.

The claim is made there first, and is given up here once the guest has left. Both are held by the
guest itself, so that neither host is given more than it has, at any time. Each host's agent removes
what is held by guests that do not run there. On this host the guest runs until it has left, or is
noted in system/claims.py; on the other host it is expected (``announce``) until it has arrived.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from ramshelf.core.config import Config
from ramshelf.core.doctor.checks.placement import unserved
from ramshelf.core.domain.memory import Guest
from ramshelf.core.errors import RamshelfError, RefusedError
from ramshelf.core.findings import Finding
from ramshelf.core.placement import Claim
from ramshelf.core.units import MIB, align_up, to_mib
from ramshelf.node.migration.destination import announce
from ramshelf.node.placement import own_provider
from ramshelf.system.claims import being_made
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.placement import Placement


@dataclass(frozen=True, kw_only=True)
class MovedClaim:
    """The claim on the other host.

    ``again`` makes sure of it where much time has passed; it raises as ``moved_claim`` does.
    """

    notes: tuple[Finding, ...] = ()
    again: Callable[[], object] = lambda: None


@contextmanager
def moved_claim(
    here: Hypervisor, there: Hypervisor, config: Config, *, uuid: str, guest: Guest
) -> Iterator[MovedClaim]:
    """Have the guest's claim on the other host, too, while the guest moves.

    Afterwards the guest has a claim where it runs. ``guest`` is what it will be there. Nothing is
    written for a provider that is not ramshelf's own. Raises RefusedError ``placement.full``. Where
    Placement does not serve, raises ServiceError ``placement.*`` if ``placement_required`` is set,
    else a note says so.
    """
    placement = own_provider(here, config)
    if placement is None:
        yield MovedClaim()
        return
    identity = str(UUID(uuid))
    wanted = Claim(uuid=identity, name=guest.name, memory_mib=to_mib(align_up(guest.promise, MIB)))
    with placement, being_made(identity):
        elsewhere = placement.of(there.host_name())
        try:
            yield _claimed(elsewhere, there, wanted, required=config.placement_required)
        finally:
            # The agents put right what fails here, as they do where nobody comes this far.
            with suppress(RamshelfError):
                for hypervisor, share in ((there, elsewhere), (here, placement)):
                    if identity not in {each.uuid for each in hypervisor.active()}:
                        share.release(identity)


def _claimed(
    elsewhere: Placement, there: Hypervisor, wanted: Claim, *, required: bool
) -> MovedClaim:
    try:
        held = _claim(elsewhere, there, wanted)
    except RefusedError:
        raise
    except RamshelfError as error:
        if required:
            raise
        return MovedClaim(notes=(unserved(error),))
    return MovedClaim(again=partial(_claim, elsewhere, there, wanted)) if held else MovedClaim()


def _claim(elsewhere: Placement, there: Hypervisor, wanted: Claim) -> bool:
    """Claim the guest's memory on the other host; return whether it is claimed.

    It is where the provider is one of ramshelf's and the guest needs room there.
    """
    if not wanted.memory_mib or not elsewhere.observe().ours:
        return False
    announce(there, wanted.uuid)
    elsewhere.claim(wanted)
    return True
