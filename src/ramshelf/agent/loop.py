"""The agent's loop: look, decide, do what is missing, tell; then sleep until something is due or happens."""

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue

import ramshelf
from ramshelf.agent.log import Log
from ramshelf.agent.metrics import Exporter, Known, Took
from ramshelf.agent.residency import Residency
from ramshelf.core.capacity import capacity
from ramshelf.core.checks import check
from ramshelf.core.checks.catalog import finding
from ramshelf.core.conditions import Condition, changes, of_error, of_finding
from ramshelf.core.config import Config
from ramshelf.core.errors import HostError, RamshelfError
from ramshelf.core.events import Event, What
from ramshelf.core.findings import Severity
from ramshelf.core.hookcall import PROBE
from ramshelf.core.host import Unknown
from ramshelf.core.pace import Pace, retry_pause
from ramshelf.core.tally import Tally
from ramshelf.core.units import to_mib
from ramshelf.node.doctor import gather
from ramshelf.node.guests import described
from ramshelf.node.latereserve import reserve_late
from ramshelf.node.storeclean import clean
from ramshelf.node.watching import Look, look, to_verify
from ramshelf.system.hooklog import Follower
from ramshelf.system.hypervisor import Hypervisor, run_events
from ramshelf.system.notify import Notifier
from ramshelf.system.onlyone import only_one

_PATIENCE = 30
"""Seconds for libvirt to answer one question."""

_AWAY = frozenset({"libvirt.unreachable", "libvirt.connection-lost", "libvirt.no-answer"})
_RESTART_TRIES = 4
"""Tries, some seconds, after which a libvirt that is away is no longer one that is just being restarted."""

_SERVE_RETRY = 30
"""Seconds between two tries to listen on an address that another has."""

_RESIDENCY_SHARE = 0.005
"""Of the time, at most, to ask the kernel what of the memory files is in RAM."""

_TRIES = 3
"""Looks at a guest whose files are not those that it is to have, before it is left to the doctor."""

_LOOKED_AT = frozenset(
    {"store.overpromised", "store.not-mounted", "store.root-file-system", "store.unsupported", "store.stale"}
)
"""The doctor's codes that each look knows better than its last check."""

Load = Callable[[], tuple[Config, str]]
"""Reads the configuration: it, and the connection URI."""


class _Stop(BaseException):
    """SIGTERM or SIGINT has come: no error, but it interrupts whatever waits."""


class _Reload:
    """SIGHUP has come."""


class Agent:
    """One agent; ``run`` is all that it does.

    ``files`` and ``directories`` are the configuration's, where any were named.
    """

    def __init__(
        self,
        load: Load,
        files: tuple[str, ...] = (),
        directories: tuple[str, ...] = (),
        log: Log | None = None,
    ) -> None:
        self._load = load
        self._files, self._directories = files, directories
        self._config, self._uri = load()
        self._log = log or Log()
        self._notifier = Notifier()
        self._exporter = Exporter()
        self._inbox: SimpleQueue[tuple[int, Event] | _Reload] = SimpleQueue()
        self._connections = 0
        self._hypervisor: Hypervisor | None = None
        self._failures = 0
        self._hooklog = Follower()
        self._history = True
        self._residency = Residency()
        self._tally = Tally()
        self._look: Look | None = None
        self._looked = self._checked = Took()
        self._unsettled: dict[str, int] = {}
        self._conditions: dict[str, tuple[Condition, ...]] = {}
        self._logged: tuple[Condition, ...] = ()
        self._connect_due = self._serve_due = 0.0
        self._look_pace = Pace(interval=self._config.look_interval, pause=0.2, share=10)
        self._check_pace = Pace(interval=self._config.check_interval, pause=2, share=50)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises HostError ``agent.needs-root``, RefusedError ``agent.running``.
        """
        if os.geteuid() != 0:
            raise HostError("agent.needs-root", "Only root can run the agent.", hint="Run it with sudo.")
        with ExitStack() as stack:
            stack.enter_context(only_one("agent"))
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, _stop)
            signal.signal(signal.SIGHUP, lambda *_: self._inbox.put(_Reload()))
            with suppress(_Stop):
                run_events()
                self._log.info(
                    "started", f"ramshelf {ramshelf.__version__} agent.", pid=os.getpid(), libvirt=self._uri
                )
                self._turn()
                self._notifier.ready(self._status())
                while True:
                    self._wait()
                    self._turn()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # it is ending already
        self._notifier.stopping()
        self._log.info("stopped", "The agent has ended.")

    def _turn(self) -> None:
        """Do what is due, then tell."""
        now = time.monotonic()
        if now >= self._serve_due:
            served = self._attempt("metrics", self._serve)
            self._serve_due = float("inf") if served else now + _SERVE_RETRY
        if self._hypervisor is None and now >= self._connect_due:
            self._connect()
        if self._hypervisor is not None and now >= self._look_pace.due:
            self._look_once(self._hypervisor)
        if self._hypervisor is not None and now >= self._check_pace.due:
            self._check()
        self._tell()
        self._notifier.alive()

    def _wait(self) -> None:
        """Until something is due, or a message has come; all that have come are taken."""
        if self._hypervisor is None:
            due = min(self._serve_due, self._connect_due)
        else:
            due = min(self._serve_due, self._look_pace.due, self._check_pace.due)
        seconds = max(0.0, due - time.monotonic())
        if self._notifier.watchdog is not None:
            seconds = min(seconds, self._notifier.watchdog / 3)
        try:
            message = self._inbox.get(timeout=seconds)
            while True:
                self._receive(message)
                message = self._inbox.get_nowait()
        except Empty:
            return

    def _receive(self, message: tuple[int, Event] | _Reload) -> None:
        if isinstance(message, _Reload):
            self._attempt("config", self._reload)
            return
        connection, event = message
        if event.what is What.LOST:
            if connection == self._connections:  # else another is there already
                self._disconnect()
        elif not event.guest.startswith(PROBE):
            self._happened(event)

    def _happened(self, event: Event) -> None:
        self._tally.event(event)
        if event.what is What.MEMORY:
            self._unsettled[event.guest] = _TRIES
        elif event.what is not What.BALLOON:
            tell = self._log.warning if event.reason in {"crashed", "failed"} else self._log.info
            tell(
                f"guest-{event.what.value}",
                f"Guest {event.guest} has {event.what.value}: {event.reason}.",
                guest=event.guest,
                uuid=event.uuid,
                reason=event.reason,
            )
        self._look_pace.ask()

    def _attempt(self, source: str, step: Callable[[], Iterable[Condition]]) -> bool:
        """Whether the step ended well; what it says is wrong, or why it failed, holds until its next time.

        A libvirt that went away is one condition, whatever was asked of it first, until it is back.
        """
        try:
            self._conditions[source] = tuple(step())
        except RamshelfError as error:
            if error.code in _AWAY:
                self._away(error)
            else:
                self._conditions[source] = (of_error(error),)
        except OSError as error:
            where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
            sentence = f"{where}{os.strerror(error.errno or 0)}."
            self._conditions[source] = (of_error(HostError("system.io", sentence), subject=source),)
        except Exception as error:  # noqa: BLE001 - the agent goes on; the log has the traceback, once
            sentence = f"This is a bug in ramshelf: {type(error).__name__}: {error}"
            bug = RamshelfError("internal.bug", sentence, facts={"traceback": traceback.format_exc()})
            self._conditions[source] = (of_error(bug, subject=source),)
        else:
            return True
        return False

    def _reload(self) -> tuple[Condition, ...]:
        self._config, uri = self._load()
        if uri != self._uri:
            self._uri = uri
            self._disconnect()
        self._log.info("reloaded", "The configuration was read again.")
        self._look_pace = replace(self._look_pace, interval=self._config.look_interval, due=0.0)
        self._check_pace = replace(self._check_pace, interval=self._config.check_interval, due=0.0)
        self._serve_due = 0.0
        return ()

    def _serve(self) -> tuple[Condition, ...]:
        self._exporter.serve(self._config.metrics_address, self._config.metrics_port)
        return ()

    def _connect(self) -> None:
        if self._attempt("libvirt", self._open):
            self._failures = 0
            self._look_pace.ask()
            self._check_pace.ask()
        else:
            self._failures += 1
            self._connect_due = time.monotonic() + retry_pause(self._failures)

    def _open(self) -> tuple[Condition, ...]:
        hypervisor = Hypervisor(self._uri, patience=_PATIENCE)
        try:
            self._connections += 1
            hypervisor.watch(partial(self._hear, self._connections))
        except BaseException:
            hypervisor.close()
            raise
        self._hypervisor = hypervisor
        return ()

    def _hear(self, connection: int, event: Event) -> None:
        """In libvirt's thread."""
        self._inbox.put((connection, event))

    def _disconnect(self) -> None:
        """Let go of a libvirt that went away; how it is is found out by the next try to reach it."""
        if self._hypervisor is not None:
            self._hypervisor.close()
            self._hypervisor = None
            self._connect_due = 0.0

    def _away(self, error: RamshelfError) -> None:
        """A libvirt that does not answer is a warning at first, since it may just be restarted."""
        self._disconnect()
        known = self._conditions.get("libvirt", ())
        first = known[0] if known and known[0].code in _AWAY else of_error(error)
        severity = Severity.FAILURE if self._failures >= _RESTART_TRIES else Severity.WARNING
        self._conditions["libvirt"] = (replace(first, severity=severity),)

    def _look_once(self, hypervisor: Hypervisor) -> None:
        begun = time.monotonic()
        self._residency.begin(_RESIDENCY_SHARE * self._config.look_interval)
        self._attempt("hook", self._follow)
        if self._attempt("look", lambda: self._see(hypervisor)):
            self._attempt("clean", self._clean)
            self._attempt("late", lambda: self._reserve(hypervisor))
        ended = time.monotonic()
        self._looked = Took(ended=time.time(), seconds=ended - begun)
        self._look_pace.done(begun=begun, ended=ended)
        if self._unsettled:
            self._look_pace.ask()

    def _follow(self) -> tuple[Condition, ...]:
        for entry in self._hooklog.entries():
            self._tally.record(entry)
            if entry["event"] == "refused" and not self._history:
                self._log.warning(
                    "guest-refused",
                    f"The hook has refused a guest: {entry['reason']}",
                    code=entry["code"],
                    guest=entry.get("guest", ""),
                )
        self._history = False
        return ()

    def _see(self, hypervisor: Hypervisor) -> tuple[Condition, ...]:
        before, now = self._look, look(hypervisor, self._config, self._residency)
        for name in to_verify(before, now):
            self._unsettled.setdefault(name, _TRIES)
        self._look = now
        self._tally.look(
            ((domain.uuid, domain.domain_id or 0) for domain in now.active.values()), now.written
        )
        self._capacity_changed(before, now)
        return tuple(_wrong(now, self._config))

    def _capacity_changed(self, before: Look | None, now: Look) -> None:
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

    def _clean(self) -> tuple[Condition, ...]:
        if self._look is None or not self._look.stale:
            return ()
        for removed in clean(self._look.stale):
            self._tally.cleaned += 1
            self._log.info(
                "cleaned",
                f"{removed.path} belonged to no guest and was removed.",
                directory=removed.path,
                promised_mib=to_mib(removed.promised),
            )
        return ()

    def _reserve(self, hypervisor: Hypervisor) -> tuple[Condition, ...]:
        """Have every guest that was not yet seen, or has changed, have its whole reservation."""
        wrong: list[Condition] = []
        for name in tuple(self._unsettled):
            left = self._unsettled.pop(name) - 1
            try:
                outcome = reserve_late(described(hypervisor.live_xml(name)), self._config)
            except RamshelfError as error:
                if error.code == "guest.not-found":
                    continue
                if error.code in _AWAY:
                    raise
                wrong.append(of_error(error, subject=name))
                continue
            if outcome.late is None:
                continue
            if not outcome.late.settled and left > 0:
                self._unsettled[name] = left
            if outcome.late.needed:
                self._tally.late += 1
                self._log.warning(
                    "reserved-late",
                    f"Guest {name} ran without its whole reservation; it has it now.",
                    guest=name,
                    promised_mib=to_mib(outcome.late.promise),
                    files=[file.path for file in outcome.late.allocate],
                )
            if outcome.late.needed or outcome.late.missing:
                self._check_pace.ask()
        return tuple(wrong)

    def _check(self) -> None:
        begun = time.monotonic()
        self._attempt("check", self._findings)
        ended = time.monotonic()
        self._checked = Took(ended=time.time(), seconds=ended - begun)
        self._check_pace.done(begun=begun, ended=ended)

    def _findings(self) -> tuple[Condition, ...]:
        facts = gather(self._config, self._uri, self._files, self._directories, _PATIENCE)
        if isinstance(facts.hypervisor, Unknown):  # it has just gone away; that will be told
            return self._conditions.get("check", ())
        return tuple(of_finding(each) for each in check(facts) if each.code not in _LOOKED_AT)

    def _tell(self) -> None:
        """Log what has changed, and give out the figures."""
        now = {
            condition.key: condition
            for conditions in self._conditions.values()
            for condition in conditions
            if condition.severity is not Severity.OK
        }
        conditions = tuple(now.values())
        changed = changes(self._logged, conditions)
        self._log.ended(changed.ended)
        self._log.begun(changed.begun)
        self._logged = conditions
        self._exporter.publish(
            Known(
                config=self._config,
                connected=self._hypervisor is not None,
                look=self._look,
                looked=self._looked,
                checked=self._checked,
                conditions=conditions,
                tally=self._tally,
            )
        )
        if changed.begun or changed.ended:
            self._notifier.status(self._status())

    def _status(self) -> str:
        failures = sum(condition.severity is Severity.FAILURE for condition in self._logged)
        guests = len(self._look.active) if self._look is not None else 0
        return f"{guests} guests, {failures} failures"


def _stop(*_: object) -> None:
    raise _Stop


def _wrong(seen: Look, config: Config) -> Iterable[Condition]:
    """What a look finds wrong with the store, in the doctor's own codes."""
    if seen.problem is not None and not (config.off and seen.problem.expected is None):
        yield Condition(
            code=seen.problem.code,
            severity=Severity.FAILURE,
            sentence=seen.problem.sentence,
            hint=seen.problem.hint,
        )
    if seen.usage is not None:
        room = capacity(seen.usage, configured_mib=None)
        if room.promised > room.total:
            sentence = (
                f"The store holds {to_mib(room.total)} MiB, and {to_mib(room.promised)} MiB are promised."
            )
            yield of_finding(
                finding(
                    "store.overpromised",
                    sentence,
                    capacity_mib=to_mib(room.total),
                    promised_mib=to_mib(room.promised),
                )
            )
