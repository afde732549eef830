"""When the agent does what: pure arithmetic over the seconds of one clock."""

from dataclasses import dataclass

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""Between two tries to reach what does not answer."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often something is done.

    ``interval``: seconds between two that nobody asked for. One that was asked for (an event) comes after
    ``pause`` at the soonest, and never so soon that all of them take more than one part in ``share`` of the
    time: a storm of events cannot make the agent busy.
    """

    interval: float
    pause: float
    share: float

    def next(self, *, ended: float, took: float, asked: bool) -> float:
        """When to do it again, if it ``ended`` then and ``took`` so long."""
        rest = max(self.pause, self.share * took)
        return ended + (rest if asked else max(self.interval, rest))


def retry_pause(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubling, bounded."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** max(0, min(failures, 16) - 1))
