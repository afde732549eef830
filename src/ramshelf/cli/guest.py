"""``ramshelf guest``: guests on the store, through libvirt."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from ramshelf.cli.context import Context, no_headers, pass_context, tell
from ramshelf.cli.domainfile import named, read_domain
from ramshelf.cli.group import Group
from ramshelf.cli.later import later
from ramshelf.cli.notes import documents, say
from ramshelf.cli.output import Bytes, fields, plan, print_table
from ramshelf.cli.values import Seconds
from ramshelf.core.errors import RefusedError, UsageError
from ramshelf.core.units import MIB, align_up, format_size, to_mib

if TYPE_CHECKING:
    from ramshelf.cli import migrate as cli_migrate
    from ramshelf.core import plan as core_plan
    from ramshelf.core.config import Config
    from ramshelf.core.domain import backing, private
    from ramshelf.core.migration import live
    from ramshelf.node.guest import look
    from ramshelf.node.guest import start as node_start
    from ramshelf.node.guest import stop as node_stop
    from ramshelf.node.guest import trim as node_trim
    from ramshelf.system import hypervisor as libvirt
else:
    cli_migrate = later("ramshelf.cli.migrate")
    core_plan = later("ramshelf.core.plan")
    backing = later("ramshelf.core.domain.backing")
    private = later("ramshelf.core.domain.private")
    live = later("ramshelf.core.migration.live")
    look = later("ramshelf.node.guest.look")
    node_start = later("ramshelf.node.guest.start")
    node_stop = later("ramshelf.node.guest.stop")
    node_trim = later("ramshelf.node.guest.trim")
    libvirt = later("ramshelf.system.hypervisor")

T = TypeVar("T")

_DEFAULT_TIMEOUT = 120
"""Seconds, as many as nova.conf's shutdown_timeout has at most in practice."""


def _names(
    *, active: bool
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return a completion of guests' names, which stays silent whatever happens."""

    def complete(
        ctx: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        options = ctx.find_root().params
        context = Context(
            config_files=options.get("config_files") or (),
            config_dirs=options.get("config_dirs") or (),
            connect=options.get("connect"),
        )
        try:
            with libvirt.Hypervisor(context.uri, read_only=True) as hypervisor:
                names = hypervisor.names(active=active)
        except Exception:  # noqa: BLE001 - an error would be printed into the typed line
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return complete


@click.group("guest", cls=Group)
def command() -> None:
    """Start, stop, migrate, trim, list or show file-backed guests."""


def _complete_start(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    # bash takes the files only where no name fits: so the files come first.
    return [
        CompletionItem(incomplete, type="file"),
        *_names(active=False)(ctx, parameter, incomplete),
    ]


@command.command(
    "start",
    epilog="""\b
Examples:
  ramshelf guest start web1 --dry-run
  ramshelf guest start web1
  ramshelf guest start ./web1.xml
""",
)
@click.argument("guest", metavar="NAME|FILE.xml", shell_complete=_complete_start)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print what would be done and whether the guest fits; change nothing.",
)
@pass_context
def start(context: Context, guest: str, *, dry_run: bool) -> None:
    """Make a guest file-backed and start it.

    NAME is a guest that libvirt knows. With a slash in it, or ending in .xml, it is a file with
    domain XML, whose guest is defined first. If the guest does not start, its definition is put
    back. A guest that already runs is left alone.

    With --dry-run a guest that would be refused is refused as the start would, with the same exit
    status. Only Placement, and whether libvirt calls the hook, are not tried then.
    """
    if dry_run:
        _show_rehearsed(context, _with_guest(context, guest, node_start.rehearse_start))
        return
    started = _with_guest(context, guest, node_start.start_guest)
    document = {
        "name": started.name,
        "already_running": started.already,
        "seconds": round(started.seconds, 3),
        "size_mib": _mib(started.guest.file_bytes),
        "promised_mib": _mib(started.guest.promise),
        "reserved_mib": (
            _mib(started.guest.promise) if started.guest.file_backed and started.guarded else 0
        ),
        "written_mib": _tenths(started.written),
        "notes": documents(started.notes),
    }

    def text() -> None:
        say(started.notes)
        memory = (
            f"{format_size(started.guest.file_bytes)} of file-backed memory"
            if started.guest.file_backed
            else "memory that is not file-backed"
        )
        if started.already:
            click.echo(f"Guest {started.name} runs already, with {memory}.")
        else:
            click.echo(f"Guest {started.name} started in {started.seconds:.1f} s, with {memory}.")
            if started.written is not None:
                reserved = format_size(started.guest.promise) if started.guarded else "Nothing"
                click.echo(
                    f"{reserved} reserved, {format_size(started.written)} written "
                    "to the store's device meanwhile."
                )

    context.report(document, text)


def _with_guest(
    context: Context, guest: str, function: Callable[[libvirt.Hypervisor, Config, str | bytes], T]
) -> T:
    """Call a function for the guest of this name, or for the one that a file describes."""
    if "/" not in guest and not guest.endswith(".xml"):
        with _also_a_file(guest), libvirt.Hypervisor(context.uri) as hypervisor:
            return function(hypervisor, context.config, guest)
    document = read_domain(guest)
    with named(guest):
        backing.parse_document(document)
        with libvirt.Hypervisor(context.uri) as hypervisor:
            return function(hypervisor, context.config, document)


def _show_rehearsed(context: Context, rehearsed: node_start.Rehearsed) -> None:
    capacity, ram, guest = rehearsed.capacity, rehearsed.ram, rehearsed.guest
    document = {
        "dry_run": True,
        "name": rehearsed.name,
        "already_running": rehearsed.already,
        "actions": core_plan.describe(rehearsed.steps),
        "size_mib": _mib(guest.file_bytes),
        "promised_mib": _mib(guest.promise),
        "store_free_mib": to_mib(capacity.free) if capacity else None,
        "ram_needed_mib": _mib(rehearsed.ram_needed) if ram else None,
        "ram_free_mib": to_mib(ram.free) if ram else None,
        "notes": documents(rehearsed.notes),
    }

    def text() -> None:
        say(rehearsed.notes)
        if rehearsed.already:
            click.echo(f"Guest {rehearsed.name} runs already; there is nothing to do.")
            return
        click.echo(plan(rehearsed.steps))
        click.echo()
        if capacity:
            click.echo(
                f"It would be promised {format_size(guest.promise)} of the store, which has "
                f"{format_size(capacity.free)} free."
            )
        else:
            click.echo("Its memory would not be file-backed.")
        if ram:
            click.echo(
                f"It would need {format_size(rehearsed.ram_needed)} of RAM that cannot go to the "
                f"store; {format_size(ram.free)} are free."
            )

    context.emit(document, text)


@contextmanager
def _also_a_file(name: str) -> Iterator[None]:
    """Say how a file is named, where there is one of that name and no such guest."""
    try:
        yield
    except RefusedError as error:
        if error.code == "guest.not-found" and os.path.isfile(name):
            error.hint = (
                f"To start the guest that the file describes: ramshelf guest start ./{name}"
            )
        raise


@command.command(
    "stop",
    epilog="""\b
Examples:
  ramshelf guest stop web1
  ramshelf guest stop web1 --timeout 300
  ramshelf guest stop web1 --now
""",
)
@click.argument("name", metavar="NAME", shell_complete=_names(active=True))
@click.option("--now", is_flag=True, help="End it at once, without asking it to shut down.")
@click.option(
    "--timeout",
    type=Seconds(),
    metavar="SECONDS",
    help=f"How long it may take to shut down before it is ended; default {_DEFAULT_TIMEOUT}.",
)
@pass_context
def stop(context: Context, name: str, *, now: bool, timeout: float | None) -> None:
    """Ask a guest to shut down, and end it if it does not.

    A guest that is not running is left alone.
    """
    if now and timeout is not None:
        raise click.UsageError("--now does not wait, so it does not go together with --timeout.")
    limit = 0.0 if now else timeout or _DEFAULT_TIMEOUT
    terminal = sys.stderr.isatty() and not context.as_json

    def progress(waited: float) -> None:
        if terminal:
            tell(f"\rWaiting for {name} to shut down: {waited:.0f} of {limit:.0f} s ", nl=False)

    try:
        with libvirt.Hypervisor(context.uri) as hypervisor:
            stopped = node_stop.stop_guest(
                hypervisor, context.config, name, timeout=limit, progress=progress
            )
    finally:
        if terminal and not now:
            tell("\r\033[K", nl=False)
    sentence = {
        "not running": f"Guest {name} is not running.",
        "shut down": f"Guest {name} shut down in {stopped.seconds:.1f} s.",
        "destroyed": (
            f"Guest {name} was ended without asking it, in {stopped.seconds:.1f} s."
            if now
            else f"Guest {name} did not shut down within {limit:g} s, so it was ended."
        ),
    }[stopped.how]
    document = {
        "name": name,
        "how": stopped.how,
        "seconds": round(stopped.seconds, 3),
        "released_mib": _mib(stopped.released),
        "written_mib": _tenths(stopped.written),
        "dropped_mib": _tenths(stopped.dropped),
    }

    def text() -> None:
        click.echo(sentence)
        if stopped.written is not None:
            dropped = (
                ""
                if stopped.dropped is None
                else f"{format_size(stopped.dropped)} dropped unwritten, "
            )
            click.echo(
                f"{dropped}{format_size(stopped.written)} written to the store's device meanwhile."
            )

    context.report(document, text)


@command.command(
    "migrate",
    epilog="""\b
Examples:
  ramshelf guest migrate web1 qemu+ssh://root@host2/system --check
  ramshelf guest migrate web1 qemu+ssh://root@host2/system
  ramshelf guest migrate web1 qemu+ssh://root@host2/system --offline
""",
)
@click.argument("name", metavar="NAME", shell_complete=_names(active=True))
@click.argument("destination", metavar="DEST-URI")
@click.option(
    "--check", is_flag=True, help="Say whether the guest can move, and if not, why; move nothing."
)
@click.option(
    "--offline",
    is_flag=True,
    help="Shut it down here, convert its definition for the other host, start it there.",
)
@click.option(
    "--postcopy", is_flag=True, help="Let it run there as soon as all its memory was sent once."
)
@click.option(
    "--auto-converge",
    is_flag=True,
    help="Slow the guest down if it changes memory faster than it can be sent.",
)
@click.option(
    "--parallel",
    type=click.IntRange(min=1, max=255),
    metavar="N",
    help="Send over N connections (QEMU's multifd).",
)
@click.option(
    "--bandwidth",
    type=click.IntRange(min=1),
    metavar="MIB/S",
    help="Send no more than this per second.",
)
@click.option(
    "--migrate-uri",
    metavar="URI",
    help="Where QEMU listens on the other host; default: what libvirt there says.",
)
@click.option(
    "--timeout",
    type=Seconds(),
    metavar="SECONDS",
    help=(
        "With --offline: how long it may take to shut down before it is ended; default "
        f"{_DEFAULT_TIMEOUT}."
    ),
)
@pass_context
def migrate(
    context: Context,
    name: str,
    destination: str,
    *,
    check: bool,
    offline: bool,
    timeout: float | None,
    **live_options: Any,
) -> int:
    """Move a guest to another host, while it runs or (--offline) by stopping it.

    DEST-URI is the other host's libvirt, as for virsh. The hook there says first what the host can
    take, and reserves the guest's memory before anything moves. Ctrl-C stops the migration, and the
    guest runs on here. Its disks have to be there too, at the same paths.
    """
    if offline and any(live_options.values()):
        raise click.UsageError(
            "--offline sends no memory: it does not go together with options of a live migration."
        )
    if "://" not in destination:
        raise UsageError(
            "cli.usage",
            f"{destination!r} is not the URI of another host's libvirt.",
            hint=f"For a host of that name: qemu+ssh://root@{destination}/system",
        )
    if timeout is not None and not offline:
        raise click.UsageError("--timeout is for --offline.")
    wish = live.LiveOptions(
        migrate_uri=live_options["migrate_uri"],
        postcopy=live_options["postcopy"],
        auto_converge=live_options["auto_converge"],
        parallel=live_options["parallel"],
        bandwidth_mib=live_options["bandwidth"],
    )
    return cli_migrate.run(
        context,
        name,
        destination,
        wish,
        check=check,
        offline=offline,
        timeout=timeout or _DEFAULT_TIMEOUT,
    )


@command.command("trim", epilog="Example: ramshelf guest trim web1")
@click.argument("name", metavar="NAME", shell_complete=_names(active=True))
@pass_context
def trim(context: Context, name: str) -> None:
    """Give back the room that a save or a dump has made a guest's memory occupy.

    On a store of kind swap or ram a save or a dump makes all of the guest's memory occupy room,
    whatever the guest has used. This gives back pages in RAM that are zero. The guest runs on,
    except for pauses of about 50 ms. After a restore, a revert to a snapshot with memory, or an
    incoming migration the hook does it by itself.
    """
    with libvirt.Hypervisor(context.uri) as hypervisor:
        trimmed = node_trim.trim_guest(hypervisor, name)
    document = {
        "name": name,
        "seconds": round(trimmed.seconds, 3),
        "examined_mib": _tenths(trimmed.examined),
        "given_back_mib": _tenths(trimmed.given_back),
        "longest_pause_ms": round(trimmed.longest * 1000, 1),
        "pauses": trimmed.pauses,
    }

    def text() -> None:
        click.echo(
            f"Guest {name} gave back {format_size(trimmed.given_back)} of "
            f"{format_size(trimmed.examined)} in RAM, in {trimmed.seconds:.1f} s."
        )
        if trimmed.pauses:
            times = "once" if trimmed.pauses == 1 else f"{trimmed.pauses} times"
            click.echo(f"It was held {times}, for {document['longest_pause_ms']} ms at most.")

    context.report(document, text)


@command.command(
    "list",
    epilog="""\b
Examples:
  ramshelf guest list
  ramshelf guest list --json
  ramshelf guest list --no-headers
""",
)
@no_headers
@pass_context
def list_command(context: Context) -> None:
    """List the guests that run from the store, whoever started them.

    SIZE is what their memory files come to, PROMISED what they may come to, USED what they occupy
    on the store now, and RESIDENT what of them is in RAM.
    """
    with libvirt.Hypervisor(context.uri, read_only=True) as hypervisor:
        running = look.observe_shares(hypervisor, context.config).guests
    header = (
        "NAME",
        "ID",
        "STATE",
        "SIZE",
        "PROMISED",
        "USED",
        "RESIDENT",
        "FILES",
    )
    rows = [
        (
            guest.domain.name,
            guest.domain.domain_id,
            guest.domain.state,
            Bytes(guest.size),
            Bytes(guest.promised),
            Bytes(guest.allocated),
            Bytes(guest.resident),
            " ".join(file.path for file in guest.files),
        )
        for guest in running
    ]
    document = {"guests": [running_document(guest) for guest in running]}
    context.emit(document, lambda: print_table(context, header, rows))


@command.command("show", epilog="Example: ramshelf guest show web1")
@click.argument("name", metavar="NAME", shell_complete=_names(active=True))
@pass_context
def show(context: Context, name: str) -> None:
    """Show how a guest's memory is backed, and what a running one holds on the store."""
    with libvirt.Hypervisor(context.uri) as hypervisor:
        details = look.show_guest(hypervisor, name)
    guest, domain = details.description, details.domain
    shown: dict[str, object] = {
        "name": domain.name,
        "id": domain.domain_id,
        "uuid": domain.uuid,
        "state": domain.state,
        "memory_mib": Bytes(guest.memory),
        "max_memory_mib": Bytes(guest.max_memory),
        "file_backed": guest.file_backed,
        "source": guest.source,
        "access": guest.access,
        "allocation": guest.allocation,
        "discard": guest.discard,
        "hugepages": guest.hugepages,
        "locked": guest.locked,
        "size_mib": Bytes(guest.file_bytes),
        "private_mib": Bytes(guest.private_bytes),
        "promised_mib": Bytes(details.running.promised if details.running else 0),
        "used_mib": Bytes(details.running.allocated if details.running else 0),
        "resident_mib": Bytes(details.running.resident if details.running else 0),
    }
    document = {
        key: _mib(value) if isinstance(value, Bytes) else value for key, value in shown.items()
    }
    files = _file_documents(details.running) if details.running else []

    lines = [(key.removesuffix("_mib").replace("_", " "), value) for key, value in shown.items()]
    document["allocated_mib"] = document["used_mib"]  # its name until 0.2
    lines += [("file", file["path"]) for file in files]
    own = [{"path": each.path, "size_mib": _mib(each.size)} for each in details.own]
    lines += [
        ("own file", f"{each.path} ({format_size(each.size)} by qemu:commandline)")
        for each in details.own
    ]
    notes = tuple(private.private_mapping(guest)) if domain.active else ()

    def text() -> None:
        say(notes)
        click.echo(fields(lines))

    context.emit({**document, "files": files, "own_files": own, "notes": documents(notes)}, text)


def running_document(guest: look.RunningGuest) -> dict[str, object]:
    """Return a running guest for ``--json``."""
    return {
        "name": guest.domain.name,
        "id": guest.domain.domain_id,
        "uuid": guest.domain.uuid,
        "state": guest.domain.state,
        "size_mib": _mib(guest.size),
        "promised_mib": _mib(guest.promised),
        "used_mib": _mib(guest.allocated),
        "allocated_mib": _mib(guest.allocated),  # its name until 0.2
        "resident_mib": _mib(guest.resident),
        "files": _file_documents(guest),
    }


def _file_documents(guest: look.RunningGuest) -> list[dict[str, object]]:
    return [
        {
            "path": file.path,
            "size_mib": _mib(file.size),
            "used_mib": _mib(file.allocated),
            "allocated_mib": _mib(file.allocated),  # its name until 0.2
            "resident_mib": _mib(file.resident),
        }
        for file in guest.files
    ]


def _tenths(size: int | None) -> float | None:
    """Return MiB to a tenth: what was written is told as it is."""
    return None if size is None else round(size / MIB, 1)


def _mib(size: int) -> int:
    """Return MiB, rounded up: what is there is never shown as nothing."""
    return to_mib(align_up(size, MIB))
