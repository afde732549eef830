"""One thing that the doctor saw."""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import field

from ramshelf.core.record import dataclass


class Severity(enum.Enum):
    """How severe a finding is; the worst one decides the doctor's exit status (0, 0, 1, 2)."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    FAILURE = "failure"

    @property
    def exit_status(self) -> int:
        """The exit status as in ``nova-status upgrade check``: 0 good, 1 warnings, 2 failures."""
        return {"warning": 1, "failure": 2}.get(self.value, 0)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that the doctor found.

    ``code`` is stable (``group.what``); ``sentence`` says what is, ``hint`` what to do.
    """

    code: str
    severity: Severity
    sentence: str
    hint: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The part of the code before the first dot."""
        return self.code.partition(".")[0]


def exit_status(findings: Iterable[Finding]) -> int:
    """Return the doctor's exit status for these findings."""
    return max((finding.severity.exit_status for finding in findings), default=0)
