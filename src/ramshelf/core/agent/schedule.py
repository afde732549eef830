"""When the agent does what, by pure arithmetic over the seconds of one clock."""

from dataclasses import dataclass

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two tries to reach what does not answer."""


@dataclass(kw_only=True)
class Pace:
    """How often something is done, and when it is ``due``.

    ``interval``: seconds between two turns that nobody asked for. One that was asked for (by an
    event) comes after ``pause`` at the soonest, and never so soon that all of them take more than
    one part in ``share`` of the time: a storm of events cannot make the agent busy.

    What a turn takes is what it costs, by the caller's measure: one that only waits for another
    makes nobody busy, and must not be kept from coming back.
    """

    interval: float
    pause: float
    share: float
    due: float = 0.0
    _soonest: float = 0.0

    def done(self, *, ended: float, took: float) -> None:
        """Note that it was just done, and took so many seconds."""
        self._soonest = ended + max(self.pause, self.share * took)
        self.due = max(ended + self.interval, self._soonest)

    def ask(self) -> None:
        """Make it due as soon as may be."""
        self.due = min(self.due, self._soonest)


def retry_pause(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row, which double up to a bound."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** max(0, min(failures, 16) - 1))
