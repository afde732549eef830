"""What a change of ramshelf's version would change or endanger on a host, as far as it is known."""

from collections.abc import Iterator

from ramshelf.core.agent.unit import AGENT, LISTENER
from ramshelf.core.catalog import finding
from ramshelf.core.config import Config
from ramshelf.core.doctor.checks import check
from ramshelf.core.doctor.facts import Facts, GuestFacts, StoreFacts
from ramshelf.core.findings import Finding
from ramshelf.core.hook.status import HookStatus
from ramshelf.core.host import Unknown
from ramshelf.core.record import dataclass
from ramshelf.core.requirements import Version, dotted
from ramshelf.core.store.find import Store

_NOTES_SINCE = (0, 2, 0)
"""The version since which promises are noted in /run, and all guests held against RAM."""

_RUNS = '"agent" "run"'
"""How the agent is called since 0.2.0; before it was ``ramshelf agent``."""

_BEARING = frozenset(
    {
        "config.malformed",
        "config.missing",
        "config.unknown-key",
        "config.unreadable",
        "config.value",
        "hook.broken",
        "hook.bypassed",
        "hook.foreign",
        "hook.missing",
        "hook.other-view",
        "hook.status-unknown",
        "store.libvirt-requires",
        "store.memory-lost",
        "store.not-again",
        "store.overpromised",
        "store.promised-before",
        "store.resize-unfinished",
        "versions.libvirt-unreachable",
    }
)
"""Findings of the doctor's that bear on a change of version."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of version: from ``current`` to ``target``, None where that is not said.

    ``earlier_hook``: libvirt calls the script of 0.1.0. ``agent_unit`` is the text of the agent's
    unit, '' where there is none. ``further`` are the swap files that ``store resize`` has added.
    """

    current: Version
    target: Version | None
    earlier_hook: bool
    agent_unit: str
    further: tuple[str, ...] = ()

    @property
    def back(self) -> bool:
        """Whether it goes back to before 0.2.0."""
        return self.target is not None and self.target < _NOTES_SINCE


def check_upgrade(facts: Facts, change: Change) -> tuple[Finding, ...]:
    """Return what the change would endanger, beside the doctor's findings that bear on it."""
    found = [each for each in check(facts) if each.code in _BEARING]
    found += _guests(facts)
    found += _hook(facts, change)
    found += _agent(change)
    found += _option(facts, change)
    if change.back:
        found += _back(facts, change)
    if change.target is not None and change.target > change.current:
        found.append(
            finding(
                "upgrade.version-unknown",
                f"{dotted(change.target)} is later than this ramshelf, {dotted(change.current)}, "
                "which does not know what it changes.",
            )
        )
    if not any(each.severity.exit_status for each in found):
        found.append(
            finding("upgrade.ok", "Nothing was found that a change of version would endanger.")
        )
    return tuple(found)


def _guests(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.guests, Unknown):
        yield finding(
            "upgrade.guests-unknown",
            f"Which guests run is not known: {facts.guests.reason}.",
            reason=facts.guests.reason,
        )
    elif facts.guests:
        names = _names(facts.guests)
        yield finding(
            "upgrade.guests",
            f"These guests run, go on, and keep what they were promised: {', '.join(names)}.",
            guests=names,
        )


def _hook(facts: Facts, change: Change) -> Iterator[Finding]:
    hook = facts.hook
    if not isinstance(hook, HookStatus) or hook.foreign or not hook.installed or hook.current:
        return
    lost = change.earlier_hook and facts.guests != ()
    whose = "that of 0.1.0" if change.earlier_hook else "not what this ramshelf would install"
    yield finding("upgrade.hook-other", f"libvirt's hook is {whose}.", milder=not lost)


def _agent(change: Change) -> Iterator[Finding]:
    if not change.agent_unit:
        return
    if change.back:
        yield finding(
            "upgrade.agent-units",
            f"{AGENT} calls 'agent run', which 0.1.0 does not know; nor does it know {LISTENER}.",
            hint=(
                "Before 0.1.0 is installed: ramshelf agent remove. Once it is: ramshelf agent "
                "install."
            ),
        )
    elif _RUNS not in change.agent_unit:
        yield finding("upgrade.agent-units", f"{AGENT} was made by 0.1.0.")


def _option(facts: Facts, change: Change) -> Iterator[Finding]:
    if not isinstance(facts.config, Config):
        return
    strict = facts.config.settings.get("ramshelf.strict")
    if strict is not None:
        meaning = "has a meaning in 0.1.0" if change.back else "has no effect since 0.2.0"
        yield finding("upgrade.option", f"{strict} {meaning}.", milder=not change.back)


def _back(facts: Facts, change: Change) -> Iterator[Finding]:
    if change.further:
        yield finding(
            "upgrade.swap-files",
            f"0.1.0 does not know of these swap files of the store: {', '.join(change.further)}.",
            files=change.further,
        )
    if isinstance(facts.hook, HookStatus) and facts.hook.bypass.left:
        yield finding("upgrade.bypass-ends", "The hook is bypassed, which 0.1.0 does not know.")
    guests = () if isinstance(facts.guests, Unknown) else facts.guests
    more = _names(tuple(guest for guest in guests if _promised_beyond(guest)))
    if more:
        yield finding(
            "upgrade.promises",
            f"0.1.0 would take less than they were promised for the promise of: {', '.join(more)}.",
            guests=more,
        )
    store = facts.store.store if isinstance(facts.store, StoreFacts) else None
    if isinstance(store, Store) and not store.kind.tmpfs:
        yield finding(
            "upgrade.capacity",
            f"0.1.0 would promise more of the {store.mount.fstype} store than it can hold.",
        )
    yield finding("upgrade.ram", "0.1.0 holds only guests that pin their memory against RAM.")


def _names(guests: tuple[GuestFacts, ...]) -> list[str]:
    return sorted(each.guest.name for each in guests)


def _promised_beyond(guest: GuestFacts) -> bool:
    """Tell whether the guest was promised more than its memory files come to."""
    if isinstance(guest.promised, Unknown) or isinstance(guest.memory_files, Unknown):
        return False
    return guest.promised > sum(file.apparent for file in guest.memory_files)
