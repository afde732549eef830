"""The agent's loop: look, decide, do what is missing, tell.

Then it sleeps until something is due or happens.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue

import ramshelf
from ramshelf.agent.doctor import Checker, put_right
from ramshelf.agent.endpoint import Endpoint
from ramshelf.agent.link import Link, Told
from ramshelf.agent.log import Log
from ramshelf.agent.look import KNOWN_BETTER, Watcher
from ramshelf.agent.metrics import Exporter, Known, Reported, Took
from ramshelf.agent.placement import Pass, Reporter
from ramshelf.agent.problems import AWAY, Problems
from ramshelf.core.agent.conditions import Condition, of_finding
from ramshelf.core.agent.events import What
from ramshelf.core.agent.schedule import Pace
from ramshelf.core.config import Config
from ramshelf.core.errors import HostError, RamshelfError
from ramshelf.core.findings import Severity
from ramshelf.core.hook.call import PROBE
from ramshelf.core.record import replace
from ramshelf.node.hook.bypass import bypass
from ramshelf.node.placement import Report
from ramshelf.system.agentlock import agent_lock
from ramshelf.system.hypervisor import Hypervisor, run_events
from ramshelf.system.notify import Notifier

_SERVE_RETRY = 30
"""The seconds between two tries to listen on an address that another has."""

_NEVER = float("inf")

Load = Callable[[], tuple[Config, str]]
"""Reads the configuration, and returns it with libvirt's URI."""


class _Stop(BaseException):
    """SIGTERM or SIGINT has come: it is no error, but it interrupts whatever waits."""


class _Reload:
    """SIGHUP has come."""


class _Served:
    """The listener has begun to serve the metrics, or has ended to."""


_Message = Told | Pass | _Reload | _Served | _Stop


class Agent:
    """One agent; ``run`` is all that it does.

    ``files`` and ``directories`` are those of the configuration, where any were named. ``door`` is
    the Unix socket of who serves the metrics; '' where the agent does so itself.
    """

    def __init__(
        self,
        load: Load,
        files: tuple[str, ...] = (),
        directories: tuple[str, ...] = (),
        door: str = "",
    ) -> None:
        self._load = load
        self._files, self._directories = files, directories
        self._config, self._uri = load()
        self._log = Log()
        self._inbox: SimpleQueue[_Message] = SimpleQueue()
        self._link = Link(self._inbox.put)
        self._problems = Problems(self._log, self._away)
        self._watcher = Watcher(self._problems, self._log)
        self._checker = Checker()
        self._reporter = Reporter(self._inbox.put)
        self._exporter = Exporter()
        self._endpoint = Endpoint(self._exporter.registry, door, lambda: self._inbox.put(_Served()))
        self._notifier = Notifier()
        self._looked = self._checked = Took()
        self._reported: Reported | None = None
        self._serve_due = 0.0
        self._look_pace = Pace(interval=self._config.look_interval, pause=0.2, share=10)
        self._check_pace = Pace(interval=self._config.check_interval, pause=2, share=100)
        self._report_pace = Pace(interval=self._config.report_interval, pause=1, share=10)
        self._report_again = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises HostError ``agent.needs-root`` and RefusedError ``agent.running``.
        """
        if os.geteuid() != 0:
            raise HostError(
                "agent.needs-root", "Only root can run the agent.", hint="Run it with sudo."
            )
        with agent_lock():
            with suppress(_Stop):
                signal.signal(signal.SIGTERM, self._stop)
                signal.signal(signal.SIGINT, self._stop)
                signal.signal(signal.SIGHUP, lambda *_: self._inbox.put(_Reload()))
                self._serve()
            self._notifier.stopping()
            self._log.info("stopped", "The agent has ended.")

    def _stop(self, *_: object) -> None:
        """Stop, but only once: what ends must not be interrupted.

        Python drops an exception that is raised while it runs a finaliser or a callback from C:
        then the next wait finds the message.
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._inbox.put(_Stop())
        raise _Stop

    def _serve(self) -> None:
        self._log.take_in_libraries()
        run_events()
        message = f"ramshelf {ramshelf.__version__} agent."
        self._log.info("started", message, pid=os.getpid(), libvirt=self._uri)
        self._listen_if_due(time.monotonic())
        # A boot waits for this, so it comes before anything that may hang.
        self._notifier.ready("Looking at this host.")
        self._turn()
        self._notifier.status(self._status())
        while True:
            self._wait()
            self._turn()

    def _turn(self) -> None:
        """Do what is due, then tell."""
        now = time.monotonic()
        self._listen_if_due(now)
        if self._link.hypervisor is None and now >= self._link.due:
            self._try_to_connect()
        if now >= self._look_pace.due:
            self._look()
        if (hypervisor := self._link.hypervisor) is not None and now >= self._check_pace.due:
            self._check(hypervisor)
        if (hypervisor := self._link.hypervisor) is not None and now >= self._report_pace.due:
            self._report(hypervisor, now)
        self._tell()
        self._notifier.alive()

    def _try_to_connect(self) -> None:
        if self._problems.attempt("libvirt", self._connect):
            for pace in (self._look_pace, self._check_pace, self._report_pace):
                pace.ask()

    def _listen_if_due(self, now: float) -> None:
        if now >= self._serve_due:
            served = self._problems.attempt("metrics", self._listen)
            self._serve_due = _NEVER if served else now + _SERVE_RETRY

    def _wait(self) -> None:
        """Wait until something is due or a message has come; take all messages that have come."""
        connected = self._link.hypervisor is not None
        due = min(self._check_pace.due, self._report_pace.due) if connected else self._link.due
        seconds = max(0.0, min(due, self._look_pace.due, self._serve_due) - time.monotonic())
        if self._notifier.watchdog is not None:
            seconds = min(seconds, self._notifier.watchdog / 3)
        try:
            message = self._inbox.get(timeout=seconds)
            while True:
                self._receive(message)
                message = self._inbox.get_nowait()
        except Empty:
            return

    def _receive(self, message: _Message) -> None:
        match message:
            case _Stop():
                raise message
            case _Served():
                self._serve_due = 0.0
            case _Reload():
                self._problems.attempt("config", self._reload)
            case Pass():
                self._passed(message)
            case Told() if message.event.what is What.LOST:
                self._link.lost(message)
            case Told() if not message.event.guest.startswith(PROBE):
                self._checker.happened(message.event)
                self._watcher.happened(message.event)
                self._look_pace.ask()

    def _reload(self) -> Iterator[Condition]:
        self._config, uri = self._load()
        if uri != self._uri:
            self._uri = uri
            self._link.disconnect()
        self._look_pace = replace(self._look_pace, interval=self._config.look_interval, due=0.0)
        self._check_pace = replace(self._check_pace, interval=self._config.check_interval, due=0.0)
        self._report_pace = replace(
            self._report_pace, interval=self._config.report_interval, due=0.0
        )
        self._serve_due = 0.0
        self._log.info("reloaded", "The configuration was read again.")
        yield from ()

    def _listen(self) -> Iterator[Condition]:
        self._endpoint.serve(self._config.metrics_address, self._config.metrics_port)
        yield from ()

    def _connect(self) -> Iterator[Condition]:
        self._link.connect(self._uri)
        self._checker = Checker()
        yield from ()

    def _away(self) -> Severity:
        """Disconnect from a libvirt that is gone, and return how bad that is.

        It is only a warning as long as libvirt may just be being restarted.
        """
        self._link.disconnect()
        return Severity.WARNING if self._link.restarts else Severity.FAILURE

    def _look(self) -> None:
        begun = _Begun()
        wish = self._watcher.turn(self._link.hypervisor, self._config)
        self._looked = _done(self._look_pace, begun)
        for wanted, pace in (
            (wish.again, self._look_pace),
            (wish.check, self._check_pace),
            (wish.report, self._report_pace),
        ):
            if wanted:
                pace.ask()
        if wish.connect:
            self._link.disconnect()
            self._try_to_connect()

    def _check(self, hypervisor: Hypervisor) -> None:
        begun = _Begun()
        self._problems.attempt("check", lambda: self._findings(hypervisor))
        self._checked = _done(self._check_pace, begun)

    def _findings(self, hypervisor: Hypervisor) -> Iterator[Condition]:
        found = self._checker.checked(self._config, self._uri, self._files, self._directories)
        active = self._watcher.look.active if self._watcher.look is not None else {}
        for condition in put_right(found, hypervisor, active, self._log):
            if condition.code not in KNOWN_BETTER:
                yield condition

    def _report(self, hypervisor: Hypervisor, now: float) -> None:
        """Begin a pass over Placement, where one is used.

        Where a pass is under way, have another one follow it.
        """
        if self._config.placement_mode == "none":
            self._reported = None
            self._problems.attempt("placement", lambda: ())
            self._report_pace.done(ended=now, took=0)
            return
        self._report_again = self._reporter.busy
        if not self._reporter.busy:
            self._reporter.ask(hypervisor, self._config, begun=now)
        self._report_pace.due = _NEVER  # until it is done

    def _passed(self, passed: Pass) -> None:
        self._reporter.busy = False
        ended = time.monotonic()
        self._report_pace.done(ended=ended, took=ended - passed.begun)
        if self._report_again:
            self._report_pace.ask()
        outcome = passed.outcome
        if isinstance(outcome, Report):
            for sentence in outcome.written:
                self._log.info("placement-written", sentence, provider=outcome.provider)
            self._problems.attempt("placement", lambda: map(of_finding, outcome.findings))
        elif not (isinstance(outcome, RamshelfError) and outcome.code in AWAY):
            # That libvirt is away is told already.
            self._problems.failed("placement", outcome)
        if isinstance(outcome, Report) and outcome.done:
            self._reported = Reported(
                done=True,
                owned=outcome.owned,
                succeeded=time.time(),
                total_mib=outcome.total_mib,
                reserved_mib=outcome.reserved_mib,
                allocated_mib=outcome.allocated_mib,
            )
        else:
            self._reported = replace(self._reported or Reported(), done=False)

    def _tell(self) -> None:
        """Log what has changed, and give out the figures."""
        changed = self._problems.tell()
        self._exporter.publish(
            Known(
                config=self._config,
                connected=self._link.hypervisor is not None,
                look=self._watcher.look,
                looked=self._looked,
                checked=self._checked,
                conditions=self._problems.now,
                counts=self._watcher.counts.copy(),
                reported=self._reported,
                bypass_left=bypass().left,
                write_errors=self._watcher.write_errors,
            )
        )
        self._endpoint.renew()
        if changed:
            self._notifier.status(self._status())

    def _status(self) -> str:
        failures = sum(each.severity is Severity.FAILURE for each in self._problems.now)
        guests = len(self._watcher.look.active) if self._watcher.look is not None else 0
        return f"Guests: {guests}, failures: {failures}."


class _Begun:
    """When something began: by the clock, and by the CPU time that was spent until then.

    The latter is that of this process and its children.
    """

    def __init__(self) -> None:
        self.clock = time.monotonic()
        self.cost = _cost()


def _done(pace: Pace, begun: _Begun) -> Took:
    """Note that something is done, and return when, and how long it took.

    Its pace goes by its CPU time: libvirt may have had it wait a minute for a guest that was
    starting.
    """
    ended = time.monotonic()
    pace.done(ended=ended, took=_cost() - begun.cost)
    return Took(ended=time.time(), seconds=ended - begun.clock)


def _cost() -> float:
    """Return the CPU seconds of this process, and of its children that have ended."""
    return sum(os.times()[:4])
