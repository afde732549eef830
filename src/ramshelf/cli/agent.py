"""``ramshelf agent``: the daemon, and its service."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from ramshelf.cli.context import Context, pass_context
from ramshelf.cli.group import Group, HelpWanted
from ramshelf.cli.later import later
from ramshelf.cli.notes import documents, say
from ramshelf.cli.output import plan

if TYPE_CHECKING:
    from ramshelf.agent import loop
    from ramshelf.core import plan as core_plan
    from ramshelf.core.agent import unit
    from ramshelf.core.config import Config
    from ramshelf.node.agent import service
else:
    loop = later("ramshelf.agent.loop")
    core_plan = later("ramshelf.core.plan")
    unit = later("ramshelf.core.agent.unit")
    service = later("ramshelf.node.agent.service")

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")


@click.group("agent", cls=Group, invoke_without_command=True)
@click.option("--metrics-socket", default="", hidden=True)
@click.option("--json", "as_json", is_flag=True, hidden=True)
@click.pass_context
def command(ctx: click.Context, *, metrics_socket: str, as_json: bool) -> None:
    """Run the daemon that watches guests and serves metrics, or make it a service."""
    if as_json:
        ctx.obj = replace(ctx.obj, as_json=True)
    if ctx.invoked_subcommand is not None:
        return
    if not metrics_socket and sys.stdin is not None and sys.stdin.isatty():
        raise HelpWanted(ctx.get_help())
    # Units that were installed before 'agent run' was there call it like this.
    _run(ctx.obj, metrics_socket)


@command.command(
    "run",
    epilog="""\b
Examples:
  ramshelf agent run
  ramshelf --config-file /etc/nova/nova.conf agent run
  curl http://127.0.0.1:10177/metrics
""",
)
@click.option(
    "--metrics-socket",
    metavar="PATH",
    default="",
    help=(
        "Have the program that waits at this Unix socket serve the metrics, without privileges. "
        "The service does; without this option the agent serves them itself."
    ),
)
@pass_context
def run(context: Context, *, metrics_socket: str) -> None:
    """Run the agent in the foreground, until it is told to end.

    It watches guests and the store: it reserves what guests lack that were started without the
    hook, removes what ended guests leave, repeats the doctor's checks, and serves metrics for
    Prometheus. It logs to standard error, one JSON object a line. SIGHUP makes it read the
    configuration again; SIGTERM or Ctrl-C ends it, and guests run on. A host has one agent:
    'ramshelf agent install' makes it a service.
    """
    _run(context, metrics_socket)


def _run(context: Context, metrics_socket: str) -> None:
    def load() -> tuple[Config, str]:
        fresh = Context(
            config_files=context.config_files,
            config_dirs=context.config_dirs,
            connect=context.connect,
        )
        return fresh.config, fresh.uri

    loop.Agent(load, context.config_files, context.config_dirs, metrics_socket).run()


@command.command(epilog="Example: ramshelf agent install --dry-run")
@_DRY_RUN
@pass_context
def install(context: Context, *, dry_run: bool) -> None:
    """Make the agent a systemd service, now and at every boot.

    The service runs this ramshelf with the configuration files that are named here, if any. A
    service that is there already is brought up to date and restarted.
    """
    actions = service.install(
        context.config_files, context.config_dirs, context.connect, dry_run=dry_run
    )
    notes = service.cannot_listen()
    document = {
        "dry_run": dry_run,
        "actions": core_plan.describe(actions),
        "notes": documents(notes),
    }
    done = (
        f"The agent is installed as {unit.AGENT}."
        if actions
        else "The agent is installed and current."
    )

    def text() -> None:
        say(notes)
        click.echo(plan(actions) if dry_run else done)

    (context.emit if dry_run else context.report)(document, text)


@command.command(epilog="Example: ramshelf agent remove --dry-run")
@_DRY_RUN
@pass_context
def remove(context: Context, *, dry_run: bool) -> None:
    """Stop and remove the agent's service; guests, store and hook stay as they are."""
    actions = service.remove(dry_run=dry_run)
    document = {"dry_run": dry_run, "actions": core_plan.describe(actions)}
    done = "The agent's service is removed." if actions else "The agent is not installed."
    emit = context.emit if dry_run else context.report
    emit(document, lambda: click.echo(plan(actions) if dry_run else done))
