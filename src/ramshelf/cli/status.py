"""``ramshelf status``: how things are, on one screen.

The exit status is the doctor's: 0 where all is good, 1 with warnings, 2 with failures.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from ramshelf.cli.context import Context, pass_context
from ramshelf.cli.later import later
from ramshelf.cli.notes import documents
from ramshelf.cli.output import Bytes, fields
from ramshelf.core.config import Config
from ramshelf.core.findings import Finding, Severity, exit_status
from ramshelf.core.host import LibvirtHost, Unknown
from ramshelf.core.requirements import dotted
from ramshelf.core.text import printable
from ramshelf.core.units import MIB, align_up, format_size, to_mib

if TYPE_CHECKING:
    from ramshelf.core import status as core
    from ramshelf.core.hook import status as core_hook
    from ramshelf.core.store import capacity as core_capacity
    from ramshelf.core.store import find
    from ramshelf.node import status as node
    from ramshelf.system import worker
else:
    core = later("ramshelf.core.status")
    core_hook = later("ramshelf.core.hook.status")
    core_capacity = later("ramshelf.core.store.capacity")
    find = later("ramshelf.core.store.find")
    node = later("ramshelf.node.status")
    worker = later("ramshelf.system.worker")


@click.command(
    "status",
    epilog="""\b
Examples:
  ramshelf status
  ramshelf status --json
""",
)
@pass_context
def command(context: Context) -> int:
    """Show how things are: store, hook, agent, guests, and what is wrong.

    It shows the doctor's warnings and failures, each in a sentence, but neither has libvirt call
    the hook nor asks Placement: for that, and for what to do, see 'ramshelf doctor'. It changes
    nothing and needs no root; without root it says what it could not find out. It waits about five
    seconds altogether for what does not answer (libvirt, the store). Exit status: 0 nothing is
    wrong, 1 there are warnings, 2 there are failures.
    """
    config = context.config_or_problem
    uri = context.connect or (config if isinstance(config, Config) else Config()).connection_uri
    status = node.look_at_host(
        config,
        uri,
        context.config_files,
        context.config_dirs,
        patience=worker.Patience(each=3, together=5),
    )
    context.emit(document(status), lambda: click.echo(screen(status)))
    return exit_status(status.wrong)


def document(status: core.Status) -> dict[str, object]:
    """Return what ``--json`` prints; what is not known is null."""
    store, capacity, hook, guests = status.store, status.capacity, status.hook, status.guests
    counts = Counter(finding.severity for finding in status.wrong)
    return {
        "off": status.off,
        "store": {
            "kind": store.kind.value if isinstance(store, find.Store) else None,
            "mount_point": store.mount_point if isinstance(store, find.Store) else None,
            "capacity_mib": to_mib(capacity.total)
            if isinstance(capacity, core_capacity.Capacity)
            else None,
            "promised_mib": _mib(capacity.promised)
            if isinstance(capacity, core_capacity.Capacity)
            else None,
            "used_mib": _mib(capacity.allocated)
            if isinstance(capacity, core_capacity.Capacity)
            else None,
            "free_mib": to_mib(capacity.free)
            if isinstance(capacity, core_capacity.Capacity)
            else None,
        },
        "hook": {
            "installed": hook.installed if isinstance(hook, core_hook.HookStatus) else None,
            "seen": hook.seen if isinstance(hook, core_hook.HookStatus) else None,
            "bypass_seconds": hook.bypass.left if isinstance(hook, core_hook.HookStatus) else None,
        },
        "agent": {
            "installed": status.agent.installed,
            "running": status.agent.process is not None,
            "process": status.agent.process,
        },
        "libvirt": {"reachable": isinstance(status.libvirt, LibvirtHost)},
        "guests": {
            "running": guests.running if isinstance(guests, core.GuestSums) else None,
            "file_backed": guests.file_backed if isinstance(guests, core.GuestSums) else None,
            "promised_mib": _mib(guests.promised) if isinstance(guests, core.GuestSums) else None,
            "used_mib": _mib(guests.used) if isinstance(guests, core.GuestSums) else None,
        },
        "findings": documents(status.wrong),
        "summary": {
            "warning": counts[Severity.WARNING],
            "failure": counts[Severity.FAILURE],
            "exit_status": exit_status(status.wrong),
        },
    }


def screen(status: core.Status) -> str:
    """Return the screen as people read it."""
    above = fields(
        (
            ("store", _store(status)),
            *_capacity(status.capacity),
            ("hook", _hook(status.hook)),
            ("agent", _agent(status.agent)),
            ("libvirt", _libvirt(status.libvirt)),
            ("guests", _guests(status.guests)),
        )
    )
    return f"{above}\n\n{_wrong(status.wrong)}"


def _store(status: core.Status) -> str:
    store = status.store
    if isinstance(store, find.Store):
        return f"kind {store.kind.value}, mounted at {store.mount_point}"
    if isinstance(store, find.NoStore) and status.off:
        return "none; file-backed memory is off"
    return "none" if isinstance(store, find.NoStore) else f"unknown: {store.reason}"


def _capacity(
    capacity: core_capacity.Capacity | Unknown,
) -> tuple[tuple[str, Bytes], ...]:
    if isinstance(capacity, Unknown):
        return ()
    return (
        ("capacity", Bytes(capacity.total)),
        ("promised", Bytes(capacity.promised)),
        ("used", Bytes(capacity.allocated)),
        ("free", Bytes(capacity.free)),
    )


def _hook(hook: core_hook.HookStatus | Unknown) -> str:
    if isinstance(hook, Unknown):
        return f"unknown: {hook.reason}"
    if hook.foreign or not hook.installed:
        return "not installed"
    if hook.bypass.left:
        return f"installed, bypassed for another {hook.bypass.left} s"
    called = {
        True: ", called by the running libvirt",
        False: ", not called by the running libvirt",
        None: "; 'ramshelf doctor' finds out whether libvirt calls it",
    }
    return f"installed{called[hook.seen]}"


def _agent(agent: core.AgentState) -> str:
    if agent.process is not None:
        how = "" if agent.installed else ", not as a service"
        return f"running{how} (process {agent.process})"
    return "installed, not running" if agent.installed else "not installed"


def _libvirt(libvirt: LibvirtHost | Unknown) -> str:
    if isinstance(libvirt, Unknown):
        return f"unknown: {libvirt.reason}"
    qemu = libvirt.qemu
    return f"{dotted(libvirt.libvirt)}, QEMU {'-' if isinstance(qemu, Unknown) else dotted(qemu)}"


def _guests(guests: core.GuestSums | Unknown) -> str:
    if isinstance(guests, Unknown):
        return f"unknown: {guests.reason}"
    if not guests.running:
        return "none running"
    text = f"{guests.running} running, {guests.file_backed} of them file-backed"
    promised, used = guests.promised, guests.used
    if not guests.file_backed or isinstance(promised, Unknown) or isinstance(used, Unknown):
        return text
    return f"{text}, using {format_size(used)} of the {format_size(promised)} promised"


def _wrong(findings: tuple[Finding, ...]) -> str:
    if not findings:
        return "Nothing wrong was found."
    lines = [
        f"{'FAILURE' if finding.severity is Severity.FAILURE else 'warning'}  "
        f"{printable(finding.sentence)}  [{finding.code}]"
        for finding in findings
    ]
    return "\n".join((*lines, "", "'ramshelf doctor' says what to do."))


def _mib(size: int | Unknown) -> int | None:
    return None if isinstance(size, Unknown) else to_mib(align_up(size, MIB))
