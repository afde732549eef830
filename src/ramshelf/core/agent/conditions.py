"""What is wrong now, so that it is logged when it begins and when it ends, not at every look."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ramshelf.core.errors import RamshelfError
from ramshelf.core.findings import Finding, Severity

_SUBJECTS = ("guest", "directory", "device", "service", "path", "key")
"""The facts that tell two findings of one code apart, the most telling first."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Something that holds for a while.

    ``subject`` is what it is about, '' for the host as a whole. Code and subject make it the same
    one later, when its figures may have changed.
    """

    code: str
    severity: Severity
    sentence: str
    hint: str = ""
    subject: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """The code and subject by which it is recognised."""
        return self.code, self.subject


def of_finding(finding: Finding) -> Condition:
    """Return a finding of the doctor's as a condition."""
    return Condition(
        code=finding.code,
        severity=finding.severity,
        sentence=finding.sentence,
        hint=finding.hint,
        subject=next((str(finding.facts[name]) for name in _SUBJECTS if name in finding.facts), ""),
        facts=finding.facts,
    )


def of_error(
    error: RamshelfError, severity: Severity = Severity.FAILURE, *, subject: str = ""
) -> Condition:
    """Return an error as a condition, which holds as long as trying again gives the same error."""
    return Condition(
        code=error.code,
        severity=severity,
        sentence=error.sentence,
        hint=error.hint,
        subject=subject,
        facts=error.facts,
    )


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What began and what ended between two looks; one that became worse or milder has begun."""

    begun: tuple[Condition, ...]
    ended: tuple[Condition, ...]


def changes(before: Iterable[Condition], now: Iterable[Condition]) -> Changes:
    """Return what to log; findings that are no problem are no conditions."""
    old = {
        condition.key: condition for condition in before if condition.severity is not Severity.OK
    }
    new = {condition.key: condition for condition in now if condition.severity is not Severity.OK}
    return Changes(
        begun=tuple(
            condition
            for key, condition in new.items()
            if key not in old or old[key].severity is not condition.severity
        ),
        ended=tuple(condition for key, condition in old.items() if key not in new),
    )
