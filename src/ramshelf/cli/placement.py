"""``ramshelf placement``: this host in OpenStack Placement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ramshelf.cli.context import Context, no_headers, pass_context
from ramshelf.cli.group import Group
from ramshelf.cli.later import later
from ramshelf.cli.notes import documents, say
from ramshelf.cli.output import Bytes, fields, print_table
from ramshelf.core.errors import ConfigError, HostError, ServiceError
from ramshelf.core.findings import Finding, Severity
from ramshelf.core.units import MIB

if TYPE_CHECKING:
    from ramshelf.core import placement as core_placement
    from ramshelf.core.doctor.checks import placement as checks
    from ramshelf.core.store import find
    from ramshelf.node import placement as node
    from ramshelf.system import backingstore
    from ramshelf.system import hypervisor as libvirt
    from ramshelf.system import placement as service
else:
    core_placement = later("ramshelf.core.placement")
    checks = later("ramshelf.core.doctor.checks.placement")
    find = later("ramshelf.core.store.find")
    node = later("ramshelf.node.placement")
    backingstore = later("ramshelf.system.backingstore")
    libvirt = later("ramshelf.system.hypervisor")
    service = later("ramshelf.system.placement")


@click.group("placement", cls=Group)
def command() -> None:
    """Show what OpenStack Placement knows about this host, and correct it."""


@command.command("show", epilog="Example: ramshelf placement show --json")
@no_headers
@pass_context
def show(context: Context) -> None:
    """Show this host's resource provider and who has memory allocated on it.

    It asks the Placement that [ramshelf] placement names, and changes nothing.
    """
    with (
        libvirt.Hypervisor(context.uri, read_only=True) as hypervisor,
        _placement(context, hypervisor) as placement,
    ):
        compared = node.compare(placement, lambda: node.look_at_host(hypervisor, context.config))
    observed, truth = compared.observed, compared.truth
    findings = checks.judge_provider(compared)
    names = {guest.uuid: guest.name for guest in truth.guests}
    inventory = vars(observed.inventory) if observed.inventory else {}
    rows = [
        (uuid, names.get(uuid), allocation.memory_mib)
        for uuid, allocation in observed.allocations.items()
    ]
    document = {
        "name": observed.host,
        "uuid": observed.provider,
        "ours": observed.ours,
        "total_mib": inventory.get("total"),
        "reserved_mib": inventory.get("reserved"),
        "allocation_ratio": inventory.get("allocation_ratio"),
        "allocated_mib": observed.allocated_mib,
        "capacity_mib": truth.capacity_mib,
        "traits": sorted(observed.traits),
        "allocations": [
            {"uuid": uuid, "guest": name, "memory_mib": size} for uuid, name, size in rows
        ],
        "findings": documents(findings),
    }

    def plain(name: str) -> object:
        value = document[name]
        return Bytes(value * MIB) if name.endswith("_mib") and isinstance(value, int) else value

    def text() -> None:
        _say(findings)
        shown = (
            "name",
            "uuid",
            "ours",
            "total_mib",
            "reserved_mib",
            "allocation_ratio",
            "allocated_mib",
        )
        lines = [(name.removesuffix("_mib").replace("_", " "), plain(name)) for name in shown]
        if not context.no_headers:
            click.echo(fields([*lines, ("traits", " ".join(sorted(observed.traits)) or None)]))
        if rows:
            if not context.no_headers:
                click.echo()
            print_table(
                context,
                ("CONSUMER", "GUEST", "MEMORY"),
                [(uuid, name, Bytes(size * MIB)) for uuid, name, size in rows],
            )

    context.emit(document, text)


@command.command("report", epilog="Example: ramshelf placement report")
@pass_context
def report(context: Context) -> None:
    """Tell Placement once what this host has; the agent does so all the time.

    It writes only with placement_owner = true, and only to the provider that ramshelf itself has
    made. Where nova-compute runs, it only compares.
    """
    with (
        libvirt.Hypervisor(context.uri) as hypervisor,
        _placement(context, hypervisor) as placement,
    ):
        done = node.reconcile(placement, lambda: node.look_at_host(hypervisor, context.config))
    if not done.done:
        raise ServiceError(
            done.code, done.sentence, hint=done.hint, facts={"written": done.written}
        )
    document = {
        "code": done.code,
        "owned": done.owned,
        "uuid": done.provider,
        "total_mib": done.total_mib,
        "reserved_mib": done.reserved_mib,
        "allocated_mib": done.allocated_mib,
        "written": list(done.written),
        "findings": documents(done.findings),
    }

    def text() -> None:
        _say(done.findings)
        for sentence in done.written:
            click.echo(sentence)
        click.echo(done.sentence)

    context.report(document, text)


@command.command(
    "provider-config",
    epilog="Example: ramshelf placement provider-config > /etc/nova/provider_config/ramshelf.yaml",
)
@pass_context
def print_provider_config(context: Context) -> None:
    """Print a provider_config file (YAML) with which nova-compute reports the store's kind."""
    store = backingstore.observe_store().store
    if isinstance(store, find.NoStore):
        raise HostError(store.code, store.sentence, hint=store.hint)
    with libvirt.Hypervisor(context.uri, read_only=True) as hypervisor:
        host = hypervisor.host_name()
    text = core_placement.provider_config(host, store.kind)
    context.emit({"name": host, "yaml": text}, lambda: click.echo(text, nl=False))


def _placement(context: Context, hypervisor: libvirt.Hypervisor) -> service.Placement:
    placement = service.connect(context.config, hypervisor.host_name())
    if placement is None:
        raise ConfigError(
            "placement.unused",
            "No Placement is configured.",
            hint=(
                "Set [ramshelf] placement = remote and the section [placement] as in nova.conf; or "
                "placement = embedded to try it out."
            ),
        )
    return placement


def _say(findings: tuple[Finding, ...]) -> None:
    say(finding for finding in findings if finding.severity is not Severity.OK)
