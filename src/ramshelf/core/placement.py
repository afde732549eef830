"""What Placement is to say of this host.

The words are Placement's: a resource provider (the host) has inventory (MEMORY_MB), traits, and allocations,
each held by a consumer (a guest, by its domain's UUID). Sizes are in MiB, Placement's unit for memory.
"""

import uuid
from dataclasses import dataclass

from ramshelf.core.store import Kind

MICROVERSION = "1.28"
"""Of every request: Placement of Rocky, the release that brought file-backed memory to Nova. It guards
allocations by the consumer's generation (1.28), may reserve all of an inventory (1.26), and gives each
error a code (1.23)."""

RESOURCE_CLASS = "MEMORY_MB"

_PROVIDERS = uuid.UUID("b8a1a1d0-6c0d-5f2b-9d0e-3b1f5d8a7c42")
"""ramshelf's own namespace for resource providers; it must never change."""


def provider_uuid(host: str) -> str:
    """The UUID of the provider that ramshelf owns on this host: by it ramshelf knows its own.

    A provider of the host's name with any other UUID belongs to somebody else, nova-compute as a rule.
    """
    return str(uuid.uuid5(_PROVIDERS, host))


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a guest needs: ``uuid`` is the domain's, ``memory_mib`` what the store promises it (rounded up)."""

    uuid: str
    name: str
    memory_mib: int


@dataclass(frozen=True, kw_only=True)
class Truth:
    """This host at one moment, as libvirt and the store have it.

    ``host``: libvirt's host name, which is also what nova-compute calls its provider. ``kind`` is None and
    ``capacity_mib`` 0 where there is no store. ``unowned_mib``: promised on the store to nobody who runs.
    ``guests``: those that run from the store. ``nova``: why this host is nova-compute's, '' where it is not.
    """

    host: str
    kind: Kind | None
    capacity_mib: int
    unowned_mib: int
    guests: tuple[Claim, ...]
    nova: str
