"""Checks of libvirt's hook, which keeps every guest within the store, whoever starts it."""

from collections.abc import Iterator

from ramshelf.core.catalog import finding, unknown
from ramshelf.core.doctor.facts import Facts
from ramshelf.core.findings import Finding
from ramshelf.core.hook.bypass import Bypass
from ramshelf.core.hook.script import SCRIPT
from ramshelf.core.hook.status import HookStatus
from ramshelf.core.host import Unknown
from ramshelf.core.migration.view import other_view


def check_hook(facts: Facts) -> Iterator[Finding]:
    """Check that the hook is installed, executable, called by the running daemon, and up to date.

    It is up to date where it is what this version would install.
    """
    hook = facts.hook
    if isinstance(hook, Unknown):
        yield unknown("hook.status-unknown", "libvirt's hook cannot be looked at", hook)
    else:
        yield from bypassed(hook.bypass)
        yield from _installed(hook)


def bypassed(bypass: Bypass) -> Iterator[Finding]:
    """Yield a finding while guests pass whatever the hook says."""
    if bypass.left:
        guests = f"{bypass.guests} guest{'' if bypass.guests == 1 else 's'}"
        yield finding(
            "hook.bypassed",
            f"libvirt's hook is bypassed for another {bypass.left} s; {guests} passed by it so "
            "far.",
        )


def _installed(hook: HookStatus) -> Iterator[Finding]:
    if hook.foreign:
        yield finding(
            "hook.foreign",
            f"{SCRIPT} was not made by ramshelf: nothing keeps guests within the store.",
        )
    elif not hook.installed:
        yield finding(
            "hook.missing",
            "libvirt's hook is not installed: nothing keeps guests within the store.",
        )
    elif not hook.executable:
        yield finding(
            "hook.not-executable", "libvirt's hook is not executable, so libvirt passes it over."
        )
    else:
        if hook.problem:
            yield finding("hook.broken", f"libvirt's hook does not work: {hook.problem}.")
        if hook.view:
            yield finding("hook.other-view", other_view(hook.view))
        if not hook.current:
            yield finding(
                "hook.outdated", "libvirt's hook is not what this ramshelf would install."
            )
        if hook.seen is None:
            yield finding(
                "hook.seen-unknown",
                "Whether the running libvirt daemon calls the hook is not known.",
            )
        elif not hook.seen:
            yield finding(
                "hook.unseen", "The running libvirt daemon does not call the installed hook."
            )
        elif hook.current and not hook.problem and not hook.view:
            yield finding("hook.ok", "libvirt's hook is installed.")
