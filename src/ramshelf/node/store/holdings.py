"""Who holds what on the store of this host."""

import os
from collections.abc import Iterable

from ramshelf.core.store.directory import directory_names
from ramshelf.core.store.holdings import Holding, holdings
from ramshelf.system.backingstore import ObservedStore
from ramshelf.system.hypervisor import Domain, Hypervisor


def observe_holdings(
    hypervisor: Hypervisor | None, observed: ObservedStore
) -> tuple[dict[str, Domain], tuple[Holding, ...]]:
    """Return the running guests by name, and the directories on the store with who holds them.

    The directories were looked at before. A guest that has started since holds none of them; a
    directory whose guest has ended since is left out.
    """
    return held_by(hypervisor.active() if hypervisor is not None else (), observed)


def held_by(
    active: Iterable[Domain], observed: ObservedStore
) -> tuple[dict[str, Domain], tuple[Holding, ...]]:
    """Do as ``observe_holdings``, with guests that were found to run after the store was seen."""
    domains = {domain.name: domain for domain in active}
    guests = {
        directory: domain.name
        for domain in domains.values()
        for directory in directory_names(domain.domain_id or 0, domain.name)
    }
    held = holdings(observed.usage, guests) if observed.usage is not None else ()
    return domains, tuple(
        holding
        for holding in held
        if holding.guest is not None or os.path.lexists(holding.directory)
    )
