"""``ramshelf store``: prepare, resize, show, remove and clean the store."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from ramshelf.cli.context import Context, no_headers, pass_context, tell
from ramshelf.cli.group import Group
from ramshelf.cli.later import later
from ramshelf.cli.output import Bytes, fields, plan, print_table
from ramshelf.cli.values import Size
from ramshelf.core.errors import HostError
from ramshelf.core.store.find import DISK_FILE_SYSTEMS, NoStore, Store
from ramshelf.core.store.kind import Kind
from ramshelf.core.units import MIB, align_up, format_size, to_mib

if TYPE_CHECKING:
    from ramshelf.core import plan as core_plan
    from ramshelf.core.store import facts
    from ramshelf.core.store.directory import GuestDirectory
    from ramshelf.node.store import clean as node_clean
    from ramshelf.node.store import manage as node
    from ramshelf.system import backingstore
else:
    core_plan = later("ramshelf.core.plan")
    facts = later("ramshelf.core.store.facts")
    node_clean = later("ramshelf.node.store.clean")
    node = later("ramshelf.node.store.manage")
    backingstore = later("ramshelf.system.backingstore")

_LIMITS = {"store": "its size", "swap": "its swap", "configured": "file_backed_memory"}
_RESTART = "Restart libvirtd (or virtqemud): it reads memory_backing_dir only when it starts."


@click.group("store", cls=Group)
def command() -> None:
    """Prepare, resize, show, remove or clean the store."""


@command.command(
    "create",
    epilog="""\b
Examples:
  ramshelf store create --kind swap --size 64G --file /srv/ramshelf.swap --dry-run
  ramshelf store create --kind swap --device /dev/nvme1n1
  ramshelf store create --kind disk --fs xfs --device /dev/nvme1n1 --wipe /dev/nvme1n1
  ramshelf store create --kind disk --size 200G --file /srv/ramshelf.img
  ramshelf store create --kind ram --size 2G
""",
)
@click.option(
    "--kind",
    required=True,
    type=click.Choice([kind.value for kind in Kind]),
    help=(
        "swap: tmpfs over swap; disk: a file system; dax: one on persistent memory; ram: tmpfs "
        "alone."
    ),
)
@click.option(
    "--size", type=Size(), metavar="SIZE", help="The size, such as 64G; default: all of the device."
)
@click.option("--device", metavar="DEV", help="An empty block device to use.")
@click.option("--file", metavar="PATH", help="A file to create and use, fully allocated.")
@click.option(
    "--fs",
    "file_system",
    type=click.Choice(DISK_FILE_SYSTEMS),
    help=f"File system of a disk or dax store; default {DISK_FILE_SYSTEMS[0]}.",
)
@click.option(
    "--wipe", metavar="DEV", help="Name the device again if everything on it may be lost."
)
@click.option(
    "--directory",
    metavar="DIR",
    help="Mount the store here instead of at libvirt's default, and set it in qemu.conf.",
)
@click.option(
    "--tmpfs-size",
    type=Size(),
    metavar="SIZE",
    help=(
        "For kind swap: make the store larger than its swap. Nothing guarantees the guests' memory "
        "then: the kernel kills guests that use more than swap and free RAM hold."
    ),
)
@click.option(
    "--dry-run", is_flag=True, help="Print the commands and file changes; change nothing."
)
@pass_context
def create(
    context: Context,
    *,
    kind: str,
    size: int | None,
    device: str | None,
    file: str | None,
    file_system: str | None,
    wipe: str | None,
    directory: str | None,
    tmpfs_size: int | None,
    dry_run: bool,
) -> None:
    """Make the store that guests' memory lies on, now and at every boot.

    It touches nothing that carries data, unless you name it with --wipe. After an interruption run
    it again: it goes on from there. If the store is already what you ask for, it changes nothing.
    """
    spec = facts.Spec(
        kind=Kind(kind),
        size=size,
        device=device,
        file=file,
        file_system=file_system,
        wipe=wipe,
        directory=directory,
        tmpfs_size=tmpfs_size,
    )

    def done(planned: node.Planned) -> None:
        where = planned.layout.mount_point if planned.layout else ""
        if not planned.actions:
            click.echo(f"The store of kind {kind} at {where} is already what you ask for.")
            _tell_capacity(planned)
            return
        click.echo(f"The store of kind {kind} is mounted at {where}, now and at every boot.")
        _tell_capacity(planned)
        if planned.directory_changed:
            click.echo(_RESTART)
        click.echo("Next: ramshelf hook install, then ramshelf doctor.")

    if dry_run:
        _emit(context, node.prepare_create(spec, context.config), dry_run=True, text=done)
        return
    planned = node.create(
        spec,
        context.config,
        tell=_Progress().tell,
        announce=lambda plan: _warn(plan.warnings),
    )
    _emit(context, planned, dry_run=False, text=done, warned=True)


@command.command(
    "resize",
    epilog="""\b
Examples:
  ramshelf store resize --size 128G --dry-run
  lvextend --size 200G vg/ramshelf; ramshelf store resize
""",
)
@click.option(
    "--size",
    type=Size(),
    metavar="SIZE",
    help="The new size of the store, such as 128G; default: all of its device.",
)
@click.option(
    "--dry-run", is_flag=True, help="Print the commands and file changes; change nothing."
)
@pass_context
def resize(context: Context, *, size: int | None, dry_run: bool) -> None:
    """Make the store larger while guests run on it, now and for every boot.

    The size counts as for 'store create'. A store in a file gets a larger file, fully allocated;
    one of kind swap gets a further swap file. A device (a partition, a volume) has to be grown by
    its own tools first. A store never gets smaller. After an interruption run it again: it goes on
    from there.
    """

    def done(planned: node.Planned) -> None:
        if not planned.actions:
            click.echo("The store is already as large as you ask for.")
        else:
            click.echo("The store has the new size, now and at every boot.")
        _tell_capacity(planned)

    if dry_run:
        planned = node.prepare_resize(size, context.config)
    else:
        planned = node.resize(size, context.config, tell=_Progress().tell)
    _emit(context, planned, dry_run=dry_run, text=done)


@command.command("remove", epilog="Example: ramshelf store remove --dry-run")
@click.option(
    "--dry-run", is_flag=True, help="Print the commands and file changes; change nothing."
)
@pass_context
def remove(context: Context, *, dry_run: bool) -> None:
    """Remove the store that 'store create' made, and all that belongs to it.

    It refuses while guests run on the store. In the files that create edited it puts the former
    lines back, and keeps what others have changed since. What lies on the store is lost.
    """

    def done(planned: node.Planned) -> None:
        if not planned.actions:
            click.echo("There is no store that ramshelf made, so there is nothing to remove.")
            return
        click.echo("The store is removed.")
        if planned.directory_changed:
            click.echo(_RESTART)

    planned = node.prepare_remove() if dry_run else node.remove(tell=_Progress().tell)
    _emit(context, planned, dry_run=dry_run, text=done)


@command.command("clean", epilog="Example: ramshelf store clean --dry-run")
@click.option("--dry-run", is_flag=True, help="List the directories; remove nothing.")
@click.option(
    "--without-libvirt",
    is_flag=True,
    help=("Do not ask libvirt but its records in /run, as at boot; refused while libvirt runs."),
)
@no_headers
@pass_context
def clean(context: Context, *, dry_run: bool, without_libvirt: bool) -> None:
    """Remove directories that belong to no guest, as a crash or a power cut leaves them.

    It asks libvirt which guests are active. A guest that runs or is just starting keeps its
    directory.
    """
    if not without_libvirt and not node_clean.list_directories():
        _require_store()
    found = node_clean.find_stale(None if without_libvirt else context.uri)
    removed = () if dry_run else node_clean.clean(found)
    document = {
        "dry_run": dry_run,
        "stale": [_stale(each) for each in found],
        "removed": [each.path for each in removed],
    }

    def text() -> None:
        if not found and not context.no_headers:
            click.echo("Every directory belongs to a guest; there is nothing to remove.")
            return
        rows = [
            (
                each.path,
                Bytes(each.size),
                Bytes(each.allocated),
                "stale" if dry_run else "removed" if each in removed else "kept: in use again",
            )
            for each in found
        ]
        print_table(context, ("DIRECTORY", "PROMISED", "USED", "STATE"), rows)

    (context.emit if dry_run else context.report)(document, text)


def _require_store() -> None:
    """Raise HostError ``store.*`` where there is no store that could have been clean."""
    store = backingstore.observe_store().store
    if isinstance(store, NoStore):
        raise HostError(store.code, store.sentence, hint=store.hint)


def _stale(each: GuestDirectory) -> dict[str, object]:
    return {
        "directory": each.path,
        "promised_mib": to_mib(align_up(each.size, MIB)),
        "used_mib": to_mib(align_up(each.allocated, MIB)),
        "allocated_mib": to_mib(align_up(each.allocated, MIB)),  # its name until 0.2
    }


@command.command("show", epilog="Example: ramshelf store show --json")
@pass_context
def show(context: Context) -> None:
    """Show what the store is, what it holds, and whether it comes back after a reboot."""
    shown = node.show(context.config)
    document = _shown(shown)

    def text() -> None:
        if not isinstance(shown.store, Store):
            click.echo(shown.store.sentence)
            click.echo(f"hint: {shown.store.hint}")
            click.echo()
        lines = (
            (_NAMES.get(key, key.replace("_", " ").removesuffix(" mib")), _plain(key, value))
            for key, value in {**document, **_sizes(shown)}.items()
            if key not in _NOT_SHOWN and value is not None and value not in ("", [], {})
        )
        click.echo(fields(lines))

    context.emit(document, text)


_NOT_SHOWN = frozenset({"problem", "allocated_mib"})
"""What is for ``--json`` alone; ``allocated_mib`` is what ``used_mib`` was called until 0.2."""

_NAMES = {"in_fstab": "mounted at boot", "waited_for_by": "services that wait for it"}


def _shown(shown: node.Shown) -> dict[str, object]:
    store, capacity = shown.store, shown.capacity
    mounted = isinstance(store, Store)
    return {
        "kind": (
            store.kind.value
            if isinstance(store, Store)
            else shown.claim.kind.value
            if shown.claim
            else None
        ),
        "mounted": mounted,
        "mount_point": (
            store.mount_point
            if isinstance(store, Store)
            else shown.claim.mount_point
            if shown.claim
            else None
        ),
        "memory_dir": shown.directory.path,
        "file_system": store.mount.fstype if isinstance(store, Store) else None,
        "device": shown.area or None,
        "file": shown.file or None,
        "size_mib": None if shown.size is None else to_mib(shown.size),
        "capacity_mib": to_mib(capacity.total) if capacity else None,
        "limited_by": capacity.limit_reason if capacity else None,
        "promised_mib": to_mib(align_up(capacity.promised, MIB)) if capacity else None,
        "used_mib": to_mib(align_up(capacity.allocated, MIB)) if capacity else None,
        "allocated_mib": to_mib(align_up(capacity.allocated, MIB)) if capacity else None,
        "free_mib": to_mib(capacity.free) if capacity else None,
        "swap": [
            {"path": path, "size_mib": to_mib(size), "used_mib": to_mib(used)}
            for path, size, used in shown.swap
        ],
        "made_by_ramshelf": shown.claim is not None,
        "in_fstab": shown.in_fstab,
        "waited_for_by": list(shown.drop_ins),
        "problem": (
            None
            if isinstance(store, Store)
            else {"code": store.code, "message": store.sentence, "hint": store.hint}
        ),
    }


def _sizes(shown: node.Shown) -> dict[str, Bytes]:
    """Return the sizes of which the document has MiB, as people read them."""
    sizes = {} if shown.size is None else {"size_mib": shown.size}
    if capacity := shown.capacity:
        sizes |= {
            "capacity_mib": capacity.total,
            "promised_mib": capacity.promised,
            "used_mib": capacity.allocated,
            "free_mib": capacity.free,
        }
    return {key: Bytes(size) for key, size in sizes.items()}


def _plain(key: str, value: object) -> object:
    if isinstance(value, bool | Bytes):
        return value
    if key == "limited_by":
        return _LIMITS[str(value)]
    if key == "swap" and isinstance(value, list):
        return ", ".join(
            f"{area['path']} ({Bytes(area['used_mib'] * MIB)} of {Bytes(area['size_mib'] * MIB)} "
            "used)"
            for area in value
        )
    return ", ".join(value) if isinstance(value, list) else str(value)


def _tell_capacity(planned: node.Planned) -> None:
    if planned.capacity is not None:
        click.echo(
            f"It can hold {format_size(planned.capacity.total)} of guest memory "
            f"(limited by {_LIMITS[planned.capacity.limit_reason]})."
        )


def _warn(warnings: tuple[str, ...]) -> None:
    for sentence in warnings:
        tell(f"warning: {sentence}")


def _emit(
    context: Context,
    planned: node.Planned,
    *,
    dry_run: bool,
    text: Callable[[node.Planned], None],
    warned: bool = False,
) -> None:
    document = {
        "dry_run": dry_run,
        "changed": bool(planned.actions) and not dry_run,
        "actions": core_plan.describe(planned.actions),
        "warnings": list(planned.warnings),
        "capacity_mib": to_mib(planned.capacity.total) if planned.capacity else None,
    }

    def plain() -> None:
        if not dry_run or not planned.actions:
            text(planned)
            return
        click.echo(plan(planned.actions))

    if not warned:
        _warn(planned.warnings)
    (context.emit if dry_run else context.report)(document, plain)


class _Progress:
    """Prints one line for each step as it begins, on standard error.

    On a terminal it has a percentage where a step tells one.
    """

    def __init__(self) -> None:
        self._terminal = os.isatty(2)

    def tell(self, number: int, action: core_plan.Action, fraction: float) -> None:
        """Say which step is under way and how far."""
        line = f"{number + 1}. {action.why}"
        if self._terminal and isinstance(action, core_plan.AllocateFile):
            tell(f"\r{line}: {fraction:.0%}", nl=fraction >= 1)
        elif fraction == 0:
            tell(line)
