"""``ramshelf hook``: libvirt's hook installed, removed, looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ramshelf.cli.context import Context, pass_context
from ramshelf.cli.group import Group
from ramshelf.cli.later import later
from ramshelf.cli.output import fields, plan
from ramshelf.core.errors import UsageError

if TYPE_CHECKING:
    from ramshelf.core import plan as core_plan
    from ramshelf.core.hook import bypass as core_bypass
    from ramshelf.core.hook import script
    from ramshelf.node.hook import bypass as node_bypass
    from ramshelf.node.hook import manage as node
    from ramshelf.node.store import silence as node_silence
    from ramshelf.system import backingstore, worker
else:
    core_plan = later("ramshelf.core.plan")
    core_bypass = later("ramshelf.core.hook.bypass")
    script = later("ramshelf.core.hook.script")
    node_bypass = later("ramshelf.node.hook.bypass")
    node = later("ramshelf.node.hook.manage")
    node_silence = later("ramshelf.node.store.silence")
    backingstore = later("ramshelf.system.backingstore")
    worker = later("ramshelf.system.worker")

_PATIENCE = 7.0
"""Seconds for the store to answer."""

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")


@click.group("hook", cls=Group)
def command() -> None:
    """Install, remove or check libvirt's hook.

    libvirt calls it around every guest's life, whoever starts the guest. It reserves the guest's
    memory on the store before QEMU runs, or refuses the guest with a sentence that virsh and Nova
    show.
    """


@command.command(
    epilog="""\b
Examples:
  ramshelf hook install --dry-run
  ramshelf --config-file /etc/nova/nova.conf hook install
""",
)
@_DRY_RUN
@pass_context
def install(context: Context, *, dry_run: bool) -> None:
    """Install or update the hook, and make the running libvirt call it.

    Other hooks stay. The hook runs on /usr/bin/python3, from its own copy of the modules that it
    needs, whatever Python ramshelf itself runs on. It remembers the configuration files that you
    name here. Install it again after an upgrade.
    """
    wanted = node.wanted_hook(context.config_files, context.config_dirs)
    outcome = node.install(context.uri, wanted, dry_run=dry_run)
    _report(
        context,
        outcome,
        dry_run=dry_run,
        done=f"The hook is installed at {script.SCRIPT}.",
        nothing="The hook is installed and current.",
    )


@command.command(epilog="Example: ramshelf hook remove --dry-run")
@_DRY_RUN
@pass_context
def remove(context: Context, *, dry_run: bool) -> None:
    """Remove the hook.

    Running guests keep their memory. Nothing is reserved for guests that start afterwards.
    """
    outcome = node.remove(dry_run=dry_run)
    _report(
        context,
        outcome,
        dry_run=dry_run,
        done="The hook is removed.",
        nothing="There is no hook to remove.",
    )


@command.command(epilog="Example: ramshelf hook status --json")
@pass_context
def status(context: Context) -> int:
    """Show whether the hook works and whether libvirt calls it.

    The exit status is 1 unless it is installed, current, executable, working and called. As root
    this has libvirt call the hook for a guest that the hook refuses by its name, which proves that
    it is called; but not while the store does not answer, since libvirt would wait for it.
    """
    found = node.status(node.wanted_hook(context.config_files, context.config_dirs))
    if node.may_probe():
        directory = backingstore.configured_directory()
        silent = node_silence.silence(directory, worker.Patience(each=_PATIENCE))
        found = node.tried(found, context.uri if silent is None else "", again=True)
    document = {
        "path": script.SCRIPT,
        "installed": found.installed,
        "foreign": found.foreign,
        "current": found.current,
        "executable": found.executable,
        "problem": found.problem,
        "seen": found.seen,
        "view": list(found.view),
        **_bypass_fields(found.bypass),
    }
    lines = [
        ("installed", found.installed),
        ("what this ramshelf installs", found.current),
        ("executable", found.executable),
        ("called by the running libvirt", "unknown" if found.seen is None else found.seen),
        ("problem", found.problem or None),
        ("sees differently", "; ".join(found.view) or None),
        ("bypassed", _bypass_text(found.bypass)),
    ]
    context.emit(document, lambda: click.echo(fields(lines)))
    works = found.installed and found.current and found.executable
    works = works and not (found.problem or found.view)
    return 0 if works and found.seen is not False else 1


@command.command(
    epilog="""\b
Examples:
  ramshelf hook bypass --for 30min
  ramshelf hook bypass --end
""",
)
@click.option(
    "--for", "time", metavar="TIME", help="How long: up to 24h, such as 90s, 30min or 2h."
)
@click.option("--end", is_flag=True, help="End it now.")
@pass_context
def bypass(context: Context, *, time: str | None, end: bool) -> None:
    """Let guests start for a time, whatever the hook says.

    For emergencies. Until the bypass ends, guests start that the hook would refuse or cannot decide
    about, and nothing keeps them within the store. Start them with virsh: 'ramshelf guest start'
    itself refuses what does not fit. The hook's log records each of them; the doctor and the
    metrics show the bypass. It ends by itself when the time is up, and when the host boots.
    """
    if (time is None) is not end:
        raise UsageError(
            "hook.bypass-time",
            "Either --for TIME or --end is needed.",
            hint="Such as: ramshelf hook bypass --for 30min",
        )
    now = node_bypass.end() if time is None else node_bypass.begin(core_bypass.parse_time(time))
    said = f"The hook is bypassed for {now.left} s." if now.left else "The hook was not bypassed."
    if end and (now.left or now.guests):
        ended = "is no longer bypassed" if now.left else "was not bypassed any more"
        said = f"The hook {ended}; guests that passed by it: {now.guests}."
    if end:
        now = core_bypass.Bypass(guests=now.guests)
    context.report(_bypass_fields(now), lambda: click.echo(said))


def _bypass_fields(bypass: core_bypass.Bypass) -> dict[str, object]:
    return {"bypass_seconds": bypass.left, "bypassed_guests": bypass.guests}


def _bypass_text(bypass: core_bypass.Bypass) -> str | bool:
    return (
        f"for another {bypass.left} s; guests that passed: {bypass.guests}"
        if bypass.left
        else False
    )


def _report(
    context: Context, outcome: node.HookOutcome, *, dry_run: bool, done: str, nothing: str
) -> None:
    document = {
        "dry_run": dry_run,
        "actions": core_plan.describe(outcome.actions),
        "seen": outcome.seen,
    }

    def text() -> None:
        if dry_run:
            click.echo(plan(outcome.actions))
            return
        click.echo(done if outcome.actions else nothing)
        if outcome.seen:
            click.echo("The running libvirt calls it.")

    (context.emit if dry_run else context.report)(document, text)
