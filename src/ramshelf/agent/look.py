"""The looks: what is new on the host, what is wrong with the store, what is put right at once."""

from collections.abc import Iterator
from dataclasses import dataclass

from ramshelf.agent.log import Log
from ramshelf.agent.problems import AWAY, Problems, condition_of
from ramshelf.agent.residency import Residency
from ramshelf.agent.trim import Trims
from ramshelf.core.agent.conditions import Condition, of_error, of_finding
from ramshelf.core.agent.counts import Counts, refusal_code
from ramshelf.core.agent.events import Event, What
from ramshelf.core.config import Config
from ramshelf.core.doctor.checks.hook import bypassed
from ramshelf.core.doctor.checks.store import failed_writes, overgrown, overpromised
from ramshelf.core.errors import RamshelfError
from ramshelf.core.findings import Severity
from ramshelf.core.record import replace
from ramshelf.core.store.write_errors import WriteErrors
from ramshelf.core.units import to_mib
from ramshelf.node.agent.look import Look, differ, look, to_verify
from ramshelf.node.guest.late import LateReservation, reserve_late
from ramshelf.node.guest.let_go import resume_left
from ramshelf.node.guest.look import described
from ramshelf.node.hook import bypass
from ramshelf.node.store.clean import clean
from ramshelf.node.store.earlier import Settling
from ramshelf.node.store.write_errors import WriteWatch
from ramshelf.system.hooklogfollower import Follower
from ramshelf.system.hypervisor import Hypervisor

KNOWN_BETTER = frozenset(
    {
        "hook.bypassed",
        "store.overpromised",
        "store.beyond-promise",
        "store.extents",
        "store.inodes",
        "store.not-mounted",
        "store.root-file-system",
        "store.unsupported",
        "store.stale",
        "store.memory-lost",
        "store.write-errors",
        "store.write-errors-unknown",
        "store.symbolic-link",
    }
)
"""The doctor's codes that each look knows better than the last check."""

_RESIDENCY_SHARE = 0.005
"""The share of the time, at most, to ask the kernel what of the memory files is in RAM."""

_TRIES = 3
"""The looks at a guest whose files are not what it is to have, before the doctor gets it."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a look makes sensible.

    That is to look ``again``, to ``check`` as the doctor does, to ``report``, or to ``connect`` to
    libvirt anew, which does not tell of everything any more.
    """

    again: bool = False
    connect: bool = False
    check: bool = False
    report: bool = False


class Watcher:
    """Does the looks.

    ``counts``, the last ``look`` and the ``write_errors`` known by then are there for the metrics.
    """

    def __init__(self, problems: Problems, log: Log) -> None:
        self._problems = problems
        self._log = log
        self._residency = Residency()
        self._hooklog = Follower()
        self._history = True
        self._unsettled: dict[str, int] = {}
        self._trims = Trims(log)
        self._write_watch = WriteWatch()
        self._settling = Settling()
        self.counts = Counts()
        self.look: Look | None = None
        self.write_errors: WriteErrors | None = None

    def happened(self, event: Event) -> None:
        """Take note of what libvirt has told."""
        self.counts.event(event)
        self._trims.happened(event, self.look)
        if event.what is What.MEMORY:
            self._unsettled[event.guest] = _TRIES
        elif event.what in {What.STARTED, What.STOPPED}:
            self._tell_of_guest(event)

    def _tell_of_guest(self, event: Event) -> None:
        tell = self._log.warning if event.reason in {"crashed", "failed"} else self._log.info
        tell(
            f"guest-{event.what.value}",
            f"Guest {event.guest} has {event.what.value}: {event.reason}.",
            guest=event.guest,
            uuid=event.uuid,
            reason=event.reason,
        )

    def turn(self, hypervisor: Hypervisor | None, config: Config) -> Wish:
        """Look, and do what is missing; without a hypervisor look only at the store."""
        before = self.look
        self._residency.begin(_RESIDENCY_SHARE * config.look_interval)
        unseen: list[Event] = []
        self._problems.attempt("hook-log", self._follow)
        if hypervisor is not None:
            self._problems.attempt("resume", lambda: map(of_error, resume_left(hypervisor)))
        seen = self._problems.attempt("look", lambda: self._see(hypervisor, config, unseen))
        self._problems.attempt("write-errors", self._read_kernel_log)
        if not seen or hypervisor is None:
            return Wish()
        self._problems.attempt("clean", self._clean)
        self._problems.attempt("promises", lambda: self._settle(hypervisor))
        self._problems.attempt("trim", lambda: self._trims.turn(hypervisor, self.look))
        late: list[LateReservation] = []
        self._problems.attempt("late", lambda: self._reserve(hypervisor, late))
        return Wish(
            again=any(self._unsettled.values()),
            connect=bool(unseen),
            check=bool(late) or _runs(before) != _runs(self.look),
            report=differ(before, self.look),
        )

    def _follow(self) -> Iterator[Condition]:
        for entry in self._hooklog.entries():
            self.counts.record(entry)
            code = refusal_code(entry)
            if code is not None and not self._history:
                reason = entry.get("reason") or f"the hook is broken (status {entry.get('status')})"
                self._log.warning(
                    "guest-refused",
                    f"A guest was refused: {reason}",
                    code=code,
                    guest=entry.get("guest", ""),
                )
            elif entry.get("event") == "bypassed" and not self._history:
                self._log.warning(
                    "guest-bypassed",
                    f"Guest {entry.get('guest')} started while the hook is bypassed.",
                    guest=entry.get("guest", ""),
                )
            elif entry.get("event") == "trimmed" and not self._history:
                self._log.info(
                    "trimmed",
                    f"Guest {entry.get('guest')} gave back {entry.get('given_back_mib')} MiB.",
                    guest=entry.get("guest", ""),
                    given_back_mib=entry.get("given_back_mib", 0),
                )
            elif entry.get("event") == "resumed" and not self._history:
                self._log.warning(
                    "guest-resumed",
                    f"Guest {entry.get('guest')} runs again: a trim that was killed had left it "
                    "paused.",
                    guest=entry.get("guest", ""),
                    uuid=entry.get("uuid", ""),
                )
        self._history = False
        yield from ()

    def _see(
        self, hypervisor: Hypervisor | None, config: Config, unseen: list[Event]
    ) -> Iterator[Condition]:
        before = self.look
        now = look(hypervisor, config, before=before, measure=self._residency)
        for name in to_verify(before, now):
            self._unsettled.setdefault(name, _TRIES)
        self.look = now
        if hypervisor is not None:
            names = {
                (each.uuid, each.domain_id): each.name
                for each in now.active.values()
                if not each.starting  # QEMU may have gigabytes to allocate
            }
            unseen += self.counts.look(names, now.written)
            for event in unseen:
                self._tell_of_guest(event)
        self._tell_of_capacity(before, now)
        yield from map(of_finding, bypassed(bypass.bypass()))
        yield from _wrong(now, config)

    def _tell_of_capacity(self, before: Look | None, now: Look) -> None:
        if before is None or before.shares is None or now.shares is None:
            return
        was, is_now = before.shares.capacity.total, now.shares.capacity.total
        if abs(was - is_now) * 100 > was:  # metadata on a disk comes and goes
            self._log.info(
                "capacity-changed",
                f"The store's capacity was {to_mib(was)} MiB and is {to_mib(is_now)} MiB.",
                before_mib=to_mib(was),
                capacity_mib=to_mib(is_now),
                promised_mib=to_mib(now.shares.capacity.promised),
                limited_by=now.shares.capacity.limit_reason,
            )

    def _read_kernel_log(self) -> Iterator[Condition]:
        """Yield what the kernel could not write, also where the store does not answer any more."""
        shares = self.look.shares if self.look is not None else None
        errors = self._write_watch.look(shares.store) if shares is not None else None
        self.write_errors = errors if isinstance(errors, WriteErrors) else None
        if self.look is not None and self.look.usage is not None and shares is not None:
            yield from map(of_finding, failed_writes(shares.store, errors, self.look.usage.notes))

    def _clean(self) -> Iterator[Condition]:
        for removed in clean(self.look.stale if self.look is not None else ()):
            self.counts.cleaned += 1
            self._log.info(
                "cleaned",
                f"{removed.path} belonged to no guest and was removed.",
                directory=removed.path,
                promised_mib=to_mib(removed.size),
            )
        yield from ()

    def _settle(self, hypervisor: Hypervisor) -> Iterator[Condition]:
        if self.look is not None and self.look.usage is not None:
            self._settling.look(hypervisor, self.look.usage)
        yield from ()

    def _reserve(self, hypervisor: Hypervisor, done: list[LateReservation]) -> Iterator[Condition]:
        """See that each guest that is new, or has changed, has its whole reservation."""
        for name in tuple(self._unsettled):
            left = self._unsettled.pop(name)
            try:
                outcome = reserve_late(described(hypervisor.live_xml(name), name))
            except (RamshelfError, OSError) as error:
                code = error.code if isinstance(error, RamshelfError) else ""
                if code == "guest.not-found":
                    continue
                self._unsettled[name] = 0  # again at the next look, but not sooner for it
                if code in AWAY or code == "store.locked":  # nor would the others get any further
                    raise
                yield replace(condition_of(error, name), subject=name)
                continue
            done.append(outcome)
            if outcome.late is None:
                continue
            if not outcome.late.settled and left > 1:
                self._unsettled[name] = left - 1
            if outcome.late.overdue:
                self.counts.late += 1
                self._log.warning(
                    "reserved-late",
                    f"Guest {name} ran without its whole reservation; it has it now.",
                    guest=name,
                    promised_mib=to_mib(outcome.late.promise),
                    files=[file.path for file in outcome.late.allocate],
                )


def _runs(seen: Look | None) -> frozenset[tuple[str, int | None]]:
    """Return each guest that runs, wherever its memory is, with its id.

    The same guest in another run is new.
    """
    return (
        frozenset((each.uuid, each.domain_id) for each in seen.active.values())
        if seen
        else frozenset()
    )


def _wrong(seen: Look, config: Config) -> Iterator[Condition]:
    """Yield what a look finds wrong with the store, in the doctor's own codes."""
    if seen.problem is not None and not (config.off and seen.problem.expected is None):
        yield Condition(
            code=seen.problem.code,
            severity=Severity.FAILURE,
            sentence=seen.problem.sentence,
            hint=seen.problem.hint,
        )
    if seen.usage is not None:
        yield from map(of_finding, overgrown(seen.usage))
        yield from map(of_finding, overpromised(seen.usage))
