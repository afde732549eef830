"""``ramshelf doctor``: every finding at once, grouped, or as JSON.

The exit status is 0 where all is good, 1 with warnings, 2 with failures.
"""

from collections import Counter
from itertools import groupby

import click
from rich.console import Console
from rich.text import Text

from ramshelf.cli.context import Context, pass_context
from ramshelf.core.catalog import GROUPS
from ramshelf.core.config import Config
from ramshelf.core.doctor.checks import check
from ramshelf.core.findings import Finding, Severity, exit_status
from ramshelf.core.text import printable
from ramshelf.node.doctor import gather
from ramshelf.system.worker import Patience

_MARKS = {
    Severity.OK: ("ok", "green"),
    Severity.INFO: ("note", "cyan"),
    Severity.WARNING: ("warning", "yellow"),
    Severity.FAILURE: ("FAILURE", "bold red"),
}
_WIDTH = max(len(mark) for mark, _ in _MARKS.values())


@click.command("doctor", epilog="Example: ramshelf doctor --json")
@pass_context
def command(context: Context) -> int:
    """Check the host, the store, the configuration and the guests.

    It changes nothing and needs no root; without root it says what it could not find out. It waits
    ten seconds altogether for what does not answer (libvirt, the store, Placement). As root it has
    libvirt call the hook for a guest that the hook refuses by its name, which proves that the hook
    is called; other hooks are called for that guest, too. Below a warning or failure stands what to
    do about it. Exit status: 0 all is good, 1 there are warnings, 2 there are failures.
    """
    config = context.config_or_problem
    uri = context.connect or (config if isinstance(config, Config) else Config()).connection_uri
    patience = Patience(each=7, together=9)
    facts = gather(config, uri, context.config_files, context.config_dirs, patience=patience)
    findings = check(facts)
    context.emit(document(findings), lambda: _show(findings))
    return exit_status(findings)


def document(findings: tuple[Finding, ...]) -> dict[str, object]:
    """Return the findings as ``--json`` prints them; its keys are stable."""
    counts = Counter(finding.severity for finding in findings)
    return {
        "findings": [
            {
                "code": finding.code,
                "severity": finding.severity.value,
                "group": finding.group,
                "message": finding.sentence,
                "hint": finding.hint,
                "facts": dict(finding.facts),
            }
            for finding in findings
        ],
        "summary": {
            **{severity.value: counts[severity] for severity in Severity},
            "exit_status": exit_status(findings),
        },
    }


def _show(findings: tuple[Finding, ...]) -> None:
    """Print a line for each finding and one for its hint, with colours only on a terminal."""
    console = Console(highlight=False, soft_wrap=True)
    for group, members in groupby(findings, key=lambda finding: finding.group):
        console.print(Text(GROUPS[group], style="bold"))
        for finding in members:
            console.print(_lines(finding))
    counts = Counter(finding.severity for finding in findings)
    console.print(
        Text(
            f"{_count(counts[Severity.FAILURE], 'failure')}, "
            f"{_count(counts[Severity.WARNING], 'warning')}.",
            style="bold",
        )
    )


def _lines(finding: Finding) -> Text:
    mark, style = _MARKS[finding.severity]
    text = Text.assemble("  ", (mark.ljust(_WIDTH), style), "  ", printable(finding.sentence))
    if finding.severity is not Severity.OK:
        text.append(f"  [{finding.code}]", style="dim")
        if finding.hint:
            text.append(f"\n  {' ' * _WIDTH}  {printable(finding.hint)}")
    return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
