"""A live migration: how it is to go, and how far it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Passage:
    """What is asked of libvirt besides the destination; ``virsh migrate`` has the same.

    ``migrate_uri``: where QEMU there listens, None: libvirt chooses. ``parallel``: connections
    (QEMU's multifd), None: one stream. ``bandwidth_mib``: MiB per second at most, None: libvirt's
    own limit.
    """

    migrate_uri: str | None = None
    postcopy: bool = False
    auto_converge: bool = False
    parallel: int | None = None
    bandwidth_mib: int | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A migration's figures by libvirt: bytes, seconds, bytes per second.

    ``downtime``: what is expected while it goes on, what it was once it is done; None where not
    known. ``iteration``: passes over memory that QEMU has begun.
    """

    elapsed: float
    sent: int
    remaining: int
    total: int
    rate: int
    downtime: float | None
    iteration: int


def read_progress(stats: Mapping[str, Any]) -> Progress:
    """From libvirt's job statistics (virDomainGetJobStats); milliseconds there."""
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
