"""What Placement is to say of this host, held against what it says.

The words are Placement's: a resource provider (the host) has inventory (MEMORY_MB), traits, and
allocations, each held by a consumer (a guest, by its domain's UUID). Sizes are in MiB, Placement's
unit for memory.
"""

import dataclasses
import json
import re
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import field
from itertools import islice

from ramshelf.core.record import dataclass, replace
from ramshelf.core.store.kind import TRAIT_PREFIX, Kind

MICROVERSION = "1.28"
"""The microversion of every request: that of Rocky, which brought file-backed memory to Nova.

It guards allocations by the consumer's generation (1.28), may reserve all of an inventory (1.26),
and gives each error a code (1.23).
"""

RESOURCE_CLASS = "MEMORY_MB"
TRAIT = "COMPUTE_MEM_BACKING_FILE"
"""Nova's trait for a host whose guests' memory is file-backed.

It is a standard trait, so it is nova-compute's to set.
"""

_PROVIDERS = uuid.UUID("b8a1a1d0-6c0d-5f2b-9d0e-3b1f5d8a7c42")
"""ramshelf's own namespace for resource providers; it must never change."""

HOST_PREFIX = "CUSTOM_RAMSHELF_HOST_"
"""The beginning of the trait by which a host knows the providers that it has had.

It knows them whatever the host was called then.
"""

MOST_SINGLE, MOST_NEW = 100, 1000
"""The most allocations that one pass removes or changes, and the most that it makes.

Each that is removed or changed takes two requests; many are made by one.
"""


def provider_uuid(host: str) -> str:
    """Return the UUID of the provider that ramshelf owns on this host.

    ramshelf knows its own provider by it. A provider of the host's name with any other UUID belongs
    to somebody else, nova-compute as a rule.
    """
    return str(uuid.uuid5(_PROVIDERS, host))


def host_trait(machine_id: str) -> str:
    """Return the trait of the host that has this /etc/machine-id.

    It is '' where the host has no machine id, as before its first boot. machine-id(5) asks not to
    give the id itself away: it is hashed.
    """
    if re.fullmatch("[0-9a-f]{32}", machine_id) is None:
        return ""
    return f"{HOST_PREFIX}{uuid.uuid5(_PROVIDERS, machine_id).hex.upper()}"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a guest needs.

    ``uuid`` is the domain's, ``memory_mib`` all that the store promises it.
    """

    uuid: str
    name: str
    memory_mib: int


@dataclass(frozen=True, kw_only=True)
class Truth:
    """This host at one moment, as libvirt and the store have it.

    ``kind`` is None and ``capacity_mib`` 0 where there is no store. ``unowned_mib`` is promised on
    the store to nobody who runs. ``guests`` are those that run from the store. ``nova`` says why
    this host is nova-compute's, '' where it is not.
    """

    kind: Kind | None
    capacity_mib: int
    unowned_mib: int
    guests: tuple[Claim, ...]
    nova: str

    @property
    def promised_mib(self) -> int:
        """All that the store has promised."""
        return self.unowned_mib + sum(guest.memory_mib for guest in self.guests)


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """An inventory of MEMORY_MB.

    What may be allocated is (total - reserved) * allocation_ratio.
    """

    total: int
    reserved: int = 0
    min_unit: int = 1
    max_unit: int
    step_size: int = 1
    allocation_ratio: float = 1.0


@dataclasses.dataclass(frozen=True)
class Allocation:
    """The MEMORY_MB of one consumer.

    ``generation`` is the consumer's, which any change of it raises.
    """

    memory_mib: int
    generation: int | None


@dataclass(frozen=True, kw_only=True)
class Former:
    """A provider that ramshelf has made for this host under another name."""

    uuid: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What Placement says of the provider of this host's name.

    ``provider`` is its UUID, None where there is no such provider. ``identity`` is the host's own
    trait, '' where it has none. ``former`` are the other providers that have this trait.
    """

    host: str
    identity: str = ""
    former: tuple[Former, ...] = ()
    provider: str | None = None
    generation: int = 0
    inventory: Inventory | None = None
    traits: frozenset[str] = frozenset()
    allocations: Mapping[str, Allocation] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether ramshelf has made this provider."""
        return self.provider == provider_uuid(self.host)

    @property
    def allocated_mib(self) -> int:
        """The memory that all consumers hold together."""
        return sum(allocation.memory_mib for allocation in self.allocations.values())

    @property
    def room_mib(self) -> int:
        """The memory that all consumers may hold together."""
        inventory = self.inventory
        return (
            int((inventory.total - inventory.reserved) * inventory.allocation_ratio)
            if inventory
            else 0
        )

    @property
    def free_mib(self) -> int:
        """The part of the room that nobody holds."""
        return max(0, self.room_mib - self.allocated_mib)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Both sides, looked at one after the other.

    The host is looked at first, so that who runs has claimed before. ``owner`` says that the
    configuration asks ramshelf to own the provider; ``starting`` are guests whose allocation is
    made before they run.
    """

    truth: Truth
    observed: Observed
    owner: bool
    starting: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class MakeProvider:
    """Make the host's provider."""

    uuid: str
    name: str

    def __str__(self) -> str:
        return f"Made the resource provider {self.name} ({self.uuid})."


@dataclass(frozen=True, kw_only=True)
class SetInventory:
    """Set the inventory of MEMORY_MB, leaving those of other classes."""

    inventory: Inventory

    def __str__(self) -> str:
        reserved = (
            f", {self.inventory.reserved} of them reserved" if self.inventory.reserved else ""
        )
        return f"Set the inventory to {self.inventory.total} MiB{reserved}."


@dataclass(frozen=True, kw_only=True)
class SetTraits:
    """Set the provider's traits to exactly these."""

    traits: frozenset[str]

    def __str__(self) -> str:
        return f"Set the traits to {', '.join(sorted(self.traits)) or 'none'}."


@dataclass(frozen=True, kw_only=True)
class Free:
    """Remove what a consumer holds that does not run here, if it is still of this generation."""

    uuid: str
    allocation: Allocation

    def __str__(self) -> str:
        return (
            f"Removed the allocation of {self.uuid}, {self.allocation.memory_mib} MiB: it does not "
            "run here."
        )


@dataclass(frozen=True, kw_only=True)
class Change:
    """Set what a running guest holds to what it needs, if it is still of this generation."""

    claim: Claim
    allocation: Allocation

    def __str__(self) -> str:
        return (
            f"Set the allocation of {self.claim.name} from {self.allocation.memory_mib} "
            f"to {self.claim.memory_mib} MiB."
        )


@dataclass(frozen=True, kw_only=True)
class Allocate:
    """Give a running guest what it needs and does not hold."""

    claim: Claim

    def __str__(self) -> str:
        return f"Allocated {self.claim.memory_mib} MiB to {self.claim.name}, which runs here."


Write = MakeProvider | SetInventory | SetTraits | Free | Change | Allocate


def may_write(truth: Truth, observed: Observed, *, owner: bool) -> bool:
    """Tell whether this host's provider is ramshelf's to write: asked for, and nobody else's.

    A provider that ramshelf made where nova-compute comes to start would keep it from starting
    (Nova's report client refuses a provider of its name with another UUID).
    """
    return owner and not truth.nova and (observed.provider is None or observed.ours)


def wanted_inventory(
    truth: Truth, observed: Observed, starting: Collection[str] = frozenset()
) -> Inventory:
    """Return the inventory that shows the store as Placement is to see it.

    Where there is no store all of it is reserved, for 0 is no valid total. Where guests hold more
    than the store has capacity, the total is what they hold, and falls as they go: no further guest
    fits either way. With less, Placement refuses what Nova does to move a guest that holds more
    than max_unit to another host, and before 2025.2 to move any guest (_check_capacity_exceeded in
    placement/objects/allocation.py: the allocation goes to the migration first).
    """
    held = truth.promised_mib + _coming_mib(truth, observed, starting)
    total = max(1, truth.capacity_mib, held)
    reserved = truth.unowned_mib if truth.capacity_mib or held else total
    return Inventory(total=total, reserved=reserved, max_unit=total)


def with_room(observed: Observed, inventory: Inventory, wanted: Claim) -> Inventory:
    """Return the inventory with room for one more guest.

    The guest is promised its memory whatever the capacity is.
    """
    held = observed.allocations.get(wanted.uuid)
    others = observed.allocated_mib - (held.memory_mib if held else 0)
    total = max(inventory.total, inventory.reserved + others + wanted.memory_mib)
    return replace(inventory, total=total, max_unit=total)


def _coming_mib(truth: Truth, observed: Observed, starting: Collection[str]) -> int:
    """Return what guests hold that do not run yet: their allocations are made before they run."""
    running = {guest.uuid for guest in truth.guests}
    return sum(
        allocation.memory_mib
        for consumer, allocation in observed.allocations.items()
        if consumer in starting and consumer not in running
    )


def wanted_traits(truth: Truth, observed: Observed) -> frozenset[str]:
    """Return the traits as they are to be: ramshelf's own, and what others have added."""
    foreign = {
        trait
        for trait in observed.traits
        if trait != TRAIT and not trait.startswith((TRAIT_PREFIX, HOST_PREFIX))
    }
    identity = {observed.identity} if observed.identity else set()
    return frozenset(foreign | identity | ({TRAIT, truth.kind.trait} if truth.kind else set()))


def plan(
    truth: Truth, observed: Observed, starting: Collection[str] = frozenset()
) -> tuple[Write, ...]:
    """Return the writes that make Placement agree with this host, in order.

    Room is made before it is taken. ``starting`` are guests whose allocation is made before they
    run. The number of writes is bounded: what is left is for the next pass. A host without a store
    gets no provider.
    """
    if observed.provider is None and truth.kind is None:
        return ()
    single = islice(_corrections(truth, observed, starting), MOST_SINGLE)
    new = (
        Allocate(claim=guest) for guest in truth.guests if guest.uuid not in observed.allocations
    )
    return (*_describe(truth, observed, starting), *single, *islice(new, MOST_NEW))


def _describe(truth: Truth, observed: Observed, starting: Collection[str]) -> Iterator[Write]:
    if observed.provider is None:
        yield MakeProvider(uuid=provider_uuid(observed.host), name=observed.host)
    if observed.inventory != (inventory := wanted_inventory(truth, observed, starting)):
        yield SetInventory(inventory=inventory)
    if observed.traits != (traits := wanted_traits(truth, observed)):
        yield SetTraits(traits=traits)


def _corrections(truth: Truth, observed: Observed, starting: Collection[str]) -> Iterator[Write]:
    running = {guest.uuid: guest for guest in truth.guests}
    for consumer, allocation in observed.allocations.items():
        if consumer not in running and consumer not in starting:
            yield Free(uuid=consumer, allocation=allocation)
    different = [
        Change(claim=running[consumer], allocation=allocation)
        for consumer, allocation in observed.allocations.items()
        if consumer in running and allocation.memory_mib != running[consumer].memory_mib
    ]
    yield from sorted(
        different, key=lambda change: change.claim.memory_mib - change.allocation.memory_mib
    )


def after(observed: Observed, write: Write) -> Observed:
    """Return what Placement says when it has done this write."""
    allocations = dict(observed.allocations)
    match write:
        case MakeProvider():
            return replace(observed, provider=write.uuid)
        case SetInventory():
            return replace(observed, inventory=write.inventory)
        case SetTraits():
            return replace(observed, traits=write.traits)
        case Free():
            allocations.pop(write.uuid, None)
        case Change() | Allocate():
            allocations[write.claim.uuid] = Allocation(write.claim.memory_mib, None)
    return replace(observed, allocations=allocations)


def provider_config(host: str, kind: Kind) -> str:
    """Return a file for nova-compute's ``provider_config_location``.

    It is YAML of schema 1.0, which allows custom traits. It has all that ramshelf adds where the
    provider is nova-compute's (Nova's admin guide, "Managing Resource Providers Using Config
    Files").
    """
    return f"""\
# Made by 'ramshelf placement provider-config'; nova-compute reads it from its [compute]
# provider_config_location when it starts. Nova refuses two entries of the same name, and \
an entry by name
# hides one for $COMPUTE_NODE: where there is one already, add the trait there instead.
meta:
  schema_version: '1.0'
providers:
  - identification:
      name: {json.dumps(host)}
    traits:
      additional:
        - {kind.trait}
"""
