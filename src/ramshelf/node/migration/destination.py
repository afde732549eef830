"""Another host, and the verdict on whether a guest of this host can move there."""

import secrets
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from ramshelf.core.config import Config
from ramshelf.core.domain.backing import Applied, Backing, make_anonymous, make_file_backed
from ramshelf.core.domain.memory import Guest
from ramshelf.core.errors import RamshelfError
from ramshelf.core.hook.call import COMING_PROBE, HOST_PROBE, probe_xml
from ramshelf.core.migration.answer import Side, read_answer
from ramshelf.core.migration.verdict import Host, Moving, Verdict, judge
from ramshelf.node.guest.look import described
from ramshelf.node.placement import own_provider
from ramshelf.system.hypervisor import Domain, Hypervisor


@dataclass(frozen=True, kw_only=True)
class Move:
    """A guest and the host that it is to move to, as they were when they were looked at.

    ``definition`` is the guest's here, ``converted`` what it would be there, or None where it
    cannot be converted.
    """

    domain: Domain
    guest: Guest
    persistent: bool
    definition: str
    converted: Applied | None
    there: Host
    verdict: Verdict


def look_at_move(here: Hypervisor, there: Hypervisor, config: Config, name: str) -> Move:
    """Return what is known before a guest moves; nothing is changed.

    Raises RefusedError ``guest.not-found``.
    """
    domain = here.find(name)
    guest = described(here.live_xml(name), name)
    definition = here.definition(name)
    host = observe(there)
    converted, inconvertible = _converted(definition, host)
    moving = Moving(
        guest=guest,
        host_uuid=here.host_uuid(),
        active=domain.active,
        saved=here.saved_xml(name) is not None,
        inconvertible=inconvertible,
        taken=there.taken(name, domain.uuid),
        claimable_mib=_claimable(here, host.name, config, domain),
    )
    return Move(
        domain=domain,
        guest=guest,
        persistent=here.persistent(name),
        definition=definition,
        converted=converted,
        there=host,
        verdict=judge(moving, host),
    )


def observe(there: Hypervisor) -> Host:
    """Return a host as libvirt and ramshelf's hook there describe it."""
    said = there.attempt(probe_xml(f"{HOST_PROBE}{secrets.token_hex(4)}"))
    return Host(
        name=there.host_name(),
        uuid=there.host_uuid(),
        libvirt=there.libvirt_version(),
        qemu=there.qemu_version(),
        answer=read_answer(said),
    )


def announce(there: Hypervisor, uuid: str) -> None:
    """Have the other host's agent leave the claim of this guest alone until it has come."""
    there.attempt(probe_xml(f"{COMING_PROBE}{uuid}"))


def _converted(definition: str, there: Host) -> tuple[Applied | None, RamshelfError | None]:
    """Return the definition as that host wants it, or the error for which it cannot be had."""
    try:
        if there.answer is not None and there.answer.side is Side.FILE:
            return make_file_backed(definition.encode(), Backing(), there.support), None
        return make_anonymous(definition.encode()), None
    except RamshelfError as error:
        return None, error


def _claimable(here: Hypervisor, there: str, config: Config, domain: Domain) -> int | None:
    """Return the MiB that Placement lets the guest have there.

    Return None where Placement has no say, or does not serve.
    """
    with suppress(RamshelfError):
        placement = own_provider(here, config)
        if placement is not None:
            with placement:
                observed = placement.of(there).observe()
            if observed.ours:
                held = observed.allocations.get(str(UUID(domain.uuid)))
                return observed.free_mib + (held.memory_mib if held else 0)
    return None
