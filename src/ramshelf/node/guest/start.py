"""Starting a guest: observe, plan (core/guest/start.py), apply."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from ramshelf.core.catalog import finding
from ramshelf.core.config import Config
from ramshelf.core.domain.backing import domain_name, parse_document
from ramshelf.core.domain.memory import Guest
from ramshelf.core.domain.private import private_mapping
from ramshelf.core.errors import InterruptedByUserError, RamshelfError, RefusedError
from ramshelf.core.findings import Finding
from ramshelf.core.guest.start import (
    Existing,
    Plan,
    StartFacts,
    plan_start,
    same_uuid,
    steps,
    with_holders,
)
from ramshelf.core.hook.status import HookStatus
from ramshelf.core.plan import Step
from ramshelf.core.ram import Balance, admit_ram, balance
from ramshelf.core.record import replace
from ramshelf.core.store.capacity import Capacity, capacity
from ramshelf.core.store.find import Store
from ramshelf.core.store.holdings import Holding
from ramshelf.core.store.ledger import note_of
from ramshelf.core.units import MIB
from ramshelf.node.guest.look import described
from ramshelf.node.guest.support import observe_support
from ramshelf.node.hook import manage
from ramshelf.node.placement import claimed
from ramshelf.node.store.holdings import observe_holdings
from ramshelf.system.backingstore import observe_store
from ramshelf.system.counters import bytes_written
from ramshelf.system.earlier import hook_is_earlier, read_promises
from ramshelf.system.hooklog import record
from ramshelf.system.hypervisor import Domain, Hypervisor
from ramshelf.system.procfs import host_ram


@dataclass(frozen=True, kw_only=True)
class Started:
    """A guest that was started, or ran before.

    ``already``: it ran before, and nothing was done. ``written``: bytes that went to the store's
    device meanwhile, whoever wrote them; None without a store. ``guarded``: the hook works, so what
    the guest is promised is reserved; else the guest passed by a bypass.
    """

    name: str
    guest: Guest
    already: bool
    seconds: float
    notes: tuple[Finding, ...]
    written: int | None = None
    guarded: bool = True


def start_guest(
    hypervisor: Hypervisor,
    config: Config,
    wanted: str | bytes,
    *,
    after_step: Callable[[str], None] = lambda _step: None,
) -> Started:
    """Start a guest that libvirt knows by name (``str``), or that domain XML describes (``bytes``).

    Where it does not start, its definition is what it was before. ``after_step`` is told each step
    that has been done, for tests that stop there: whatever a killed start leaves, the next one goes
    on from it.
    """
    begin = time.monotonic()
    name, document, domain = _find(hypervisor, wanted)
    if domain is not None and domain.active:
        return _already(hypervisor, config, domain)
    existing = _existing(hypervisor, domain)
    facts = _start_facts(hypervisor, config, document, existing, _hook_status(hypervisor.uri))
    with _on_record(name):
        plan = plan_start(facts)
    store = facts.store if isinstance(facts.store, Store) and plan.guest.file_backed else None
    before = bytes_written(store) if store else 0
    try:
        with ExitStack() as claim:
            with _on_record(name):
                notes = claim.enter_context(claimed(hypervisor, config, plan.guest))
            _apply(hypervisor, plan, after_step)
    except RefusedError as error:
        if error.code != "capacity.exceeded":
            raise
        # Others were quicker, so the hook refused it.
        _, held = observe_holdings(hypervisor, observe_store())
        raise with_holders(error, held) from error
    return Started(
        name=name,
        guest=plan.guest,
        already=False,
        seconds=time.monotonic() - begin,
        notes=(*plan.notes, *notes),
        written=bytes_written(store) - before if store else None,
        guarded=not facts.hook.problem,
    )


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """What starting a guest would do, and what it would take; sizes in bytes.

    ``already``: it runs, and nothing is to be done. ``capacity`` and ``ram`` are as they are
    without the guest, None where it takes nothing of them; ``ram_needed`` is what it takes of RAM
    that cannot go to the store.
    """

    name: str
    guest: Guest
    already: bool = False
    steps: tuple[Step, ...] = ()
    notes: tuple[Finding, ...] = ()
    capacity: Capacity | None = None
    ram: Balance | None = None
    ram_needed: int = 0


def rehearse_start(hypervisor: Hypervisor, config: Config, wanted: str | bytes) -> Rehearsed:
    """Return what ``start_guest`` would do; raise what it, or the hook, would refuse with.

    Nothing is changed or put on record, libvirt is not asked to call the hook, and Placement is not
    asked for room.
    """
    name, document, domain = _find(hypervisor, wanted)
    if domain is not None and domain.active:
        running = _already(hypervisor, config, domain)
        return Rehearsed(name=name, guest=running.guest, already=True, notes=running.notes)
    existing = _existing(hypervisor, domain)
    facts = _start_facts(hypervisor, config, document, existing, _hook_status(""))
    plan = plan_start(facts)
    notes = plan.notes
    if not facts.off and facts.hook.seen is None:
        notes += (
            finding(
                "hook.seen-unknown",
                "Whether the running libvirt daemon calls the hook is not known; the start tries "
                "it.",
                hint="'ramshelf hook status' tries it, too.",
            ),
        )
    guest = plan.guest
    done = Rehearsed(name=name, guest=guest, steps=steps(facts, plan), notes=notes)
    if guest.file_backed:
        done = replace(done, capacity=facts.capacity)
    if not (guest.file_backed or guest.pinned):
        return done
    store = facts.store if isinstance(facts.store, Store) else None
    host = host_ram(store, reserved=config.host_reserved_mib * MIB)
    others = tuple(note for note in observe_store().notes if note.name != name)
    admit_ram(guest, others, host)
    before = balance(others, host)
    after = balance((*others, note_of(guest)), host)
    return replace(done, ram=before, ram_needed=after.demand.total - before.demand.total)


def _find(hypervisor: Hypervisor, wanted: str | bytes) -> tuple[str, bytes | None, Domain | None]:
    """Return the guest's name, the file's XML if it is a file's, and what libvirt knows of it."""
    document = wanted if isinstance(wanted, bytes) else None
    name = domain_name(parse_document(document)) if document is not None else str(wanted)
    known = document is None or name in hypervisor.names()
    return name, document, hypervisor.find(name) if known else None


def _existing(hypervisor: Hypervisor, domain: Domain | None) -> Existing | None:
    if domain is None:
        return None
    return Existing(
        uuid=domain.uuid,
        definition=hypervisor.definition(domain.name),
        saved=hypervisor.saved_xml(domain.name),
    )


@contextmanager
def _on_record(guest: str) -> Iterator[None]:
    """Put a refusal before libvirt is asked into the hook's log, as the hook puts its own."""
    try:
        yield
    except RefusedError as error:
        said = {"guest": guest, "code": error.code, "reason": error.sentence, "by": "guest start"}
        record("refused", **{**error.facts, **said})
        raise


def _already(hypervisor: Hypervisor, config: Config, domain: Domain) -> Started:
    """Return a guest that runs already as one for which nothing is to be done.

    Raises RefusedError ``guest.not-file-backed`` where it does not run as wished.
    """
    guest = described(hypervisor.live_xml(domain.name), domain.name)
    if not guest.file_backed and not config.off:
        raise RefusedError(
            "guest.not-file-backed",
            f"Guest {domain.name} is {domain.state} already, and its memory is not file-backed.",
            hint=f"Stop it first: ramshelf guest stop {domain.name}.",
            facts={"guest": domain.name, "state": domain.state},
        )
    notes = tuple(private_mapping(guest))
    return Started(name=domain.name, guest=guest, already=True, seconds=0, notes=notes)


def _start_facts(
    hypervisor: Hypervisor,
    config: Config,
    document: bytes | None,
    existing: Existing | None,
    hook: HookStatus,
) -> StartFacts:
    observed = observe_store()
    current: Capacity | None = None
    held: tuple[Holding, ...] = ()
    if observed.usage is not None:
        current = capacity(observed.usage, configured_mib=config.limit.mib)
        _, held = observe_holdings(hypervisor, observed)
    return StartFacts(
        document=document,
        existing=existing,
        host_uuid=hypervisor.host_uuid(),
        support=observe_support(hypervisor),
        store=observed.store,
        capacity=current,
        holdings=held,
        hook=hook,
        off=config.off,
        usage=observed.usage,
        configured_mib=config.limit.mib,
        earlier=read_promises(),
        hook_is_earlier=hook_is_earlier(),
    )


def _hook_status(uri: str) -> HookStatus:
    """Return the hook's status.

    Whether the running daemon calls the hook is tried out where it is not known yet, but not where
    ``uri`` is ''.
    """
    return manage.tried(manage.status(manage.wanted_hook()), uri)


def _apply(hypervisor: Hypervisor, plan: Plan, after_step: Callable[[str], None]) -> None:
    """Define and start the guest; put the definition back where that fails."""
    try:
        if plan.define is not None:
            hypervisor.define(plan.define, validate=plan.previous is None)
            after_step("define")
        hypervisor.start(plan.name)
    except BaseException as error:
        problem = _undo(hypervisor, plan)
        if problem is not None and isinstance(error, RamshelfError):
            error.hint = (
                f"{error.hint} The definition of {plan.name} may not be what it was before."
            ).lstrip()
        if isinstance(error, KeyboardInterrupt):
            raise _interrupted(hypervisor, plan.name) from None
        raise
    after_step("start")


def _interrupted(hypervisor: Hypervisor, name: str) -> InterruptedByUserError:
    """Say what has become of a guest whose start was interrupted: libvirt goes on with it."""
    with suppress(RamshelfError):
        if hypervisor.find(name).active:
            return InterruptedByUserError(
                f"Interrupted, but libvirt goes on starting guest {name}.",
                hint=f"'ramshelf guest stop {name} --now' ends it.",
                facts={"guest": name},
            )
    return InterruptedByUserError(
        f"Interrupted: guest {name} is not started.", facts={"guest": name}
    )


def _undo(hypervisor: Hypervisor, plan: Plan) -> RamshelfError | None:
    """Put back the definition from before; return the reason where that cannot be done."""
    if plan.define is None:
        return None
    try:
        domain = hypervisor.find(plan.name)
        if domain.active or not same_uuid(domain.uuid, plan.guest.uuid):
            # It runs after all, or somebody else was quicker to define a guest of that name.
            return None
        if plan.previous is None:
            hypervisor.undefine(plan.name)
        else:
            hypervisor.define(plan.previous)
    except RamshelfError as error:
        return None if error.code == "guest.not-found" else error
    return None
