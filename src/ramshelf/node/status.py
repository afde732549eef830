"""Looking at a host for ``ramshelf status``: quickly, and without changing anything."""

import os

from ramshelf.core.agent.unit import AGENT, ENABLED, unit_path
from ramshelf.core.config import Config
from ramshelf.core.doctor.facts import BadConfig
from ramshelf.core.record import replace
from ramshelf.core.status import AgentState, Status, summarise
from ramshelf.node.doctor import Ask, gather
from ramshelf.system.agentlock import agent_process
from ramshelf.system.worker import Patience


def look_at_host(
    config: Config | BadConfig,
    uri: str,
    files: tuple[str, ...],
    directories: tuple[str, ...],
    *,
    patience: Patience,
) -> Status:
    """Return how things are on this host.

    The arguments are those of the doctor's ``gather``. Placement is not asked. libvirt is not asked
    to call the hook: whether it does so is what is known of it.
    """
    if isinstance(config, Config):
        config = replace(config, placement_mode="none")
    facts = gather(config, uri, files, directories, patience=patience, ask=Ask.NEVER)
    return summarise(facts, observe_agent())


def observe_agent() -> AgentState:
    """Return whether the agent runs, and whether it is a service here."""
    installed = any(map(os.path.lexists, (unit_path(AGENT), ENABLED)))
    return AgentState(installed=installed, process=agent_process())
