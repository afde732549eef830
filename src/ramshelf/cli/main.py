"""The ``ramshelf`` command: global options, the verbs (imported when used), errors and exit status."""

import importlib
import json
import os
import sys
from collections.abc import Sequence

import click

from ramshelf import __version__
from ramshelf.cli.context import Context
from ramshelf.core.errors import RamshelfError

_VERBS = {
    "doctor": "Check the host, the store, the configuration and the guests.",
    "store": "Prepare, show, remove or clean the store.",
    "hook": "Install, remove or check libvirt's hook.",
    "guest": "Start, stop, list or show file-backed guests.",
    "xml": "Make domain XML file-backed.",
    "capacity": "Show what the store holds and who holds it.",
    "completion": "Print a shell's completion script.",
}


class _Verbs(click.Group):
    """Imports a verb's module when it is called, so that each start pays for itself only."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(f"ramshelf.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


@click.command(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: ramshelf store create --kind swap --size 64G --file /srv/ramshelf.swap --dry-run",
)
@click.option(
    "--config-file",
    "config_files",
    multiple=True,
    metavar="FILE",
    help="Read FILE (repeatable; the later wins) instead of nova.conf, nova-compute.conf, ramshelf.conf.",
)
@click.option(
    "--config-dir",
    "config_dirs",
    multiple=True,
    metavar="DIR",
    help="Read DIR's *.conf files after the others.",
)
@click.option("--connect", metavar="URI", help="libvirt connection URI; default qemu:///system.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; sizes end in _mib.")
@click.version_option(__version__, prog_name="ramshelf", message="%(prog)s %(version)s")
@click.pass_context
def cli(
    ctx: click.Context,
    config_files: tuple[str, ...],
    config_dirs: tuple[str, ...],
    connect: str | None,
    *,
    as_json: bool,
) -> None:
    """File-backed guest memory for KVM hosts."""
    ctx.obj = Context(config_files=config_files, config_dirs=config_dirs, connect=connect, as_json=as_json)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 refused or failed, 255 usage or could not run."""
    sys.exit(_run(list(argv) if argv is not None else sys.argv[1:]))


def _run(argv: list[str]) -> int:
    try:
        result = cli.main(args=argv, prog_name="ramshelf", standalone_mode=False)
        sys.stdout.flush()
    except RamshelfError as error:
        _report(error, as_json="--json" in argv)
        return error.exit_status
    except click.exceptions.Abort:
        click.echo("ramshelf: interrupted", err=True)
        return 1
    except KeyboardInterrupt:
        click.echo("ramshelf: interrupted", err=True)
        return 1
    except click.ClickException as error:
        error.show()
        return 255
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


def _report(error: RamshelfError, *, as_json: bool) -> None:
    if as_json:
        document = {
            "error": {
                "code": error.code,
                "message": error.sentence,
                "hint": error.hint,
                "facts": dict(error.facts),
            }
        }
        click.echo(json.dumps(document, indent=2, default=str), err=True)
        return
    click.echo(f"ramshelf: {error.sentence} [{error.code}]", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
