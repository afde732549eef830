"""``ramshelf capacity``: what the store holds, and who holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ramshelf.cli.context import Context, no_headers, pass_context, tell
from ramshelf.cli.guest import running_document
from ramshelf.cli.later import later
from ramshelf.cli.output import Bytes, print_table
from ramshelf.core.errors import ServiceError
from ramshelf.core.units import MIB, align_up, format_size, to_mib

if TYPE_CHECKING:
    from ramshelf.node.guest import look
    from ramshelf.system import hypervisor as libvirt
else:
    look = later("ramshelf.node.guest.look")
    libvirt = later("ramshelf.system.hypervisor")


@click.command(
    "capacity",
    epilog="""\b
Examples:
  ramshelf capacity
  ramshelf capacity --json
""",
)
@no_headers
@pass_context
def command(context: Context) -> None:
    """Show how much guest memory the store can hold, and who holds it.

    CAPACITY is the guest memory that the store can hold. PROMISED is what its guests' memory files
    may come to, USED what these occupy now, FREE what another guest may have, and ABOVE what is
    promised beyond the capacity. RESERVED is what nova.conf keeps back from Placement
    (reserved_host_memory_mb); the hook does not keep it back. Without libvirt the figures are the
    same, but guests have no names.

    With --no-headers the first line is the store's, and each further one a guest's.

    The line about RAM adds up what cannot go to the store if all guests use all the memory they
    have. A guest that needs more RAM than is free, because its memory is in files or pinned, is
    refused.
    """
    config = context.config
    unreachable = ""
    try:
        with libvirt.Hypervisor(context.uri, read_only=True) as hypervisor:
            shares = look.observe_shares(hypervisor, config)
    except ServiceError as error:
        unreachable = error.sentence
        shares = look.observe_shares(None, config)
    capacity, ram = shares.capacity, shares.ram
    reserved_mib = config.reserved_host_memory_mib if config.nova_files else 0
    figures = {
        "CAPACITY": capacity.total,
        "RESERVED": reserved_mib * MIB,
        "PROMISED": capacity.promised,
        "USED": capacity.allocated,
        "FREE": capacity.free,
        "ABOVE": max(0, capacity.promised - capacity.total),
    }
    document = {
        "total_mib": to_mib(capacity.total),  # its name until 0.2
        "capacity_mib": to_mib(capacity.total),
        "reserved_mib": reserved_mib,
        "promised_mib": _mib(capacity.promised),
        "used_mib": _mib(capacity.allocated),
        "free_mib": to_mib(capacity.free),
        "above_mib": _mib(figures["ABOVE"]),
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
                "used_mib": _mib(holding.allocated),
                "allocated_mib": _mib(holding.allocated),  # its name until 0.2
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
            tell(
                "note: File-backed memory is off (file_backed_memory is 0, or not set in "
                "nova.conf)."
            )
        if unreachable:
            tell(f"note: Guests are not named: {unreachable}")
        _warn(shares)
        print_table(context, tuple(figures), [[Bytes(size) for size in figures.values()]])
        if not context.no_headers:
            click.echo(
                f"\nRAM: {format_size(ram.size)}, of which {format_size(ram.demand.total)} are "
                f"needed and {format_size(ram.free)} are free."
            )
            click.echo(f"Needed: {ram.demand.described(format_size)}.")
        if ram.anonymous_alone:
            tell(
                "note: Anonymous guests alone may use up RAM: no guest with memory in files is "
                "admitted."
            )
        rows: list[tuple[object, ...]] = [
            (
                guest.domain.name,
                Bytes(guest.promised),
                Bytes(guest.allocated),
                Bytes(guest.resident),
            )
            for guest in shares.guests
        ]
        owner = "" if unreachable else " (no guest's)"
        rows += [
            (f"{holding.directory}{owner}", Bytes(holding.promised), Bytes(holding.allocated), None)
            for holding in shares.unknown
        ]
        if rows:
            if not context.no_headers:
                click.echo()
            print_table(context, ("GUEST", "PROMISED", "USED", "RESIDENT"), rows)

    context.emit(document, text)


def _warn(shares: look.StoreShares) -> None:
    """Tell who has more than the store's capacity, and for whom it has none."""
    if shares.earlier:
        names = ", ".join(each.name for each in shares.earlier)
        tell(f"note: Promised before an upgrade, and kept beyond the capacity: {names}.")
    if shares.refused_anew:
        names = ", ".join(shares.refused_anew)
        tell(f"note: After a reboot there would be no room for {names}.")


def _mib(size: int) -> int:
    return to_mib(align_up(size, MIB))
