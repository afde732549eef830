"""``ramshelf hook``: libvirt's hook installed, removed, looked at."""

from dataclasses import replace

import click

from ramshelf.cli.context import Context, pass_context
from ramshelf.cli.output import fields, plan
from ramshelf.core.hookscript import SCRIPT
from ramshelf.core.plan import describe
from ramshelf.node import hook

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")


@click.group(name="hook")
def command() -> None:
    """Install, remove or check libvirt's hook.

    libvirt calls it around every guest's life, whoever starts the guest. It reserves the guest's memory on
    the store before QEMU runs, or refuses the guest with a sentence that virsh and Nova show.
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

    Other hooks stay. The script remembers which Python, which ramshelf and which configuration files it was
    installed with, and [ramshelf] strict: whether guests are refused when the hook itself is broken.
    """
    script = hook.wanted_script(context.config, context.config_files, context.config_dirs)
    outcome = hook.install(context.uri, script, dry_run=dry_run)
    _report(
        context,
        outcome,
        dry_run=dry_run,
        done=f"The hook is installed at {SCRIPT}.",
        nothing="The hook is installed and current.",
    )


@command.command(epilog="Example: ramshelf hook remove --dry-run")
@_DRY_RUN
@pass_context
def remove(context: Context, *, dry_run: bool) -> None:
    """Remove the hook.

    Guests that run keep their memory; new ones are no longer reserved.
    """
    outcome = hook.remove(dry_run=dry_run)
    _report(
        context, outcome, dry_run=dry_run, done="The hook is removed.", nothing="There is no hook to remove."
    )


@command.command(epilog="Example: ramshelf hook status --json")
@pass_context
def status(context: Context) -> int:
    """Show whether the hook is in force.

    That is: installed, current, executable and called; exit status 1 where it is not all of it. As root
    it asks libvirt for a guest that the hook refuses by its name, which proves that it is called.
    """
    script = hook.wanted_script(context.config, context.config_files, context.config_dirs)
    found = hook.status(script)
    if found.installed and found.executable and hook.may_probe():
        found = replace(found, seen=hook.probe(context.uri))
    document = {
        "path": SCRIPT,
        "installed": found.installed,
        "current": found.current,
        "executable": found.executable,
        "seen": found.seen,
        "strict": found.strict,
    }

    lines = (
        ("installed", found.installed),
        ("what this ramshelf installs", found.current),
        ("executable", found.executable),
        ("called by the running libvirt", "unknown" if found.seen is None else found.seen),
        ("refuses guests when broken", found.strict),
    )
    context.emit(document, lambda: click.echo(fields(lines)))
    return 0 if found.installed and found.current and found.executable and found.seen is not False else 1


def _report(context: Context, outcome: hook.Outcome, *, dry_run: bool, done: str, nothing: str) -> None:
    document = {"dry_run": dry_run, "actions": describe(outcome.actions), "seen": outcome.seen}

    def text() -> None:
        if dry_run:
            click.echo(plan(outcome.actions))
            return
        click.echo(done if outcome.actions else nothing)
        if outcome.seen:
            click.echo("The running libvirt calls it.")

    context.emit(document, text)
