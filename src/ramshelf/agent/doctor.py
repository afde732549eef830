"""The doctor's checks, done by the agent, and what of their findings it can put right itself."""

from collections.abc import Iterator, Mapping

from ramshelf.agent.link import PATIENCE
from ramshelf.agent.log import Log
from ramshelf.core.agent.conditions import Condition, of_finding
from ramshelf.core.agent.counts import Run
from ramshelf.core.agent.events import Event
from ramshelf.core.config import Config
from ramshelf.core.doctor.checks import check
from ramshelf.core.errors import RamshelfError, ServiceError
from ramshelf.core.host import Unknown
from ramshelf.core.record import replace
from ramshelf.node.doctor import Ask, describe, gather
from ramshelf.node.guest.discard import retract
from ramshelf.system.hooklog import record
from ramshelf.system.hypervisor import Domain, Hypervisor
from ramshelf.system.worker import Patience

_NOT_FOR_IT = frozenset({"store.thin-unknown"})
"""What only the doctor can find out: the agent's unit has no CAP_SYS_ADMIN to ask device mapper."""


class Checker:
    """Does the checks over one connection.

    What libvirt has said of a guest holds until it tells of a change, so that it is not asked about
    each guest each time.
    """

    def __init__(self) -> None:
        self._described: dict[Run, str] = {}

    def happened(self, event: Event) -> None:
        """Take note of what libvirt has told."""
        self._described = {run: xml for run, xml in self._described.items() if run[0] != event.uuid}

    def checked(
        self, config: Config, uri: str, files: tuple[str, ...], directories: tuple[str, ...]
    ) -> tuple[Condition, ...]:
        """Return all of the doctor's findings but for those about Placement.

        The passes over Placement have those. Raises ServiceError ``libvirt.unreachable``: half of
        the findings would be about that.
        """
        before, self._described = self._described, {}

        def remembered(connection: Hypervisor, domain: Domain) -> str:
            run = domain.uuid, domain.domain_id
            self._described[run] = before.get(run) or describe(connection, domain)
            return self._described[run]

        config = replace(config, placement_mode="none")
        facts = gather(
            config,
            uri,
            files,
            directories,
            patience=Patience(each=PATIENCE),
            describe=remembered,
            ask=Ask.WHERE_NOT_KNOWN,
            alone=False,
        )
        if isinstance(facts.hypervisor, Unknown):
            raise ServiceError("libvirt.unreachable", f"{facts.hypervisor.reason}.")
        return tuple(of_finding(each) for each in check(facts) if each.code not in _NOT_FOR_IT)


def put_right(
    found: tuple[Condition, ...], hypervisor: Hypervisor, active: Mapping[str, Domain], log: Log
) -> Iterator[Condition]:
    """Take back discard that would write a guest's memory at its end; yield the other findings.

    Findings that cannot be put right stay, too. The hook takes discard back by itself; it has
    missed guests that were started without it.
    """
    for condition in found:
        domain = active.get(condition.subject)
        if condition.code != "guest.discard-flushes" or domain is None:
            yield condition
            continue
        facts = {"guest": domain.name, "uuid": domain.uuid, "id": domain.domain_id}
        try:
            backends = retract(hypervisor, domain.name)
        except RamshelfError as error:
            log.warning("discard-kept", error.sentence, code=error.code, **facts)
            yield condition
        else:
            record("discard-retracted", **facts, backends=backends, by="agent")
            message = f"Guest {domain.name} will not write its memory when it ends: discard is off."
            log.info("discard-retracted", message, backends=backends, **facts)
