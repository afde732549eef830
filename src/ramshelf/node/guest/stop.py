"""Ending a guest, by asking it or at once, and what that costs the store's device."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ramshelf.core.config import Config
from ramshelf.core.errors import InterruptedByUserError, RamshelfError, RefusedError
from ramshelf.core.record import replace
from ramshelf.core.requirements import punch_writes_back, version
from ramshelf.core.store.find import Store
from ramshelf.core.store.holdings import Holding
from ramshelf.node.guest.discard import retract
from ramshelf.node.guest.let_go import find_settled
from ramshelf.node.guest.look import described
from ramshelf.node.placement import release
from ramshelf.node.store.holdings import observe_holdings
from ramshelf.system.backingstore import observe_store
from ramshelf.system.counters import bytes_written
from ramshelf.system.hypervisor import Domain, Hypervisor
from ramshelf.system.pagecache import dirty, resident

_POLL = 0.2
"""Seconds between two looks at a guest that is to stop."""

_ASK_AGAIN = 10.0
"""Seconds until a guest that still runs is asked again.

A guest that boots does not hear the first time.
"""

_RARER = 20
"""Looks at a guest's pages take at most one part in so many of the time.

A look takes 5 ms for each GiB in RAM.
"""


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """How a guest ended, and what that cost.

    ``how`` is ``not running`` (before), ``shut down`` (by itself) or ``destroyed``. ``released``:
    bytes that were promised to it. ``written``: bytes that went to the store's device from the
    request until the guest was gone, whoever wrote them. ``dropped``: bytes of its memory that were
    in RAM only when it was last looked at, and never got to the device. The last two are None where
    they are not known.
    """

    name: str
    how: str
    seconds: float
    released: int = 0
    written: int | None = None
    dropped: int | None = None


def stop_guest(
    hypervisor: Hypervisor,
    config: Config,
    name: str,
    *,
    timeout: float,
    progress: Callable[[float], None] = lambda _seconds: None,
    after_step: Callable[[str], None] = lambda _step: None,
) -> Stopped:
    """End a guest as ``end_guest`` does, and give back what it holds of Placement.

    Raises InterruptedByUserError where Ctrl-C comes while it waits for a guest that was asked.
    """
    domain = find_settled(hypervisor, name)
    if not domain.active:
        return Stopped(name=name, how="not running", seconds=0)
    done: list[str] = []

    def step(name: str) -> None:
        done.append(name)
        after_step(name)

    try:
        stopped = end_guest(hypervisor, domain, timeout=timeout, progress=progress, after_step=step)
    except KeyboardInterrupt:
        if "ask" in done and runs(hypervisor, domain):
            raise _asked(name) from None
        raise
    release(hypervisor, config, domain)
    return stopped


def _asked(name: str) -> InterruptedByUserError:
    return InterruptedByUserError(
        f"Interrupted: guest {name} was asked to shut down and still runs.",
        hint=(
            f"It may yet shut down. 'ramshelf guest stop {name}' waits for it again; with --now it "
            "ends it at once."
        ),
        facts={"guest": name},
    )


def end_guest(
    hypervisor: Hypervisor,
    domain: Domain,
    *,
    timeout: float,
    progress: Callable[[float], None] = lambda _seconds: None,
    after_step: Callable[[str], None] = lambda _step: None,
) -> Stopped:
    """Ask a running guest to shut down, and end it when it still runs after ``timeout`` seconds.

    With a ``timeout`` of 0 it is ended at once. ``progress`` is told the seconds waited so far,
    ``after_step`` each step that has been done, for tests that stop there: whatever a killed stop
    leaves is libvirt's to end, or the next stop's. Raises RefusedError ``guest.paused`` for a guest
    that cannot hear.
    """
    begin = time.monotonic()
    name = domain.name
    if timeout and domain.state in {"paused", "pmsuspended"}:
        raise RefusedError(
            "guest.paused",
            f"Guest {name} is {domain.state} and cannot shut down by itself.",
            hint=(
                f"'virsh resume {name}' lets it go on; 'ramshelf guest stop {name} --now' ends it."
            ),
            facts={"guest": name, "state": domain.state},
        )
    cost = _Cost(hypervisor, domain)
    after_step("observe")
    asked = 0.0
    while (waited := time.monotonic() - begin) < timeout:
        if waited >= asked:
            _unless_ended(hypervisor.ask_to_stop, name)
            after_step("ask")
            asked = waited + _ASK_AGAIN
        if not runs(hypervisor, domain):
            return cost.of(Stopped(name=name, how="shut down", seconds=time.monotonic() - begin))
        cost.look()
        progress(waited)
        time.sleep(min(_POLL, timeout))
    cost.look()
    _unless_ended(hypervisor.destroy, name)
    after_step("destroy")
    return cost.of(Stopped(name=name, how="destroyed", seconds=time.monotonic() - begin))


def _unless_ended(do: Callable[[str], None], name: str) -> None:
    """Do it, unless the guest has ended meanwhile.

    A guest that has ended, and is forgotten if it was transient, needs it no more.
    """
    try:
        do(name)
    except RefusedError as error:
        if error.code not in {"guest.state", "guest.not-found"}:
            raise


def runs(hypervisor: Hypervisor, domain: Domain) -> bool:
    """Tell whether this very run of the guest goes on; a guest started anew has another id."""
    try:
        return hypervisor.find(domain.name).domain_id == domain.domain_id
    except RefusedError as error:
        if error.code == "guest.not-found":
            return False
        raise


class _Cost:
    """What the ending of a guest costs; nothing is known of one that is not on the store."""

    def __init__(self, hypervisor: Hypervisor, domain: Domain) -> None:
        self._store: Store | None = None
        self._holding: Holding | None = None
        self._dropped: int | None = None
        self._next = 0.0
        with suppress(RamshelfError, OSError):  # a guest is stopped without figures, too
            observed = observe_store()
            _, held = observe_holdings(hypervisor, observed)
            self._holding = next(
                (holding for holding in held if holding.guest == domain.name), None
            )
            if self._holding is not None and isinstance(observed.store, Store):
                self._store = observed.store
                self._before = bytes_written(observed.store)
                _take_back_discard(hypervisor, domain.name, observed.store)
        self.look()

    def look(self) -> None:
        """See how much of the guest's memory is in RAM only."""
        begin = time.monotonic()
        if self._store is None or self._holding is None or begin < self._next:
            return
        count = resident if self._store.kind.tmpfs else dirty
        with suppress(OSError):  # the guest is just ending
            found = [count(file) for file in self._holding.files]
            known = [each for each in found if each is not None]
            self._dropped = sum(known) if len(known) == len(found) else None
        self._next = begin + _RARER * (time.monotonic() - begin)

    def of(self, stopped: Stopped) -> Stopped:
        """Return the outcome with the figures, now that the guest is gone."""
        if self._store is None or self._holding is None:
            return stopped
        written = bytes_written(self._store) - self._before
        return replace(
            stopped, released=self._holding.promised, written=written, dropped=self._dropped
        )


def _take_back_discard(hypervisor: Hypervisor, name: str, store: Store) -> None:
    """Take the discard flag back where QEMU would write the guest's memory when it ends.

    The guest has the flag where the hook was not there when it started.
    """
    flushes = punch_writes_back(store.mount.fstype, version(os.uname().release))
    if flushes and described(hypervisor.live_xml(name), name).discard:
        retract(hypervisor, name)
