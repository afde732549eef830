"""The ``ramshelf`` command: global options, verbs, errors and exit status.

The verbs' modules are imported when they are used.
"""

import contextlib
import errno
import importlib
import io
import itertools
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click

from ramshelf import __version__
from ramshelf.cli.context import QUIET, VERBOSE, Context
from ramshelf.cli.group import Group, HelpWanted
from ramshelf.core.errors import HostError, InterruptedByUserError, RamshelfError, UsageError
from ramshelf.core.text import printable

_VERBS = {
    "status": "Show how things are: store, hook, agent, guests, and what is wrong.",
    "doctor": "Check the host, the store, the configuration and the guests.",
    "store": "Prepare, resize, show, remove or clean the store.",
    "hook": "Install, remove or check libvirt's hook.",
    "guest": "Start, stop, migrate, list or show file-backed guests.",
    "xml": "Make domain XML file-backed.",
    "capacity": "Show what the store holds and who holds it.",
    "placement": "Show what OpenStack Placement knows about this host, and correct it.",
    "agent": "Run the daemon that watches guests and serves metrics, or make it a service.",
    "explain": "Say what a code means that a command, the doctor or a log has shown.",
    "completion": "Print a shell's completion script.",
    "help": "Show the help of a command.",
}


class _Verbs(Group):
    """Imports a verb's module when it is called, so that each start pays for itself only."""

    def invoke(self, ctx: click.Context) -> Any:
        """Do as click does, but for Ctrl-C: click prints an empty line before it passes it on."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise InterruptedByUserError from None

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
    epilog=(
        "Example: ramshelf store create --kind swap --size 64G --file /srv/ramshelf.swap --dry-run"
    ),
)
@click.option(
    "--config-file",
    "config_files",
    multiple=True,
    metavar="FILE",
    help=(
        "Read FILE instead of nova.conf, nova-compute.conf and ramshelf.conf; repeatable, the last "
        "one wins."
    ),
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
@click.option("--no-headers", is_flag=True, help="Print only the rows of tables, for scripts.")
@click.option("-v", "--verbose", is_flag=True, help=VERBOSE)
@click.option("-q", "--quiet", is_flag=True, help=QUIET)
@click.version_option(__version__, prog_name="ramshelf", message="%(prog)s %(version)s")
@click.pass_context
def cli(
    ctx: click.Context,
    config_files: tuple[str, ...],
    config_dirs: tuple[str, ...],
    connect: str | None,
    *,
    as_json: bool,
    no_headers: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """File-backed guest memory for KVM hosts."""
    ctx.obj = Context(
        config_files=config_files,
        config_dirs=config_dirs,
        connect=connect,
        as_json=as_json,
        no_headers=no_headers,
        verbose=verbose,
        quiet=quiet,
    )


def run(argv: Sequence[str]) -> int:
    """Run the command line, and return the exit status.

    It is 0 for done, 1 for refused or failed, 130 after Ctrl-C, 255 for wrong usage or where it
    could not run; the doctor's is 0, 1 or 2.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed, and click 8.1 writes to it all the same
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names are bytes, and the locale may be C: show what cannot be shown, do not fail.
            stream.reconfigure(errors="backslashreplace")
    as_json = "--json" in itertools.takewhile(lambda argument: argument != "--", argv)
    try:
        result = cli.main(args=list(argv), prog_name="ramshelf", standalone_mode=False)
        _flush()
    except HelpWanted as usage:
        _say(usage.format_message())
        return UsageError.exit_status
    except BrokenPipeError:
        return 1
    except (
        Exception,  # noqa: BLE001 - a traceback would be our bug twice over
        KeyboardInterrupt,
    ) as caught:
        if os.environ.get("RAMSHELF_DEBUG"):
            import traceback  # noqa: PLC0415 - only where it is used

            _say(traceback.format_exc().rstrip())
        error = _translated(caught)
        if isinstance(error, InterruptedByUserError) and sys.stderr.isatty():
            _say("")  # the terminal shows ^C
        _say(_document(error) if as_json else _text(error))
        with contextlib.suppress(OSError):
            _flush()
        return error.exit_status
    return result if isinstance(result, int) else 0


_MOUNTED = frozenset({errno.EROFS, errno.ENOSPC, errno.EDQUOT})
"""The errors with which a file system refuses, whoever asks."""


def _translated(error: BaseException) -> RamshelfError:
    """Return the error that a user sees, with a code, whatever was raised."""
    if isinstance(error, RamshelfError):
        return error
    if isinstance(error, KeyboardInterrupt | click.exceptions.Abort):
        return InterruptedByUserError()
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "ramshelf"
        return UsageError(
            "cli.usage",
            _sentence(error.format_message()),
            hint=f"'{command} --help' shows what it takes.",
        )
    if isinstance(error, OSError) and error.errno:
        reason = os.strerror(error.errno)
        where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        facts = {"path": where, "errno": errno.errorcode.get(error.errno, error.errno)}
        sentence = f"{where}: {reason}." if where else f"{reason}."
        if isinstance(error, PermissionError):
            return HostError("system.permission", sentence, hint="Run it as root.", facts=facts)
        hint = (
            f"'findmnt --target {where}' shows what is mounted there."
            if error.errno in _MOUNTED
            else ""
        )
        return HostError("system.io", sentence, hint=hint if where else "", facts=facts)
    return RamshelfError(
        "internal.bug",
        f"This is a bug in ramshelf: {type(error).__name__}: "
        f"{_sentence(str(error) or 'no message')}",
        hint="Please report it with what RAMSHELF_DEBUG=1 shows: set it and run the command again.",
    )


def _sentence(text: str) -> str:
    """Return the text as one line that ends a sentence."""
    line = " ".join(text.split())
    return line if line.endswith((".", "?", "!")) else f"{line}."


def _text(error: RamshelfError) -> str:
    hint = f"\nhint: {printable(error.hint)}" if error.hint else ""
    return f"ramshelf: {printable(error.sentence)} [{error.code}]{hint}"


def _document(error: RamshelfError) -> str:
    import json  # noqa: PLC0415 - only where it is used

    document = {
        "code": error.code,
        "message": error.sentence,
        "hint": error.hint,
        "facts": dict(error.facts),
    }
    return json.dumps({"error": document}, indent=2, default=str)


def _say(text: str) -> None:
    """Print to standard error, if somebody takes it."""
    try:
        click.echo(text, err=True)
    except OSError:
        _silence(sys.stderr)


def _flush() -> None:
    """Write what is buffered now: at the interpreter's end nothing can be said about it."""
    try:
        sys.stdout.flush()
    except OSError:
        _silence(sys.stdout)
        raise


def _silence(stream: TextIO) -> None:
    """Discard what is buffered for a stream that nobody takes."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
