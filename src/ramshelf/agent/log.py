"""The agent's log: one JSON object a line on standard error."""

import json
import logging
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

from ramshelf.core.agent.conditions import Condition
from ramshelf.core.findings import Severity
from ramshelf.core.secrets import hide
from ramshelf.system.steps import LOGGER

_PRIORITIES = {"error": 3, "warning": 4, "info": 6}
_LEVELS = {
    Severity.FAILURE: "error",
    Severity.WARNING: "warning",
    Severity.INFO: "info",
    Severity.OK: "info",
}


class Log:
    """Writes the lines; ``event`` says what a line is about, and its other keys are stable."""

    def __init__(self) -> None:
        self._journal = _is_journal()

    def info(self, event: str, message: str, **facts: object) -> None:
        """Log that something has happened."""
        self._write("info", event, message, facts)

    def warning(self, event: str, message: str, **facts: object) -> None:
        """Log that something has happened that somebody may want to look at."""
        self._write("warning", event, message, facts)

    def take_in_libraries(self) -> None:
        """Make lines of this log of what libraries warn of, and of the steps that are shown."""
        logging.captureWarnings(True)
        logging.getLogger().addHandler(_Libraries(self))
        logging.getLogger(LOGGER).handlers.clear()

    def begun(self, conditions: Iterable[Condition]) -> None:
        """Log what is wrong from now on."""
        for condition in conditions:
            facts = {"code": condition.code, "hint": condition.hint, "facts": dict(condition.facts)}
            level = _LEVELS[condition.severity]
            self._write(level, "began", condition.sentence, {"subject": condition.subject, **facts})

    def ended(self, conditions: Iterable[Condition]) -> None:
        """Log what is wrong no longer."""
        for condition in conditions:
            subject = f" ({condition.subject})" if condition.subject else ""
            message = f"Resolved: {condition.code}{subject}."
            self._write(
                "info", "ended", message, {"subject": condition.subject, "code": condition.code}
            )

    def _write(self, level: str, event: str, message: str, facts: dict[str, object]) -> None:
        now = time.time()
        clock = (
            f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.localtime(now))}.{int(now % 1 * 1000):03d}"
        )
        line = {
            "time": f"{clock}{time.strftime('%z')}",
            "level": level,
            "event": event,
            "message": message,
            **facts,
        }
        prefix = f"<{_PRIORITIES[level]}>" if self._journal else ""
        with suppress(OSError, ValueError):  # nobody reads it
            sys.stderr.write(f"{prefix}{json.dumps(line, default=str)}\n")
            sys.stderr.flush()


class _Libraries(logging.Handler):
    """Takes what Python's own logging gets: warnings, and of ramshelf's own the steps."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record; an error of a library's is no more than a warning here."""
        if record.name == LOGGER:
            self._log.info("step", record.getMessage())
        elif record.levelno >= logging.WARNING:
            message = hide(" ".join(record.getMessage().split()))
            self._log.warning("library", message, logger=record.name)


def _is_journal() -> bool:
    """Tell whether standard error is the journal.

    The journal takes a line's priority from its start (sd-daemon(3)).
    """
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    with suppress(OSError):
        status = os.fstat(2)
        return (device, inode) == (str(status.st_dev), str(status.st_ino))
    return False
