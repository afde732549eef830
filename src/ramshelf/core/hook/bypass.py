"""The break-glass that lets guests pass for a stated time, whatever the hook says or cannot say.

/run/ramshelf/bypass holds one number: the second after the boot (CLOCK_BOOTTIME, /proc/uptime) at
which it ends. The hook's script reads it by the same rules, so it ends by itself, and a boot ends
it too.
"""

import re

from ramshelf.core.errors import UsageError
from ramshelf.core.record import dataclass

LONGEST = 24 * 3600
"""The longest bypass in seconds; a number that is further ahead is no bypass."""

_DURATION = re.compile(r"(?P<number>[0-9]{1,9})\s*(?P<unit>s|min|h)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}
_UNTIL = re.compile(r"(?P<until>[1-9][0-9]{0,10})\n.*", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Bypass:
    """The bypass as it is.

    ``left`` is in seconds, 0 where there is none; ``guests`` have passed by it since it began.
    """

    left: int = 0
    guests: int = 0


def parse_time(text: str) -> int:
    """Return the seconds of a time such as ``90s``, ``30min`` or ``2h``.

    Raises UsageError ``hook.bypass-time``.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise _unusable(f"{text!r} is not a time with a unit.")
    seconds = int(match["number"]) * _SECONDS[match["unit"]]
    if not 0 < seconds <= LONGEST:
        raise _unusable(f"The hook cannot be bypassed for {text.strip()}.")
    return seconds


def _unusable(sentence: str) -> UsageError:
    return UsageError(
        "hook.bypass-time", sentence, hint="Give a time of up to 24h, such as 90s, 30min or 2h."
    )


def seconds_left(text: str, now: float) -> int:
    """Return the seconds that the bypass still lasts, 0 where there is none.

    ``text`` is the file's, ``now`` the seconds since the boot.
    """
    match = _UNTIL.fullmatch(text)
    remaining = int(match["until"]) - int(now) if match else 0
    return remaining if 0 < remaining <= LONGEST else 0
