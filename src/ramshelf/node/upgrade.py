"""Looking at what a change of ramshelf's version would change on this host."""

from ramshelf import __version__
from ramshelf.core.agent.unit import AGENT, unit_path
from ramshelf.core.config import Config
from ramshelf.core.doctor.facts import BadConfig
from ramshelf.core.doctor.upgrade import Change, check_upgrade
from ramshelf.core.findings import Finding
from ramshelf.core.record import replace
from ramshelf.core.requirements import Version, version
from ramshelf.core.store.layout import FSTAB, find_claim
from ramshelf.node.doctor import Ask, gather
from ramshelf.system.earlier import hook_is_earlier
from ramshelf.system.filesystem import read_text
from ramshelf.system.worker import Patience


def before_upgrade(
    config: Config | BadConfig,
    uri: str,
    files: tuple[str, ...],
    directories: tuple[str, ...],
    *,
    target: Version | None,
    patience: Patience,
) -> tuple[Finding, ...]:
    """Return what the change to ``target`` (None: to some version) would change or endanger.

    The other arguments are those of the doctor's ``gather``. Placement is not asked, and libvirt is
    not asked whether it calls the hook. Raises OSError.
    """
    if isinstance(config, Config):
        config = replace(config, placement_mode="none")
    facts = gather(config, uri, files, directories, patience=patience, ask=Ask.NEVER)
    store = find_claim(read_text(FSTAB, ""))
    change = Change(
        current=version(__version__),
        target=target,
        earlier_hook=hook_is_earlier(),
        agent_unit=read_text(unit_path(AGENT), ""),
        further=store.further if store else (),
    )
    return check_upgrade(facts, change)
