"""Checks of what Placement says of this host, against the host."""

from collections.abc import Iterator
from typing import Any

from ramshelf.core.catalog import RULES, finding
from ramshelf.core.doctor.facts import Facts
from ramshelf.core.errors import RamshelfError
from ramshelf.core.findings import Finding
from ramshelf.core.placement import (
    TRAIT,
    Comparison,
    Inventory,
    Observed,
    Truth,
    may_write,
    provider_uuid,
    wanted_inventory,
    wanted_traits,
)

_NAMED = 5
"""The number of guests that a sentence names."""


def check_placement(facts: Facts) -> Iterator[Finding]:
    """Yield what the doctor says of Placement; nothing where it is not used."""
    if isinstance(facts.placement, RamshelfError):
        yield unserved(facts.placement)
    elif facts.placement is not None:
        yield from judge_provider(facts.placement)


def judge_provider(compared: Comparison) -> tuple[Finding, ...]:
    """Return all findings about what Placement says of this host."""
    truth, observed = compared.truth, compared.observed
    ours = may_write(truth, observed, owner=compared.owner)
    found = [*_renamed(observed), *(_owned if ours else _beside)(compared)]
    if not found:
        assert observed.inventory is not None  # noqa: S101 - else there is a finding
        found.append(
            finding(
                "placement.ok",
                f"Placement has {observed.inventory.total} MiB of {observed.host}, "
                f"{observed.allocated_mib} MiB of them allocated.",
                **_figures(truth, observed),
            )
        )
    return tuple(found)


def unserved(error: RamshelfError) -> Finding:
    """Return the finding for a Placement that does not serve."""
    code = error.code if error.code in RULES else "placement.error"
    facts: dict[str, Any] = {**error.facts}
    return finding(code, error.sentence, hint=error.hint, **facts)


def _renamed(observed: Observed) -> Iterator[Finding]:
    """Yield a finding for each provider that this host has had under another name.

    What one store can hold is offered by each of them.
    """
    for former in observed.former:
        yield finding(
            "placement.renamed",
            f"Placement has this host a second time, as {former.name}: what its store can hold "
            "counts twice.",
            hint=(
                "If this host once had that name, take from the guests what they hold there "
                f"('openstack resource provider show --allocations {former.uuid}', then for "
                "each 'openstack resource provider allocation unset --provider "
                f"{former.uuid} GUEST'), and 'openstack resource provider delete "
                f"{former.uuid}'. If that is another machine, "
                "it is a clone of this one: give it an /etc/machine-id of its own."
            ),
            provider=former.uuid,
            name=former.name,
        )


def _owned(compared: Comparison) -> Iterator[Finding]:
    """Check a provider that is ramshelf's to write.

    What disagrees is still to be written, or cannot be.
    """
    truth, observed = compared.truth, compared.observed
    if truth.kind is None and observed.provider is None:
        yield finding(
            "placement.no-store", "There is no store, so nothing is reported of this host."
        )
        return
    if truth.promised_mib > truth.capacity_mib:
        yield finding(
            "placement.shrunk",
            f"The store can hold {truth.capacity_mib} MiB, and {truth.promised_mib} MiB of it are "
            f"promised: {truth.promised_mib - truth.capacity_mib} MiB too much.",
            capacity_mib=truth.capacity_mib,
            promised_mib=truth.promised_mib,
        )
    inventory = observed.inventory
    if inventory is not None and inventory.allocation_ratio != 1.0:
        yield ratio(observed, inventory, ours=True)
    traits = wanted_traits(truth, observed)
    if (
        observed.provider is None
        or inventory != wanted_inventory(truth, observed, compared.starting)
        or traits - observed.traits - {TRAIT, observed.identity}
    ):
        yield finding(
            "placement.differs",
            f"Placement has {inventory.total if inventory else 'no'} MiB of {observed.host}, and "
            f"the store can hold {truth.capacity_mib} MiB.",
            **_figures(truth, observed),
        )
    elif TRAIT in traits - observed.traits:
        yield _no_trait(observed)
    yield from _guests(truth, observed)
    left = observed.allocations.keys() - {guest.uuid for guest in truth.guests} - compared.starting
    if left:
        yield finding(
            "placement.leftover",
            f"{_some(sorted(left))} hold allocations on {observed.host} and do not run here.",
            consumers=sorted(left),
        )


def _beside(compared: Comparison) -> Iterator[Finding]:
    """Check a provider that is not ramshelf's to write: it is only looked at.

    It is nova-compute's, or nobody has asked for it.
    """
    truth, observed = compared.truth, compared.observed
    inventory = observed.inventory
    if observed.ours and truth.nova:
        yield finding(
            "placement.in-the-way",
            f"ramshelf's own provider {observed.host} ({observed.provider}) keeps nova-compute from"
            f" making one ({truth.nova}).",
            hint=(
                "Stop the guests that ramshelf started, then: openstack resource provider delete "
                f"{observed.provider}."
            ),
            provider=observed.provider,
        )
    elif compared.owner:
        why = truth.nova or f"Placement's provider {observed.host} has the UUID {observed.provider}"
        yield finding(
            "placement.not-ours",
            f"placement_owner is set, and this host is not ramshelf's to report: {why}.",
            provider=observed.provider,
            own_provider=provider_uuid(observed.host),
        )
    if observed.provider is None:
        yield finding(
            "placement.no-provider", f"Placement has no resource provider {observed.host}."
        )
        return
    if inventory is None:
        yield finding(
            "placement.no-inventory",
            f"Placement has no inventory of MEMORY_MB for {observed.host}.",
        )
    else:
        yield from _nova_inventory(truth, observed, inventory)
    if truth.kind is not None:
        if TRAIT not in observed.traits:
            yield _no_trait(observed)
        if truth.nova and truth.kind.trait not in observed.traits:
            yield finding(
                "placement.no-kind-trait",
                f"{observed.host} does not say which kind of store it has ({truth.kind.trait}).",
                trait=truth.kind.trait,
            )
    yield from _guests(truth, observed)


def _nova_inventory(truth: Truth, observed: Observed, inventory: Inventory) -> Iterator[Finding]:
    if inventory.total > truth.capacity_mib:
        yield finding(
            "placement.exceeds-store",
            f"Placement has {inventory.total} MiB of {observed.host}, and the store can hold "
            f"{truth.capacity_mib} MiB.",
            **_figures(truth, observed),
        )
    elif inventory.total < 0.9 * truth.capacity_mib:
        yield finding(
            "placement.below-store",
            f"Placement has {inventory.total} MiB of the {truth.capacity_mib} MiB that the store of"
            f" {observed.host} can hold.",
            **_figures(truth, observed),
        )
    if inventory.allocation_ratio != 1.0:
        yield ratio(observed, inventory, ours=False)
    if observed.allocated_mib > truth.capacity_mib:
        yield finding(
            "placement.overcommitted",
            f"{observed.allocated_mib} MiB are allocated on {observed.host}, whose store can hold "
            f"{truth.capacity_mib} MiB.",
            **_figures(truth, observed),
        )


def ratio(observed: Observed, inventory: Inventory, *, ours: bool) -> Finding:
    """Return the finding for an overcommit that somebody has introduced."""
    return finding(
        "placement.allocation-ratio",
        f"The allocation_ratio of {observed.host} is {inventory.allocation_ratio:g} in Placement, "
        "not 1: more guests are placed than the store can hold.",
        milder=ours,
        allocation_ratio=inventory.allocation_ratio,
    )


def _guests(truth: Truth, observed: Observed) -> Iterator[Finding]:
    short = [
        guest
        for guest in truth.guests
        if guest.uuid not in observed.allocations
        or observed.allocations[guest.uuid].memory_mib < guest.memory_mib
    ]
    if short:
        yield finding(
            "placement.unallocated",
            f"{_some([guest.name for guest in short])} run from the store of {observed.host} with "
            f"less than they need allocated in Placement, {_missing(truth, observed)} MiB too "
            "little altogether.",
            guests=[guest.name for guest in short],
        )


def _missing(truth: Truth, observed: Observed) -> int:
    held = {
        consumer: allocation.memory_mib for consumer, allocation in observed.allocations.items()
    }
    return sum(max(0, guest.memory_mib - held.get(guest.uuid, 0)) for guest in truth.guests)


def _no_trait(observed: Observed) -> Finding:
    return finding(
        "placement.no-trait", f"{observed.host} does not have the trait {TRAIT}.", trait=TRAIT
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _figures(truth: Truth, observed: Observed) -> dict[str, Any]:
    inventory = observed.inventory
    return {
        "provider": observed.provider,
        "total_mib": inventory.total if inventory else None,
        "reserved_mib": inventory.reserved if inventory else None,
        "allocated_mib": observed.allocated_mib,
        "capacity_mib": truth.capacity_mib,
    }
