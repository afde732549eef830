"""What is wrong now, by the step that found it: logged when it begins and when it ends."""

import os
import traceback
from collections.abc import Callable, Iterable

from ramshelf.agent.log import Log
from ramshelf.core.agent.conditions import Condition, changes, of_error
from ramshelf.core.errors import HostError, RamshelfError
from ramshelf.core.findings import Severity
from ramshelf.core.record import replace
from ramshelf.core.secrets import hide

AWAY = frozenset({"libvirt.unreachable", "libvirt.connection-lost", "libvirt.no-answer"})
"""The errors of a libvirt that is not there.

They are one condition, whatever was asked of it first, until it is back.
"""


class Problems:
    """What is wrong by step: each step's problems hold until the step is done again.

    ``away`` is called when libvirt is found gone, and says how bad that is by now.
    """

    def __init__(self, log: Log, away: Callable[[], Severity]) -> None:
        self._log = log
        self._away = away
        self._by_step: dict[str, tuple[Condition, ...]] = {}
        self._logged: tuple[Condition, ...] = ()

    def attempt(self, name: str, step: Callable[[], Iterable[Condition]]) -> bool:
        """Do a step, and tell whether it ended well.

        What it gives is wrong from now on, or else that it failed.
        """
        try:
            self._by_step[name] = tuple(step())
        except Exception as error:  # noqa: BLE001 - whatever it is, the agent goes on
            self.failed(name, error)
            return False
        return True

    def failed(self, name: str, error: Exception) -> None:
        """Note that the step could not be done."""
        if isinstance(error, RamshelfError) and error.code in AWAY:
            severity = self._away()
            known = self._by_step.get("libvirt", ())
            first = known[0] if known and known[0].code in AWAY else of_error(error)
            self._by_step["libvirt"] = (replace(first, severity=severity),)
        else:
            self._by_step[name] = (condition_of(error, name),)

    def of(self, name: str) -> tuple[Condition, ...]:
        """Return what the step has found last."""
        return self._by_step.get(name, ())

    @property
    def now(self) -> tuple[Condition, ...]:
        """All that was wrong when it was told last."""
        return self._logged

    def tell(self) -> bool:
        """Log what has begun and ended since the last time; tell whether anything has."""
        found = {each.key: each for conditions in self._by_step.values() for each in conditions}
        now = tuple(each for each in found.values() if each.severity is not Severity.OK)
        changed = changes(self._logged, now)
        self._log.ended(changed.ended)
        self._log.begun(changed.begun)
        self._logged = now
        return bool(changed.begun or changed.ended)


def condition_of(error: Exception, subject: str) -> Condition:
    """Return what any exception says as a condition.

    ``subject`` tells apart those that have no code of their own.
    """
    if isinstance(error, RamshelfError):
        return of_error(error)
    if isinstance(error, OSError) and error.errno:
        where = (
            f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        )
        return of_error(
            HostError("system.io", f"{where}{os.strerror(error.errno)}."), subject=subject
        )
    bug = RamshelfError(
        "internal.bug",
        f"This is a bug in ramshelf: {type(error).__name__}: {hide(str(error))}",
        hint="Please report it with this line of the log.",
        facts={"traceback": hide("".join(traceback.format_exception(error)))},
    )
    return of_error(bug, subject=subject)
