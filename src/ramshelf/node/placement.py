"""Bringing Placement and this host to agree.

That is the pass that the agent repeats, and the claim around the start of a guest.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

from ramshelf.core.config import Config
from ramshelf.core.doctor.checks.placement import judge_provider, ratio, unserved
from ramshelf.core.domain.memory import Guest
from ramshelf.core.errors import RamshelfError, RefusedError, ServiceError
from ramshelf.core.findings import Finding
from ramshelf.core.placement import (
    Allocate,
    Change,
    Claim,
    Comparison,
    Free,
    MakeProvider,
    Observed,
    SetInventory,
    SetTraits,
    Truth,
    Write,
    after,
    may_write,
    plan,
)
from ramshelf.core.store.capacity import capacity
from ramshelf.core.store.earlier import granted
from ramshelf.core.store.find import Store
from ramshelf.core.store.holdings import Holding
from ramshelf.core.units import MIB, align_up, to_mib
from ramshelf.node.store.holdings import observe_holdings
from ramshelf.system.backingstore import ObservedStore, observe_store
from ramshelf.system.claims import being_made, in_the_making
from ramshelf.system.earlier import hook_is_earlier, read_promises
from ramshelf.system.hypervisor import Domain, Hypervisor
from ramshelf.system.placement import Placement, connect
from ramshelf.system.processes import nova_compute

_TRIES = 5
"""The most tries of a pass where somebody else changes the provider meanwhile."""

_TOGETHER = 50
"""The most guests that are given their allocations by one request."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one pass found and did.

    ``code`` is stable. ``placement.reported``: the provider is ours and agrees now.
    ``placement.compared``: it is nova-compute's, or nobody asked for one, and nothing was written.
    Any other code is that of a ServiceError, such as ``placement.unreachable``, and says why the
    pass could not be finished; ``sentence`` and ``hint`` say it to a person, and it is among the
    findings.

    ``written`` holds a sentence for each change that was made, also where the pass was not
    finished. The figures are Placement's after the pass, None where they are not known.
    """

    code: str
    sentence: str
    hint: str = ""
    owned: bool = False
    provider: str | None = None
    total_mib: int | None = None
    reserved_mib: int | None = None
    allocated_mib: int | None = None
    written: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def done(self) -> bool:
        """Whether the pass was finished; findings may be left all the same."""
        return self.code in {"placement.reported", "placement.compared"}


def look_at_host(hypervisor: Hypervisor, config: Config) -> Truth:
    """Return this host as it is now, by one look at the store and one question to libvirt."""
    observed = observe_store()
    domains, held = observe_holdings(hypervisor, observed)
    return truth(observed, domains, held, config, nova=nova_owns(config))


def truth(
    observed: ObservedStore,
    domains: Mapping[str, Domain],
    held: Iterable[Holding],
    config: Config,
    *,
    nova: str,
) -> Truth:
    """Return this host as ``observe_store`` and then ``observe_holdings`` have seen it.

    Where it is nova-compute's (``nova``, see ``nova_owns``) the capacity is all that the store can
    hold, so that it can be held against what nova-compute reports; else it is no more than is
    configured.
    """
    if observed.usage is None or not isinstance(observed.store, Store):
        return Truth(kind=None, capacity_mib=0, unowned_mib=0, guests=(), nova=nova)
    configured = None if nova else config.file_backed_memory_mib
    total = capacity(observed.usage, configured_mib=configured).total
    guests: list[Claim] = []
    unowned = 0
    for holding in held:
        promised = _mib(holding.promised)
        if holding.guest is None:
            unowned += promised
        else:
            uuid = domains[holding.guest].uuid
            guests.append(Claim(uuid=uuid, name=holding.guest, memory_mib=promised))
    return Truth(
        kind=observed.store.kind,
        capacity_mib=to_mib(total),
        unowned_mib=unowned,
        guests=tuple(guests),
        nova=nova,
    )


def nova_owns(config: Config) -> str:
    """Return why this host is nova-compute's, or '' where it is not.

    It is where Nova's configuration is read, or nova-compute runs here.
    """
    if config.nova_files:
        return f"Nova's configuration is read, {config.nova_files[-1]}"
    pid = nova_compute()
    return f"nova-compute runs here, process {pid}" if pid else ""


def reconcile(placement: Placement, look: Callable[[], Truth]) -> Report:
    """Make Placement agree with this host, in one pass.

    This never raises for a Placement that does not serve. ``look`` is called after Placement was
    read (and again where somebody else changed it meanwhile), and must look anew: an allocation
    whose guest is not among the guests is taken for a leftover and removed. What ``look`` raises
    goes through. The number of changes is bounded; what is left is for the next pass.
    """
    written: list[str] = []
    for attempt in range(1, _TRIES + 1):
        try:
            observed = placement.observe()
        except RamshelfError as error:
            return _unfinished(error, written)
        starting = in_the_making()
        host = look()
        try:
            return _brought_to_agree(placement, host, observed, starting, written)
        except RamshelfError as error:
            if error.code != "placement.conflict" or attempt == _TRIES:
                return _unfinished(error, written)
    raise AssertionError


def compare(placement: Placement, look: Callable[[], Truth]) -> Comparison:
    """Compare both sides, changing nothing.

    Raises ServiceError ``placement.*``, and what ``look`` raises.
    """
    host = look()
    observed = placement.observe()
    return Comparison(
        truth=host, observed=observed, owner=placement.owner, starting=in_the_making()
    )


def _brought_to_agree(
    placement: Placement,
    host: Truth,
    observed: Observed,
    starting: frozenset[str],
    written: list[str],
) -> Report:
    owned = may_write(host, observed, owner=placement.owner)
    now = observed
    refused: list[Finding] = []
    writes = plan(host, observed, starting) if owned else ()
    for write, then in _applied(placement, observed, writes, refused):
        written.append(str(write))
        now = then
    findings = (
        *refused,
        *judge_provider(
            Comparison(truth=host, observed=now, owner=placement.owner, starting=starting)
        ),
    )
    if owned and observed.inventory is not None and observed.inventory.allocation_ratio != 1.0:
        findings = (ratio(observed, observed.inventory, ours=True), *findings)
    inventory = now.inventory
    return Report(
        code="placement.reported" if owned else "placement.compared",
        sentence=_sentence(host, now, owned=owned),
        owned=owned,
        provider=now.provider,
        total_mib=inventory.total if inventory else None,
        reserved_mib=inventory.reserved if inventory else None,
        allocated_mib=now.allocated_mib if now.provider else None,
        written=tuple(written),
        findings=findings,
    )


def _applied(
    placement: Placement, observed: Observed, writes: Iterable[Write], refused: list[Finding]
) -> Iterator[tuple[Write, Observed]]:
    """Do the writes, and yield each as it is done, with what Placement says then.

    A write for which there is no room is left out. So is one whose consumer Placement refuses: that
    is put into ``refused``, and the other writes go on.
    """
    new: list[Allocate] = []
    for write in writes:
        match write:
            case MakeProvider() | SetInventory() | SetTraits():
                before, observed = observed, placement.apply(write, observed)
                if observed != before:
                    yield write, observed
            case Free() | Change():
                if _settled(placement, write, refused):
                    observed = after(observed, write)
                    yield write, observed
            case Allocate():
                new.append(write)
    for start in range(0, len(new), _TOGETHER):
        chunk = new[start : start + _TOGETHER]
        together = placement.allocate([write.claim for write in chunk])
        for write in chunk:
            if together or _settled(placement, write, refused):
                observed = after(observed, write)
                yield write, observed


def _settled(placement: Placement, write: Free | Change | Allocate, refused: list[Finding]) -> bool:
    try:
        return placement.settle(write)
    except ServiceError as error:
        if error.code != "placement.consumer":
            raise
        refused.append(unserved(error))
        return False


def _sentence(host: Truth, now: Observed, *, owned: bool) -> str:
    if now.provider is None:
        return f"Placement has no resource provider {now.host}, and none is made."
    if now.inventory is None:
        return f"Placement has no memory of {now.host}."
    whose = "ramshelf reports" if owned else "somebody else reports"
    guests = f"{len(host.guests)} guest{'' if len(host.guests) == 1 else 's'}"
    return (
        f"{now.host}: {whose} {now.inventory.total} MiB, {now.allocated_mib} MiB of them allocated;"
        f" {guests} {'runs' if len(host.guests) == 1 else 'run'} from the store."
    )


def _unfinished(error: RamshelfError, written: Iterable[str]) -> Report:
    return Report(
        code=error.code,
        sentence=error.sentence,
        hint=error.hint,
        written=tuple(written),
        findings=(unserved(error),),
    )


@contextmanager
def claimed(hypervisor: Hypervisor, config: Config, guest: Guest) -> Iterator[tuple[Finding, ...]]:
    """Have the guest's allocation in Placement while the guest starts.

    The allocation goes again where the start fails. Nothing is claimed for a guest that is not
    file-backed, nor where Placement is not used or the provider is not ramshelf's. Raises
    RefusedError ``placement.full`` where Placement has no room. Where Placement does not serve,
    raises ServiceError ``placement.*`` if ``placement_required`` is set, else yields a finding that
    says so.
    """
    placement = own_provider(hypervisor, config)
    if placement is None or not guest.file_backed:
        yield ()
        return
    wanted = Claim(uuid=str(UUID(guest.uuid)), name=guest.name, memory_mib=_mib(guest.promise))
    with placement, being_made(wanted.uuid):
        notes = _claim(
            placement, wanted, promised=_was_promised(guest), required=config.placement_required
        )
        try:
            yield notes
        except BaseException:
            with suppress(RamshelfError):  # otherwise the agent removes what is left
                placement.release(wanted.uuid)
            raise


def _was_promised(guest: Guest) -> bool:
    """Tell whether the guest may start whatever the capacity is now (core/store/earlier.py)."""
    return hook_is_earlier() or guest.promise <= granted(read_promises(), guest.uuid)


def _claim(
    placement: Placement, wanted: Claim, *, promised: bool, required: bool
) -> tuple[Finding, ...]:
    try:
        placement.claim(wanted, promised=promised)
    except RefusedError:
        raise
    except RamshelfError as error:
        if required:
            raise
        return (unserved(error),)
    return ()


def release(hypervisor: Hypervisor, config: Config, domain: Domain) -> None:
    """Remove a guest's allocation after its end, unless the guest runs again.

    What fails is left to the agent.
    """
    placement = own_provider(hypervisor, config)
    if placement is None:
        return
    with suppress(RamshelfError), placement, being_made(domain.uuid):
        if domain.uuid not in {running.uuid for running in hypervisor.active()}:
            placement.release(domain.uuid)


def own_provider(hypervisor: Hypervisor, config: Config) -> Placement | None:
    """Return Placement where ramshelf is to own the provider.

    Return None where there is nothing to claim or release.
    """
    if config.placement_mode == "none" or not config.placement_owner or nova_owns(config):
        return None
    return connect(config, hypervisor.host_name())


def _mib(size: int) -> int:
    return to_mib(align_up(size, MIB))
