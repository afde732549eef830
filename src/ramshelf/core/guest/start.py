"""What starting a guest takes: a file-backed definition, and the check whether it may start."""

import difflib
import itertools
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from ramshelf.core.domain.backing import (
    Backing,
    Support,
    domain_name,
    leave_alone,
    make_file_backed,
    parse_document,
    with_uuid,
)
from ramshelf.core.domain.memory import Guest, parse_guest
from ramshelf.core.domain.private import private_mapping
from ramshelf.core.errors import HostError, RefusedError
from ramshelf.core.findings import Finding
from ramshelf.core.guest.pinned import check_device
from ramshelf.core.hook.status import HookStatus
from ramshelf.core.plan import Run, Step
from ramshelf.core.record import replace
from ramshelf.core.requirements import require
from ramshelf.core.store.capacity import Capacity, StoreUsage, admit
from ramshelf.core.store.earlier import EarlierPromise, as_if_on_record, is_honoured
from ramshelf.core.store.find import NoStore, Store
from ramshelf.core.store.holdings import Holding, who_holds
from ramshelf.core.units import MIB, align_up, to_mib


@dataclass(frozen=True, kw_only=True)
class Existing:
    """The guest of that name that libvirt knows already.

    ``saved`` is the XML in its managed save image.
    """

    uuid: str
    definition: str
    saved: str | None = None


@dataclass(frozen=True, kw_only=True)
class StartFacts:
    """What is known when a guest is to be started.

    ``document`` is a file's content, or None where the guest is the one that libvirt has.
    ``capacity`` and ``usage`` are None where there is no store. ``hook`` is libvirt's hook as it is
    installed. ``earlier`` are the promises from before an upgrade. ``hook_is_earlier``: the hook
    has not been upgraded yet.
    """

    document: bytes | None
    existing: Existing | None
    host_uuid: str
    support: Support
    store: Store | NoStore
    capacity: Capacity | None
    holdings: tuple[Holding, ...]
    hook: HookStatus
    off: bool
    usage: StoreUsage | None = None
    configured_mib: int | None = None
    earlier: tuple[EarlierPromise, ...] = ()
    hook_is_earlier: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done to start a guest.

    ``define`` is the XML to define first, None where the definition is right already. ``previous``
    is the definition to put back when the guest does not start, None for a new guest.
    """

    name: str
    define: str | None
    previous: str | None
    guest: Guest
    notes: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class DefineGuest:
    """Have libvirt define a guest; ``before`` is its definition, or the file's, without the change.

    A definition has secrets in it: only the lines that ramshelf changes are shown.
    """

    why: str
    before: str
    text: str

    def lines(self) -> tuple[str, ...]:
        """Return the command, and the change as a unified diff without the lines around it."""
        old, new = self.before.splitlines(), self.text.splitlines()
        changed = difflib.unified_diff(old, new, lineterm="", n=0)
        return ("virsh define /dev/stdin", *itertools.islice(changed, 2, None))


def steps(facts: StartFacts, plan: Plan) -> tuple[Step, ...]:
    """Return what libvirt would be asked to do for a start, as ``--dry-run`` shows it."""
    start = Run(why=f"Start {plan.name}", argv=("virsh", "start", plan.name))
    if plan.define is None:
        return (start,)
    define = DefineGuest(
        why=f"Define {plan.name} {'as it is' if facts.off else 'with file-backed memory'}",
        # In our own spelling of XML: libvirt quotes otherwise, and every line would be a change.
        before=leave_alone(_document(facts)).xml,
        text=plan.define,
    )
    return define, start


def plan_start(facts: StartFacts) -> Plan:
    """Return what is to be done, or raise the reason why nothing can be done.

    Raises what ``make_file_backed`` raises, HostError ``versions.*``, ``store.*`` or
    ``hook.*``, and RefusedError ``guest.*`` or ``capacity.exceeded``, the latter with who holds the
    space.
    """
    document = _document(facts)
    if facts.off:
        applied = leave_alone(document)
    else:
        _require_host(facts)
        applied = make_file_backed(document, Backing(), facts.support)
        _require_fit(facts, applied.guest)
    previous = facts.existing.definition if facts.existing else None
    changed = applied.changed or facts.document is not None
    return Plan(
        name=applied.guest.name,
        define=applied.xml if changed else None,
        previous=previous,
        guest=applied.guest,
        notes=(*applied.notes, *private_mapping(_to_run(facts, applied.guest))),
    )


def _to_run(facts: StartFacts, guest: Guest) -> Guest:
    """Return the guest as it will be: a saved one comes back with the backing that it had."""
    saved = facts.existing.saved if facts.existing else None
    return guest if saved is None else replace(parse_guest(saved), name=guest.name)


def _document(facts: StartFacts) -> bytes:
    """Return the definition to start from.

    The guest of a file gets the same UUID each time that it is started. libvirt would give a guest
    without UUID a new one, and then refuse its name when the same file is defined again: a start
    that was interrupted could not be repeated.
    """
    if facts.document is None:
        assert facts.existing is not None  # noqa: S101 - the caller found it by its name
        return facts.existing.definition.encode()
    root = parse_document(facts.document)
    name = domain_name(root)
    own = (root.findtext("uuid") or "").strip()
    identity = own or str(uuid.uuid5(uuid.UUID(facts.host_uuid), facts.document.hex()))
    if facts.existing is not None and not same_uuid(identity, facts.existing.uuid):
        raise RefusedError(
            "guest.exists",
            f"There is another guest {name!r} already, with UUID {facts.existing.uuid}.",
            hint=(
                f"Start that one: ramshelf guest start {name}. To replace it give the file its "
                "UUID."
            ),
            facts={"guest": name, "uuid": facts.existing.uuid},
        )
    return facts.document if own else with_uuid(root, identity)


def same_uuid(one: str, other: str) -> bool:
    """Tell whether libvirt takes both for the same UUID.

    Hyphens and case do not count (virUUIDParse).
    """
    return one.replace("-", "").lower() == other.replace("-", "").lower()


def _require_host(facts: StartFacts) -> None:
    """Raise HostError unless the versions, the store and the hook are as they must be."""
    if facts.support.libvirt and facts.support.qemu:
        require(facts.support.libvirt, facts.support.qemu)
    if isinstance(facts.store, NoStore):
        raise HostError(facts.store.code, facts.store.sentence, hint=facts.store.hint)
    if not facts.hook.installed:
        raise _unguarded("hook.missing", "is not installed")
    if not facts.hook.executable:
        raise _unguarded("hook.not-executable", "is not executable")
    if facts.hook.problem and not facts.hook.bypass.left:
        raise _unguarded("hook.broken", f"does not work ({facts.hook.problem})")
    if facts.hook.seen is False:
        raise _unguarded("hook.unseen", "is not called by the running daemon")


def _unguarded(code: str, what: str) -> HostError:
    return HostError(
        code,
        f"libvirt's hook {what}: nothing would keep this guest's memory.",
        hint="ramshelf hook install",
    )


def _require_fit(facts: StartFacts, guest: Guest) -> None:
    """Raise RefusedError unless the store can hold this guest, and the kernel can keep it there."""
    assert isinstance(facts.store, Store)  # noqa: S101 - _require_host
    assert facts.capacity is not None  # noqa: S101 - a store has a capacity
    if facts.support.kernel:
        check_device(guest, facts.store, facts.support.kernel)
    saved = facts.existing.saved if facts.existing else None
    if saved is not None and not parse_guest(saved).file_backed:
        raise RefusedError(
            "guest.saved",
            f"Guest {guest.name} was saved when its memory was not file-backed, and would start "
            "like that again.",
            hint=(
                f"Start it with 'virsh start {guest.name}', or drop the saved state: "
                f"'virsh managedsave-remove {guest.name}'."
            ),
        )
    try:
        admit(facts.capacity, guest.name, guest.promise)
    except RefusedError as error:
        promises = as_if_on_record(guest) if facts.hook_is_earlier else facts.earlier
        if facts.usage is None or not is_honoured(
            promises, guest, facts.usage, configured_mib=facts.configured_mib
        ):
            raise with_holders(error, facts.holdings) from error


def with_holders(error: RefusedError, holdings: Iterable[Holding]) -> RefusedError:
    """Return ``capacity.exceeded`` with the addition of who holds the space."""
    held = tuple(holding for holding in holdings if holding.promised)
    return RefusedError(
        error.code,
        error.sentence,
        hint=f"{who_holds(held)} {error.hint}".lstrip(),
        facts={
            **error.facts,
            "holders": [
                {
                    "guest": holding.guest,
                    "directory": holding.directory,
                    "promised_mib": to_mib(align_up(holding.promised, MIB)),
                }
                for holding in held
            ],
        },
    )
