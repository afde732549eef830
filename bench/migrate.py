"""Migration: how long a guest takes to another host, its downtime, and what that writes on both."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.guests import OWN_MIB, hook_for, started
from bench.measure import timed
from bench.stores import SPARE_MIB, Store, store
from ramshelf.core.units import MIB
from support.counters import sync
from support.domains import wait_console
from support.libvirtd import Libvirtd
from support.moving import completed
from support.second_host import SecondHost, second_host

_BACKINGS = {"ext4": ("ramshelf",), "tmpfs": ("ramshelf", "anonymous")}
"""The backings by store: memory that is in no file is the same beside every store."""

_HOT_MIB = 64
"""The MiB that a busy guest rewrites all the time."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One ``virsh migrate --live`` between stores of one kind.

    Half of the guest's memory is dirty. ``moved_mib`` and ``downtime_seconds`` are libvirt's own
    figures; ``source_mib`` and ``destination_mib`` are what was written to the stores' devices,
    including what a sync writes after it.
    """

    store: str
    backing: str
    guest_mib: int
    guest: str
    seconds: float
    downtime_seconds: float
    moved_mib: float
    source_mib: float
    destination_mib: float


def measure(daemon: Libvirtd, *, quick: bool) -> Iterator[Sample]:
    """Measure each size, idle and busy, from each store to one of the same kind, in turns.

    Both stores are on this machine.
    """
    sizes = (256,) if quick else (1024, 4096)
    for _ in range(1 if quick else 3):
        for name in ("tmpfs",) if quick else tuple(_BACKINGS):
            for backing in _BACKINGS[name]:
                hook = backing == "ramshelf"
                with (
                    store(name, max(sizes)) as place,
                    hook_for(backing),
                    second_host(name, max(sizes) + SPARE_MIB, hook=hook) as second,
                ):
                    for size in sizes:
                        for busy in (True,) if quick else (False, True):
                            yield _move(daemon, place, second, backing, size, busy=busy)


def _move(
    daemon: Libvirtd, place: Store, second: SecondHost, backing: str, size: int, *, busy: bool
) -> Sample:
    hot = _HOT_MIB if busy else 0
    # The guest does not touch the memory that the host dirties.
    options = f"mem={OWN_MIB + hot}M" + (" ramshelf.rewrite" if busy else "")
    with started(daemon, backing, size, dirty_mib=hot, options=options) as guest:
        wait_console(guest.name, "ROUND 1" if busy else "GUEST-UP", timeout=300)
        sync()  # so that only what is dirtied now is left
        guest.dirty(size // 2 - hot)
        before = place.written_mib(), _written_mib(second, place)
        route = (second.uri, "--migrateuri", second.migrate_uri)
        seconds = timed("virsh", "--connect", daemon.uri, "migrate", "--live", guest.name, *route)
        sync()
        sample = Sample(
            store=place.name,
            backing=backing,
            guest_mib=size,
            guest="busy" if busy else "idle",
            seconds=seconds,
            downtime_seconds=completed(second, "Total downtime", guest.name) / 1000,
            moved_mib=completed(second, "Data processed", guest.name) / MIB,
            source_mib=place.written_mib() - before[0],
            destination_mib=_written_mib(second, place) - before[1],
        )
        second.virsh("destroy", guest.name)
    return sample


def _written_mib(second: SecondHost, place: Store) -> float:
    """Return the MiB that the second host's device has written so far; 0 without a device."""
    if not place.device:
        return 0.0
    second.sync()
    return second.written_mib()
