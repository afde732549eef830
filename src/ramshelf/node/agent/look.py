"""One look of the agent at its host: the store, the guests, what they hold, the device's counters.

libvirt is asked one question, for which it asks no QEMU; the rest is the kernel's own figures.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from ramshelf.core.config import Config
from ramshelf.core.store.capacity import StoreUsage, capacity
from ramshelf.core.store.directory import FileUsage, GuestDirectory
from ramshelf.core.store.find import NoStore, Store
from ramshelf.core.units import to_mib
from ramshelf.node.guest.look import StoreShares, measure_resident, observe_ram, shares
from ramshelf.node.store.clean import list_directories, stale_among
from ramshelf.node.store.holdings import held_by
from ramshelf.system.backingstore import observe_store
from ramshelf.system.counters import bytes_read, bytes_written
from ramshelf.system.hypervisor import Domain, Hypervisor
from ramshelf.system.procfs import Pressure, pressure

PRESSURES = ("memory", "io")


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen in one look.

    ``active`` are all guests that run, from the store or not, by name. ``shares`` is None where
    there is no store, and ``problem`` then says why. ``stale`` are the directories that belong to
    nobody. ``read`` and ``written`` are the bytes of the store's device since it is there.
    ``pressure`` lacks what the kernel does not tell.
    """

    active: Mapping[str, Domain]
    shares: StoreShares | None
    usage: StoreUsage | None
    problem: NoStore | None
    stale: tuple[GuestDirectory, ...]
    read: int
    written: int
    pressure: Mapping[str, Pressure]


def look(
    hypervisor: Hypervisor | None,
    config: Config,
    *,
    before: Look | None = None,
    measure: Callable[[FileUsage], int] = measure_resident,
) -> Look:
    """Look at the host once; ``measure`` is as for ``shares``.

    Raises ServiceError ``libvirt.*``, ConfigError, OSError.

    Directories and files are listed before libvirt is asked, so that what nobody owns then is
    nobody's. Without a hypervisor the guests that ran ``before`` are taken to be running still, and
    it is not known which directories are nobody's.
    """
    listed = list_directories() if hypervisor is not None else ()
    observed = observe_store()
    if hypervisor is not None:
        active = hypervisor.active()
    else:
        active = tuple(before.active.values()) if before is not None else ()
    domains, held = held_by(active, observed)
    found = None
    read = written = 0
    if isinstance(observed.store, Store) and observed.usage is not None:
        current = capacity(observed.usage, configured_mib=config.limit.mib)
        ram = observe_ram(observed, observed.store, config)
        found = shares(observed.store, current, domains, held, ram=ram, measure=measure)
        with suppress(OSError):  # the file system may show a device that is none
            read, written = bytes_read(observed.store), bytes_written(observed.store)
    pressures = {resource: pressure(resource) for resource in PRESSURES}
    return Look(
        active=domains,
        shares=found,
        usage=observed.usage,
        problem=observed.store if isinstance(observed.store, NoStore) else None,
        stale=stale_among(listed, [(domain.domain_id or 0, domain.name) for domain in active]),
        read=read,
        written=written,
        pressure={
            resource: figures for resource, figures in pressures.items() if figures is not None
        },
    )


def to_verify(before: Look | None, now: Look) -> frozenset[str]:
    """Return the guests whose reservation is to be looked at: new ones, or with other memory files.

    Holes that a balloon punches in the files are left alone: by what is promised, nobody else gets
    that space.
    """
    old = _files(before) if before is not None else {}
    return frozenset(name for name, files in _files(now).items() if old.get(name) != files)


def _files(seen: Look) -> dict[str, tuple[object, ...]]:
    if seen.shares is None:
        return {}
    return {
        guest.domain.name: (
            guest.domain.domain_id,
            guest.promised,
            tuple((os.path.basename(file.path), file.size) for file in guest.files),
        )
        for guest in seen.shares.guests
    }


def differ(before: Look | None, now: Look | None) -> bool:
    """Tell whether Placement has to hear of a change.

    That is so for other guests, for another size of a guest or of the store, and for other
    directories that are nobody's.
    """
    return _reportable(before) != _reportable(now)


def _reportable(seen: Look | None) -> object:
    if seen is None or seen.shares is None:
        return None
    guests = {guest.domain.uuid: guest.promised for guest in seen.shares.guests}
    return (
        guests,
        to_mib(seen.shares.capacity.total),
        tuple(each.directory for each in seen.shares.unknown),
    )
