"""``ramshelf doctor``: every finding at once, grouped, or as JSON.

The exit status is 0 where all is good, 1 with warnings, 2 with failures.
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING

import click

from ramshelf.cli.context import Context, pass_context
from ramshelf.cli.later import later
from ramshelf.core.config import Config
from ramshelf.core.findings import Finding, Severity, exit_status
from ramshelf.core.text import printable

if TYPE_CHECKING:
    from ramshelf.cli import bundle as cli_bundle
    from ramshelf.core import catalog, requirements
    from ramshelf.core.doctor import checks
    from ramshelf.node import doctor as node
    from ramshelf.node import upgrade as node_upgrade
    from ramshelf.system import worker
else:
    cli_bundle = later("ramshelf.cli.bundle")
    catalog = later("ramshelf.core.catalog")
    checks = later("ramshelf.core.doctor.checks")
    requirements = later("ramshelf.core.requirements")
    node = later("ramshelf.node.doctor")
    node_upgrade = later("ramshelf.node.upgrade")
    worker = later("ramshelf.system.worker")

_MARKS = {
    Severity.OK: ("ok", "green", None),
    Severity.INFO: ("note", "cyan", None),
    Severity.WARNING: ("warning", "yellow", None),
    Severity.FAILURE: ("FAILURE", "red", True),
}
_WIDTH = max(len(mark) for mark, _, _ in _MARKS.values())


@click.command(
    "doctor",
    epilog="""\b
Examples:
  ramshelf doctor
  ramshelf doctor --json
  ramshelf doctor --bundle
  ramshelf doctor --before-upgrade
  ramshelf doctor --before-upgrade 0.1.0
""",
)
@click.option(
    "--bundle",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help=(
        "Write an archive for whoever helps (tar.gz): findings, facts, logs, versions and "
        "configuration, with secrets masked. Default: a name with host and time, in this directory."
    ),
)
@click.option(
    "--before-upgrade",
    "version",
    is_flag=False,
    flag_value="",
    metavar="[VERSION]",
    help=(
        "Say what an upgrade or a rollback of ramshelf would change or endanger here; VERSION is "
        "the one to come."
    ),
)
@pass_context
def command(context: Context, *, bundle: str | None, version: str | None) -> int:
    """Check the host, the store, the configuration and the guests.

    It changes nothing and needs no root; without root it says what it could not find out. It waits
    ten seconds altogether for what does not answer (libvirt, the store, Placement). As root it has
    libvirt call the hook for a guest that the hook refuses by its name, which proves that the hook
    is called; other hooks are called for that guest, too. Below a warning or failure stands what to
    do about it. Exit status: 0 all is good, 1 there are warnings, 2 there are failures.

    With --bundle it prints no findings and exits with 0 once the archive is written; what could not
    be read, or did not answer, is named in the archive.

    With --before-upgrade the findings are about a change of ramshelf's version, and Placement is
    not asked.
    """
    if bundle is not None and version is not None:
        raise click.UsageError("--bundle and --before-upgrade do not go together.")
    if bundle is not None:
        return cli_bundle.bundle(context, bundle)
    config = context.config_or_problem
    uri = context.connect or (config if isinstance(config, Config) else Config()).connection_uri
    patience = worker.Patience(each=7, together=9)
    named = context.config_files, context.config_dirs
    if version is None:
        findings = checks.check(node.gather(config, uri, *named, patience=patience))
    else:
        target = _version(version)
        findings = node_upgrade.before_upgrade(
            config, uri, *named, target=target, patience=patience
        )
    context.emit(document(findings), lambda: _show(findings))
    return exit_status(findings)


def _version(text: str) -> tuple[int, int, int] | None:
    """Return the version to come, None for ''; raises click's UsageError for what is none."""
    try:
        return requirements.version(text) if text else None
    except ValueError as error:
        raise click.UsageError(f"--before-upgrade: {error}.") from None


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
    for group, members in groupby(findings, key=lambda finding: finding.group):
        click.secho(catalog.GROUPS[group], bold=True)
        for finding in members:
            click.echo(_lines(finding))
    counts = Counter(finding.severity for finding in findings)
    click.secho(
        f"{_count(counts[Severity.FAILURE], 'failure')}, "
        f"{_count(counts[Severity.WARNING], 'warning')}.",
        bold=True,
    )


def _lines(finding: Finding) -> str:
    mark, colour, bold = _MARKS[finding.severity]
    text = f"  {click.style(mark.ljust(_WIDTH), fg=colour, bold=bold)}  "
    text += printable(finding.sentence)
    if finding.severity is not Severity.OK:
        text += click.style(f"  [{finding.code}]", dim=True)
        if finding.hint:
            text += f"\n  {' ' * _WIDTH}  {printable(finding.hint)}"
    return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
