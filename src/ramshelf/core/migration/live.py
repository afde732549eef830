"""A live migration: how it is to go, and how far it has got."""

from collections.abc import Mapping
from typing import Any

from ramshelf.core.record import dataclass


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """What is asked of libvirt besides the destination; ``virsh migrate`` has the same.

    ``migrate_uri`` is where QEMU listens there, None where libvirt chooses. ``parallel`` is the
    number of connections (QEMU's multifd), None for one stream. ``bandwidth_mib`` is the most MiB
    per second, None for libvirt's own limit.
    """

    migrate_uri: str | None = None
    postcopy: bool = False
    auto_converge: bool = False
    parallel: int | None = None
    bandwidth_mib: int | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A migration's figures by libvirt, in bytes, seconds, and bytes per second.

    ``downtime`` is what is expected while the migration goes on, and what it was once it is done;
    None where that is not known. ``iteration`` counts the passes over memory that QEMU has begun.
    """

    elapsed: float
    sent: int
    remaining: int
    total: int
    rate: int
    downtime: float | None
    iteration: int


def read_progress(stats: Mapping[str, Any]) -> Progress:
    """Read libvirt's job statistics (virDomainGetJobStats), which count in milliseconds."""
    downtime = stats.get("downtime")
    return Progress(
        elapsed=stats.get("time_elapsed", 0) / 1000,
        sent=stats.get("data_processed", 0),
        remaining=stats.get("data_remaining", 0),
        total=stats.get("data_total", 0),
        rate=stats.get("memory_bps", 0),
        downtime=None if downtime is None else downtime / 1000,
        iteration=stats.get("memory_iteration", 0),
    )
