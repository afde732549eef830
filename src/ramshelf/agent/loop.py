"""The agent's loop: look, decide, do what is missing, tell; then sleep until something is due or happens."""

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
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
        self._inbox: SimpleQueue[Event | _Reload] = SimpleQueue()
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
        now = time.monotonic()
        self._due = {"connect": now, "look": now, "check": now, "serve": now}

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
        if now >= self._due["serve"]:
            served = self._attempt("metrics", self._serve)
            self._due["serve"] = float("inf") if served else now + retry_pause(16)
        if self._hypervisor is None and now >= self._due["connect"]:
            self._connect()
        if self._hypervisor is not None and now >= self._due["look"]:
            self._look_once(self._hypervisor)
        if time.monotonic() >= self._due["check"]:
            self._check()
        self._tell()
        self._notifier.alive()

    def _wait(self) -> None:
        """Until something is due, or a message has come; all that have come are taken."""
        due = dict(self._due)
        if self._hypervisor is None:
            del due["look"]
        else:
            del due["connect"]
        seconds = max(0.0, min(due.values()) - time.monotonic())
        if self._notifier.watchdog is not None:
            seconds = min(seconds, self._notifier.watchdog / 3)
        try:
            message = self._inbox.get(timeout=seconds)
            while True:
                self._receive(message)
                message = self._inbox.get_nowait()
        except Empty:
            return

    def _receive(self, message: Event | _Reload) -> None:
        if isinstance(message, _Reload):
            self._attempt("config", self._reload)
            return
        if message.guest.startswith(PROBE):
            return
        if message.what is What.LOST:
            self._disconnect()
            return
        self._tally.event(message)
        if message.what is What.MEMORY:
            self._unsettled[message.guest] = _TRIES
        else:
            tell = self._log.warning if message.reason in {"crashed", "failed"} else self._log.info
            tell(
                f"guest-{message.what.value}",
                f"Guest {message.guest} has {message.what.value}: {message.reason}.",
                guest=message.guest,
                uuid=message.uuid,
                reason=message.reason,
            )
        self._soon("look")

    def _attempt(self, source: str, step: Callable[[], Iterable[Condition]]) -> bool:
        """Whether the step ended well; what it says is wrong, or why it failed, holds until its next time."""
        try:
            self._conditions[source] = tuple(step())
        except RamshelfError as error:
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
        self._due |= dict.fromkeys(("serve", "look", "check"), time.monotonic())
        return ()

    def _serve(self) -> tuple[Condition, ...]:
        self._exporter.serve(self._config.metrics_address, self._config.metrics_port)
        return ()

    def _connect(self) -> None:
        if self._attempt("libvirt", self._open):
            self._failures = 0
            self._due["look"] = self._due["check"] = time.monotonic()
        else:
            self._failures += 1
            self._due["connect"] = time.monotonic() + retry_pause(self._failures)

    def _open(self) -> tuple[Condition, ...]:
        hypervisor = Hypervisor(self._uri, patience=_PATIENCE)
        try:
            hypervisor.watch(self._inbox.put)
        except BaseException:
            hypervisor.close()
            raise
        self._hypervisor = hypervisor
        return ()

    def _disconnect(self) -> None:
        """Let go of a libvirt that went away; how it is is found out by the next try to reach it."""
        if self._hypervisor is not None:
            self._hypervisor.close()
            self._hypervisor = None
            self._due["connect"] = time.monotonic()

    def _look_once(self, hypervisor: Hypervisor) -> None:
        begun = time.monotonic()
        self._residency.begin(_RESIDENCY_SHARE * self._config.look_interval)
        self._attempt("hook", self._follow)
        if self._attempt("look", lambda: self._see(hypervisor)):
            self._attempt("clean", self._clean)
            self._attempt("late", lambda: self._reserve(hypervisor))
        elif any(condition.code.startswith("libvirt.") for condition in self._conditions["look"]):
            self._conditions["libvirt"] = self._conditions.pop("look")
            self._disconnect()
        took = time.monotonic() - begun
        self._looked = Took(ended=time.time(), seconds=took)
        pace = Pace(interval=self._config.look_interval, pause=0.2, share=10)
        self._due["look"] = pace.next(ended=begun + took, took=took, asked=bool(self._unsettled))

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
        if was != is_now:
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
                if error.code.startswith("libvirt."):
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
                self._soon("check")
        return tuple(wrong)

    def _check(self) -> None:
        begun = time.monotonic()
        self._attempt("check", self._findings)
        took = time.monotonic() - begun
        self._checked = Took(ended=time.time(), seconds=took)
        pace = self._pace("check")
        self._due["check"] = pace.next(ended=begun + took, took=took, asked=False)

    def _findings(self) -> tuple[Condition, ...]:
        """The doctor's findings; what it could not see because libvirt is away is told once, by that."""
        if self._hypervisor is None:
            return self._conditions.get("check", ())
        found = check(gather(self._config, self._uri, self._files, self._directories))
        return tuple(of_finding(each) for each in found if each.code not in _LOOKED_AT)

    def _pace(self, what: str) -> Pace:
        if what == "look":
            return Pace(interval=self._config.look_interval, pause=0.2, share=10)
        return Pace(interval=self._config.check_interval, pause=2, share=50)

    def _soon(self, what: str) -> None:
        """Do it as soon as its pace allows."""
        last = {"look": self._looked, "check": self._checked}[what]
        ended = time.monotonic() - max(0.0, time.time() - last.ended)
        soon = self._pace(what).next(ended=ended, took=last.seconds, asked=True)
        self._due[what] = min(self._due[what], soon)

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
