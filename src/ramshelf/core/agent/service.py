"""How the agent's units are installed and removed."""

from collections.abc import Mapping
from dataclasses import dataclass

from ramshelf.core.agent.unit import AGENT, HEADER, NAMES, Unit, unit_path
from ramshelf.core.errors import HostError, RefusedError
from ramshelf.core.plan import Action, RemoveFile, Run, WriteFile


@dataclass(frozen=True, kw_only=True)
class Service:
    """What is there of the service.

    ``texts`` are those of the units that ``agent install`` wrote, ``shipped`` those that a package
    has, by their names. ``enabled``: systemd starts the agent at boot. ``runs``: it does now.
    ``systemd``: that runs here.
    """

    texts: Mapping[str, str]
    shipped: Mapping[str, str]
    enabled: bool
    runs: bool
    systemd: bool


def plan_install(found: Service, wanted: tuple[Unit, ...]) -> tuple[Action, ...]:
    """Return the actions that are missing until the service runs with these units.

    Where a package has the same, its units are the service, and others make way. The agent's has
    systemd start, stop and restart the others with it. Raises HostError, RefusedError.
    """
    _refuse(found)
    if all(found.shipped.get(unit.name) == unit.shipped for unit in wanted):
        changes = _removals(found)
    else:
        changes = _writes(found, wanted)
    if not changes and found.enabled and found.runs:
        return ()
    reload = Run(why="Have systemd read it", argv=("systemctl", "daemon-reload"))
    return (
        *changes,
        *((reload,) if changes else ()),
        # A link to a unit that has made way is replaced by that.
        Run(why="Start it at every boot", argv=("systemctl", "reenable", AGENT)),
        Run(why="Start it now, or restart it where it runs", argv=("systemctl", "restart", AGENT)),
    )


def _writes(found: Service, wanted: tuple[Unit, ...]) -> tuple[Action, ...]:
    return tuple(
        WriteFile(
            why=f"Describe {unit.name} to systemd",
            path=unit.path,
            text=unit.text,
            before=found.texts.get(unit.name),
        )
        for unit in wanted
        if found.texts.get(unit.name) != unit.text
    )


def _removals(found: Service) -> tuple[Action, ...]:
    return tuple(
        RemoveFile(why=f"Remove {name}", path=unit_path(name), before=found.texts[name])
        for name in NAMES
        if name in found.texts
    )


def plan_remove(found: Service) -> tuple[Action, ...]:
    """Undo what ``install`` did; units that a package has stay, disabled.

    Raises HostError, RefusedError.
    """
    there = [name for name in NAMES if name in found.texts]
    if not there and not found.enabled and not found.runs:
        return ()
    _refuse(found)
    # The others are stopped with it, and it is removed last: who goes on finds it.
    known = AGENT in there or found.enabled or found.runs
    stop = ("disable", "--now", AGENT) if known else ("stop", *there)
    forget = Run(why="Have systemd forget it", argv=("systemctl", "daemon-reload"))
    return (
        Run(why="Stop it, and do not start it at boot", argv=("systemctl", *stop)),
        *_removals(found),
        *((forget,) if there else ()),
    )


def _refuse(found: Service) -> None:
    for name, text in found.texts.items():
        if not text.startswith(HEADER):
            raise RefusedError(
                "agent.foreign",
                f"{unit_path(name)} was not made by ramshelf.",
                hint="Remove or rename it, if the agent is to be a service that ramshelf made.",
                facts={"path": unit_path(name)},
            )
    if not found.systemd:
        raise HostError(
            "agent.no-systemd",
            "systemd does not run here.",
            hint=(
                "Have whatever starts services here run 'ramshelf agent run'; it stays in the "
                "foreground."
            ),
        )
