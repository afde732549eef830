"""``ramshelf capacity``: what the store holds, and who holds it."""

import click

from ramshelf.cli.context import Context, pass_context
from ramshelf.cli.guest import running_document
from ramshelf.cli.output import table
from ramshelf.core.errors import ServiceError
from ramshelf.core.units import MIB, align_up, to_mib
from ramshelf.node.guest.look import StoreShares, observe_shares
from ramshelf.system.hypervisor import Hypervisor


@click.command("capacity", epilog="Example: ramshelf capacity --json")
@pass_context
def command(context: Context) -> None:
    """Show what the store can hold and who holds it; sizes in MiB.

    total is the guest memory that the store can hold, promised what its guests' memory files may
    come to, used what they occupy now, free what a further guest may have, above what is promised
    beyond total. reserved is what nova.conf keeps back from Placement (reserved_host_memory_mb);
    the hook does not. Without libvirt the figures are the same, but nobody can be named.

    RAM needed is what cannot go to the store, if all guests use all that they have, and its free
    what further guests may need: those with memory in files, or pinned, are refused where that is
    too little.
    """
    config = context.config
    unreachable = ""
    try:
        with Hypervisor(context.uri, read_only=True) as hypervisor:
            shares = observe_shares(hypervisor, config)
    except ServiceError as error:
        unreachable = error.sentence
        shares = observe_shares(None, config)
    capacity, ram = shares.capacity, shares.ram
    figures = {
        "total_mib": to_mib(capacity.total),
        "reserved_mib": config.reserved_host_memory_mib if config.nova_files else 0,
        "promised_mib": _mib(capacity.promised),
        "used_mib": _mib(capacity.allocated),
        "free_mib": to_mib(capacity.free),
        "above_mib": _mib(max(0, capacity.promised - capacity.total)),
    }
    document = {
        **figures,
        "off": config.off,
        "libvirt": not unreachable,
        "limited_by": capacity.limit_reason,
        "store": {"kind": shares.store.kind.value, "mount_point": shares.store.mount_point},
        "ram": {
            "size_mib": to_mib(ram.size),
            "needed_mib": _mib(ram.demand.total),
            "free_mib": to_mib(ram.free),
            "parts": ram.demand.figures,
            "anonymous_alone": ram.anonymous_alone,
        },
        "guests": [running_document(guest) for guest in shares.guests],
        "unknown": [
            {
                "directory": holding.directory,
                "promised_mib": _mib(holding.promised),
                "allocated_mib": _mib(holding.allocated),
            }
            for holding in shares.unknown
        ],
        "promised_before": [
            {"name": each.name, "uuid": each.uuid, "promised_mib": _mib(each.promised)}
            for each in shares.earlier
        ],
        "refused_after_reboot": list(shares.refused_anew),
    }

    def text() -> None:
        if config.off:
            click.echo(
                "note: File-backed memory is off (file_backed_memory is 0, or not set in "
                "nova.conf).",
                err=True,
            )
        if unreachable:
            click.echo(f"note: Guests are not named: {unreachable}", err=True)
        _warn(shares)
        click.echo(
            table([name.removesuffix("_mib").upper() for name in figures], [list(figures.values())])
        )
        click.echo(
            f"\nRAM {to_mib(ram.size)}, needed {_mib(ram.demand.total)}, free {to_mib(ram.free)}"
        )
        click.echo(f"needed by {ram.demand}")
        if ram.anonymous_alone:
            click.echo(
                "note: Anonymous guests alone may use up RAM: no guest with memory in files is "
                "admitted.",
                err=True,
            )
        rows: list[tuple[object, ...]] = [
            (guest.domain.name, _mib(guest.promised), _mib(guest.allocated), _mib(guest.resident))
            for guest in shares.guests
        ]
        owner = "" if unreachable else " (no guest's)"
        rows += [
            (f"{holding.directory}{owner}", _mib(holding.promised), _mib(holding.allocated), None)
            for holding in shares.unknown
        ]
        if rows:
            click.echo()
            click.echo(table(("GUEST", "PROMISED", "USED", "RESIDENT"), rows))

    context.emit(document, text)


def _warn(shares: StoreShares) -> None:
    """Tell who has more than the store's capacity, and for whom it has none."""
    if shares.earlier:
        names = ", ".join(each.name for each in shares.earlier)
        click.echo(f"note: Promised before an upgrade, and kept beyond total: {names}.", err=True)
    if shares.refused_anew:
        names = ", ".join(shares.refused_anew)
        click.echo(f"note: After a reboot there would be no room for {names}.", err=True)


def _mib(size: int) -> int:
    return to_mib(align_up(size, MIB))
