"""How things are on a host: what ``ramshelf status`` shows, out of what the doctor knows."""

from ramshelf.core.config import Config
from ramshelf.core.doctor.checks import check
from ramshelf.core.doctor.facts import Facts, GuestFacts, StoreFacts
from ramshelf.core.findings import Finding
from ramshelf.core.hook.status import HookStatus
from ramshelf.core.host import LibvirtHost, Unknown
from ramshelf.core.record import dataclass
from ramshelf.core.store.capacity import Capacity, StoreUsage, capacity
from ramshelf.core.store.find import NoStore, Store

_NOT_TRIED = frozenset({"hook.seen-unknown"})
"""What the doctor finds out and the status does not try: no warning, but said to be unknown."""


@dataclass(frozen=True, kw_only=True)
class AgentState:
    """The agent of this host: whether its service is installed, and the process that is it."""

    installed: bool
    process: int | None


@dataclass(frozen=True, kw_only=True)
class GuestSums:
    """The guests that run: how many, how many of them file-backed, and what these hold.

    ``promised`` and ``used`` are in bytes; each is Unknown where that of one guest is.
    """

    running: int
    file_backed: int
    promised: int | Unknown
    used: int | Unknown


@dataclass(frozen=True, kw_only=True)
class Status:
    """One host at one moment; ``wrong`` are the doctor's warnings and failures."""

    off: bool
    libvirt: LibvirtHost | Unknown
    store: Store | NoStore | Unknown
    capacity: Capacity | Unknown
    hook: HookStatus | Unknown
    agent: AgentState
    guests: GuestSums | Unknown
    wrong: tuple[Finding, ...]


def summarise(facts: Facts, agent: AgentState) -> Status:
    """Return the status of a host whose facts were gathered without asking libvirt for the hook."""
    store: Store | NoStore | Unknown = (
        facts.store.store if isinstance(facts.store, StoreFacts) else facts.store
    )
    return Status(
        off=isinstance(facts.config, Config) and facts.config.off,
        libvirt=facts.hypervisor,
        store=store,
        capacity=_capacity(facts),
        hook=facts.hook,
        agent=agent,
        guests=_guests(facts),
        wrong=tuple(
            sorted(
                (
                    finding
                    for finding in check(facts)
                    if finding.severity.exit_status and finding.code not in _NOT_TRIED
                ),
                key=lambda finding: -finding.severity.exit_status,
            )
        ),
    )


def _capacity(facts: Facts) -> Capacity | Unknown:
    if isinstance(facts.store, Unknown):
        return facts.store
    usage = facts.store.usage
    if not isinstance(usage, StoreUsage):
        return usage
    limit = facts.config.limit.mib if isinstance(facts.config, Config) else None
    return capacity(usage, configured_mib=limit)


def _guests(facts: Facts) -> GuestSums | Unknown:
    if isinstance(facts.guests, Unknown):
        return facts.guests
    backed = [each for each in facts.guests if each.guest.file_backed]
    return GuestSums(
        running=len(facts.guests) + len(facts.odd_guests),
        file_backed=len(backed),
        promised=_sum([each.promised for each in backed]),
        used=_sum([_used(each) for each in backed]),
    )


def _used(each: GuestFacts) -> int | Unknown:
    if isinstance(each.memory_files, Unknown):
        return each.memory_files
    return sum(file.allocated for file in each.memory_files)


def _sum(parts: list[int | Unknown]) -> int | Unknown:
    total = 0
    for part in parts:
        if isinstance(part, Unknown):
            return part
        total += part
    return total
