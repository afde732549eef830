"""The hook's break-glass bypass on this host: beginning it, ending it, looking at it."""

import os
import time
from contextlib import suppress

from ramshelf.core.errors import HostError
from ramshelf.core.hook.bypass import Bypass, seconds_left
from ramshelf.system.filesystem import RUN_DIR, read_text
from ramshelf.system.hooklog import record
from ramshelf.system.hooklogfollower import Follower
from ramshelf.system.textfiles import write_atomically

_FILE = f"{RUN_DIR}/bypass"


def begin(seconds: int) -> Bypass:
    """Let guests pass for so many seconds from now on, whatever is left of a bypass before."""
    _require_root()
    os.makedirs(RUN_DIR, mode=0o755, exist_ok=True)
    record("bypass", seconds=seconds)
    write_atomically(_FILE, f"{int(_clock()) + seconds}\n")
    return bypass()


def end() -> Bypass:
    """End the bypass now, and return it.

    That is the bypass that was ended, or that had ended by itself since it was begun.
    """
    _require_root()
    if not os.path.exists(_FILE):
        return Bypass()
    ended = Bypass(left=bypass().left, guests=_passed())
    with suppress(FileNotFoundError):
        os.unlink(_FILE)
        record("bypass-ended", guests=ended.guests)
    return ended


def bypass() -> Bypass:
    """Return the bypass that is in force, if one is."""
    try:
        remaining = seconds_left(read_text(_FILE, ""), _clock())
    except OSError:
        remaining = 0
    return Bypass(left=remaining, guests=_passed() if remaining else 0)


def _passed() -> int:
    """Count how many times guests have passed since the bypass was last begun.

    The hook's log tells.
    """
    count = 0
    log = Follower()
    with suppress(OSError):  # the log is for root alone
        for entry in log.entries():
            count = (
                0 if entry.get("event") == "bypass" else count + (entry.get("event") == "bypassed")
            )
    log.close()
    return count


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _require_root() -> None:
    if os.geteuid() != 0:
        raise HostError(
            "hook.needs-root", "Only root can bypass the hook.", hint="Run it with sudo."
        )
