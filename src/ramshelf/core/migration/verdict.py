"""Whether a guest can move to another host, in which way, and every reason why not.

These are the rules, and where they come from:

- libvirt keeps the source of a running guest's memory: what is in files stays in files, what is
  anonymous stays anonymous (virDomainDefCheckABIStability). Allocation and discard may change.
- The host that the guest comes to decides how its memory is backed (Nova's admin guide,
  file-backed-memory). So a guest that is not file-backed comes to a host with a store only by being
  stopped, converted and started.
- What becomes of a guest's memory on a host is known only to that host's hook: without it nothing
  is moved.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from ramshelf.core.domain.backing import Discard, Support, decide_discard
from ramshelf.core.domain.memory import Guest
from ramshelf.core.errors import ENLARGE, RamshelfError
from ramshelf.core.guest.pinned import long_term_pin_refused
from ramshelf.core.migration.answer import HostAnswer, Side
from ramshelf.core.ram import HostRam, ram_demand
from ramshelf.core.requirements import FILE_BACKING, Version, dotted, version
from ramshelf.core.store.ledger import note_of
from ramshelf.core.units import MIB, align_up, to_mib


class Way(enum.Enum):
    """How a guest may move."""

    LIVE = "live"
    """It runs on; libvirt and QEMU carry its memory over."""

    POSTCOPY = "live with postcopy"
    """It moves live, and it may run there before all of its memory has come."""

    COLD = "cold"
    """It is stopped, its definition is made what the other host wants, and it is started there."""


_USERFAULT_DEVICE_SINCE = (8, 1, 0)
"""The version of QEMU since which it may be given /dev/userfaultfd instead."""

_PLENTY = 1 << 62
"""A number of bytes that is more than any guest needs."""

_LIVE = frozenset({Way.LIVE, Way.POSTCOPY})
_ALL = frozenset(Way)


@dataclass(frozen=True, kw_only=True)
class Host:
    """A host that a guest may come to; ``answer`` is its hook's, None where none was given."""

    name: str
    uuid: str
    libvirt: Version
    qemu: Version
    answer: HostAnswer | None

    @property
    def support(self) -> Support:
        """What is known of the host that decides whether it would use discard."""
        if self.answer is None:
            return Support(libvirt=self.libvirt, qemu=self.qemu)
        kernel = version(self.answer.kernel)
        return Support(
            libvirt=self.libvirt, qemu=self.qemu, kernel=kernel, fstype=self.answer.fstype
        )


@dataclass(frozen=True, kw_only=True)
class Moving:
    """The guest that is to move.

    ``active``: it runs. ``saved``: it has a saved state, which would be lost. ``inconvertible``
    says why its definition cannot be made what the other host wants, None where it can. ``taken``:
    that host has a guest of its name or UUID already. ``claimable_mib`` is what Placement lets it
    have there, None where Placement has no say.
    """

    guest: Guest
    host_uuid: str
    active: bool = True
    saved: bool = False
    inconvertible: RamshelfError | None = None
    taken: bool = False
    claimable_mib: int | None = None


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a guest cannot move in the ways of ``bars``."""

    code: str
    sentence: str
    hint: str
    bars: frozenset[Way]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Every reason against moving, those that bar the most ways first.

    ``discard``: whether a guest that moves live has discard there, whatever it had here.
    """

    reasons: tuple[Reason, ...]
    discard: bool

    def possible(self, way: Way) -> bool:
        """Tell whether nothing bars this way."""
        return not self.against(way)

    def against(self, way: Way) -> tuple[Reason, ...]:
        """Return the reasons that bar this way."""
        return tuple(reason for reason in self.reasons if way in reason.bars)


def judge(moving: Moving, there: Host) -> Verdict:
    """Judge whether the guest can move there."""
    reasons = [*_identity(moving, there), *_host(moving, there), *_guest(moving)]
    if there.answer is not None:
        reasons += _memory(moving, there, there.answer)
    return Verdict(
        reasons=tuple(sorted(reasons, key=lambda reason: -len(reason.bars))),
        discard=_discard_there(moving.guest, there),
    )


def _identity(moving: Moving, there: Host) -> Iterator[Reason]:
    name = moving.guest.name
    if there.uuid == moving.host_uuid:
        yield Reason(
            code="migration.same-host",
            sentence=f"{there.name} is this host.",
            hint=(
                "Name another one; hosts that were cloned need a host_uuid of their own in "
                "libvirtd.conf."
            ),
            bars=_ALL,
        )
    elif moving.taken:
        yield Reason(
            code="migration.exists",
            sentence=f"{there.name} already has a guest {name}, or one with its UUID.",
            hint=(
                f"See what it is; a definition that is left over goes by 'virsh undefine {name}' "
                "there."
            ),
            bars=_ALL,
        )


def _host(moving: Moving, there: Host) -> Iterator[Reason]:
    if there.answer is None:
        yield Reason(
            code="migration.no-hook",
            sentence=(
                f"ramshelf's hook does not answer on {there.name}: nobody can say what store is "
                "there."
            ),
            hint=(
                "Install this version of ramshelf there and run 'ramshelf hook install'. Prepare "
                "all hosts before guests on any of them are made file-backed."
            ),
            bars=_ALL,
        )
    bars = set(_LIVE) if moving.guest.file_backed else set()
    if there.answer is not None and there.answer.side is Side.FILE:
        bars.add(Way.COLD)  # on any other host a cold move makes it anonymous
    for name, found, floor in (
        ("libvirt", there.libvirt, FILE_BACKING.libvirt),
        ("QEMU", there.qemu, FILE_BACKING.qemu),
    ):
        if found < floor and bars:
            yield Reason(
                code=f"versions.{name.lower()}-old",
                sentence=(
                    f"{name} {dotted(found)} on {there.name} is older than {dotted(floor)}, which "
                    "file-backed memory needs."
                ),
                hint="Upgrade all hosts before the first guest is made file-backed.",
                bars=frozenset(bars),
            )


def _guest(moving: Moving) -> Iterator[Reason]:
    guest = moving.guest
    if not moving.active:
        yield Reason(
            code="migration.not-running",
            sentence=f"Guest {guest.name} does not run.",
            hint="Its definition can be moved: --offline.",
            bars=_LIVE,
        )
    if moving.saved:
        yield Reason(
            code="migration.saved",
            sentence=f"Guest {guest.name} has a saved state, which would be lost.",
            hint=f"Start it first, or drop the state: 'virsh managedsave-remove {guest.name}'.",
            bars=frozenset({Way.COLD}),
        )
    if moving.inconvertible is not None:
        yield Reason(
            code=moving.inconvertible.code,
            sentence=moving.inconvertible.sentence,
            hint=moving.inconvertible.hint,
            bars=frozenset({Way.COLD}),
        )
    if guest.passthrough:
        yield Reason(
            code="migration.device",
            sentence=f"Guest {guest.name} uses a device of its host, which cannot move with it.",
            hint=(
                f"Detach it first ('virsh detach-device {guest.name} ...'), or move the guest "
                "--offline, to a host that has such a device."
            ),
            bars=_LIVE,
        )
    elif guest.locked:
        yield Reason(
            code="migration.locked",
            sentence=(
                f"The memory of guest {guest.name} is locked in RAM, which postcopy cannot fill."
            ),
            hint="Leave --postcopy out.",
            bars=frozenset({Way.POSTCOPY}),
        )


def _memory(moving: Moving, there: Host, answer: HostAnswer) -> Iterator[Reason]:
    match answer.side:
        case Side.BROKEN:
            yield Reason(
                code=answer.problem or "store.not-mounted",
                sentence=f"{there.name} should have a store, and has none.",
                hint="'ramshelf doctor' there says what is wrong.",
                bars=_ALL,
            )
        case Side.ANONYMOUS:
            yield from _to_anonymous(moving, there, answer)
        case Side.FILE:
            yield from _to_store(moving, there, answer)
    if not answer.userfault and there.qemu < _USERFAULT_DEVICE_SINCE:
        yield Reason(
            code="migration.userfaultfd",
            sentence=(
                f"The kernel on {there.name} does not let QEMU's user handle page faults, as "
                "postcopy does."
            ),
            hint="There: sysctl vm.unprivileged_userfaultfd=1.",
            bars=frozenset({Way.POSTCOPY}),
        )
    yield from _ram(moving, there, answer)


def _ram(moving: Moving, there: Host, answer: HostAnswer) -> Iterator[Reason]:
    """Yield the reason where the hook there refuses the guest for want of RAM in any case.

    How much swap is left there the hook has not said.
    """
    guest = moving.guest
    if not guest.pinned and answer.side is not Side.FILE:
        return
    plenty = HostRam(
        size=0,
        huge_pages=0,
        reserved=0,
        swap=_PLENTY,
        kind=answer.kind,
        file_system=answer.fstype or "",
    )
    wanted = to_mib(align_up(ram_demand([note_of(guest)], plenty).total, MIB))
    if wanted > answer.pinnable_mib:
        yield Reason(
            code="ram.exceeded",
            sentence=(
                f"Guest {guest.name} needs {wanted} MiB of RAM that cannot go to the store, and "
                f"{there.name} has {answer.pinnable_mib} MiB left."
            ),
            hint=(
                "End a guest there whose memory is anonymous or pinned, or take <locked/> or the "
                "device from this one; 'ramshelf capacity' there shows the sum."
            ),
            bars=_ALL,
        )


def _to_anonymous(moving: Moving, there: Host, answer: HostAnswer) -> Iterator[Reason]:
    if not moving.guest.file_backed:
        return
    why = "file-backed memory is off there" if answer.off else "there is no store"
    yield Reason(
        code="migration.becomes-anonymous",
        sentence=(
            f"The memory of guest {moving.guest.name} is in files, and on {there.name} {why}: "
            "libvirt cannot change that while it runs."
        ),
        hint=(
            "Make a store there, or move it --offline: it is stopped, and started there with memory"
            " that is not file-backed."
        ),
        bars=_LIVE,
    )


def _to_store(moving: Moving, there: Host, answer: HostAnswer) -> Iterator[Reason]:
    guest = moving.guest
    if not guest.file_backed:
        yield Reason(
            code="migration.becomes-file-backed",
            sentence=(
                f"The memory of guest {guest.name} is not in files, as {there.name} wants it: "
                "libvirt cannot change that while it runs."
            ),
            hint=(
                "Move it --offline: it is stopped, and started there with its memory on the store."
            ),
            bars=_LIVE,
        )
    wanted = to_mib(align_up(guest.promise if guest.file_backed else guest.max_memory, MIB))
    if wanted > answer.free_mib:
        yield Reason(
            code="capacity.exceeded",
            sentence=(
                f"Guest {guest.name} needs {wanted} MiB of file-backed memory, and "
                f"{answer.free_mib} MiB are free on the store of {there.name}."
            ),
            hint=(
                f"Stop or move a guest there, or {ENLARGE}; 'ramshelf capacity' there shows who "
                "holds what."
            ),
            bars=_ALL,
        )
    if moving.claimable_mib is not None and wanted > moving.claimable_mib:
        yield Reason(
            code="placement.full",
            sentence=(
                f"Placement has {moving.claimable_mib} of {wanted} MiB for guest {guest.name} on "
                f"{there.name}."
            ),
            hint="Others have claimed the rest: 'openstack resource provider usage show' tells.",
            bars=_ALL,
        )
    if answer.kind is not None and not answer.kind.tmpfs:
        yield Reason(
            code="migration.postcopy",
            sentence=(
                f"The store of {there.name} is {answer.fstype}: postcopy needs a store of kind swap"
                " or ram there."
            ),
            hint=(
                "Leave --postcopy out; --auto-converge slows a guest down that writes faster than "
                "it moves."
            ),
            bars=frozenset({Way.POSTCOPY}),
        )
        if guest.passthrough and long_term_pin_refused(answer.kind, version(answer.kernel)):
            yield Reason(
                code="guest.passthrough",
                sentence=(
                    f"Linux {answer.kernel} on {there.name} cannot pin memory on {answer.fstype} "
                    f"for the host device of guest {guest.name}."
                ),
                hint="Use a store of kind swap there.",
                bars=_ALL,
            )


def _discard_there(guest: Guest, there: Host) -> bool:
    """Tell whether the guest has discard there.

    It has discard where that costs nothing, as has a guest that ``guest start`` starts there.
    """
    if not guest.file_backed or there.answer is None or there.answer.side is not Side.FILE:
        return False
    return decide_discard(Discard.AUTO, there.support)[0]
