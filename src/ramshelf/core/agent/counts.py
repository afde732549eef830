"""What the agent has counted since it started: starts, ends, refusals, and bytes written."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ramshelf.core.agent.events import Event, What
from ramshelf.core.units import MIB

UNSEEN = "unseen"
"""The reason of a start or an end of which libvirt told nothing, such as while it was away."""

Run = tuple[str, int | None]
"""A guest's UUID and id, which stand for one run of it."""


def refusal_code(entry: Mapping[str, Any]) -> str | None:
    """Return the error's code where an entry of the hook's log says that a guest was refused.

    The result is None where it says something else.
    """
    match entry.get("event"):
        case "refused":
            return str(entry.get("code", ""))
        case "undecided" if entry.get("vetoed"):
            return str(entry.get("code", ""))
        case "broken" if entry.get("vetoed"):
            return "hook.broken"
    return None


@dataclass(kw_only=True)
class Counts:
    """The counters of the agent's process, which only grow.

    They begin with what the hook's log still holds. ``bypassed`` are guests that passed by the
    hook's break-glass. ``start_written`` are bytes written to the store's device between
    reservation and start, by the hook's log. ``stop_written`` are bytes written to it from the look
    before guests ended to the one after: not all of that is due to the ends, but theirs is in it.
    """

    starts: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    bypassed: int = 0
    late: int = 0
    cleaned: int = 0
    start_written: float = 0
    stop_written: float = 0
    _running: Mapping[Run, str] | None = None
    _written: int = 0
    _told: dict[tuple[What, str], str] = field(default_factory=dict)
    _untold: dict[tuple[What, str], str] = field(default_factory=dict)

    def copy(self) -> "Counts":
        """Return the figures as they are now, to be read by another thread."""
        return replace(
            self, starts=self.starts.copy(), stops=self.stops.copy(), refusals=self.refusals.copy()
        )

    def event(self, event: Event) -> None:
        """Count what libvirt has told."""
        counter = {What.STARTED: self.starts, What.STOPPED: self.stops}.get(event.what)
        if counter is not None:
            counter[event.reason] += 1
            key = event.what, event.uuid
            if key in self._untold:
                del self._untold[key]  # the look saw it before libvirt told
            else:
                self._told[key] = event.guest

    def record(self, entry: Mapping[str, Any]) -> None:
        """Count an entry of the hook's log."""
        code = refusal_code(entry)
        if code is not None:
            self.refusals[code] += 1
        elif entry.get("event") == "bypassed":
            self.bypassed += 1
        elif entry.get("event") == "started":
            self.start_written += max(0.0, float(entry.get("written_mib", 0))) * MIB

    def look(self, running: Mapping[Run, str], written: int) -> tuple[Event, ...]:
        """Count, and return, the starts and ends since the last look that libvirt did not tell of.

        They are counted one look later, since libvirt may still tell of them. ``running`` is the
        names of the guests that run, ``written`` the bytes written to the store's device since it
        has been there.
        """
        before, self._running = self._running, running
        if before is None:
            self._written = written
            return ()
        appeared, gone = running.keys() - before.keys(), before.keys() - running.keys()
        if gone:
            self.stop_written += max(0, written - self._written)
        self._written = written
        unseen = tuple(
            Event(what=what, guest=name, uuid=uuid, reason=UNSEEN)
            for (what, uuid), name in self._untold.items()
        )
        for event in unseen:
            (self.starts if event.what is What.STARTED else self.stops)[UNSEEN] += 1
        changed = {(What.STOPPED, run[0]): before[run] for run in sorted(gone)} | {
            (What.STARTED, run[0]): running[run] for run in sorted(appeared)
        }
        uuids = {uuid for uuid, _ in running}
        changed |= {  # it started and ended between two looks
            (What.STOPPED, uuid): name
            for (what, uuid), name in self._told.items()
            if what is What.STARTED and uuid not in uuids
        }
        self._untold = {key: name for key, name in changed.items() if key not in self._told}
        self._told = {}
        return unseen
