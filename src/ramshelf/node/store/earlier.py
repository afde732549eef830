"""Promises from before an upgrade.

They are put on record, and struck off when they fit or their guests are gone.
"""

import time
from collections.abc import Callable, Collection
from contextlib import suppress

from ramshelf.core.errors import RamshelfError
from ramshelf.core.store.capacity import StoreUsage
from ramshelf.core.store.earlier import GRACE, EarlierPromise, missed, still_needed, to_be_recorded
from ramshelf.system.backingstore import observe_store
from ramshelf.system.earlier import read_promises, write_promises
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.locks import store_lock

_LOCK_TIMEOUT = 30


def promises(hypervisor: Hypervisor | None) -> tuple[EarlierPromise, ...]:
    """Return the promises on record whose guests libvirt still knows; without libvirt return all.

    Raises ServiceError, OSError.
    """
    found = read_promises()
    if not found or hypervisor is None:
        return found
    there = hypervisor.uuids()
    return tuple(each for each in found if each.uuid in there)


def keep() -> None:
    """Put the running guests on record where they are promised more together than the capacity.

    Raises OSError.
    """
    usage = None
    with suppress(RamshelfError, OSError):  # a store that does not answer has no room for anybody
        usage = observe_store().usage
    if usage is None:
        return
    with store_lock(timeout=_LOCK_TIMEOUT):
        before = read_promises()
        if (now := to_be_recorded(usage, before)) != before:
            write_promises(now)


class Settling:
    """Strikes off, look by look, who has been gone for long, and all once what is promised fits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._missed: dict[str, float] = {}

    def look(self, hypervisor: Hypervisor, usage: StoreUsage) -> None:
        """Look once, and strike off what is not needed any more.

        Raises ServiceError, OSError.
        """
        promises = read_promises()
        known = hypervisor.uuids() if promises else frozenset()
        now = self._clock()
        self._missed = missed(promises, known, self._missed, now)
        if promises:
            _settle(
                usage, known | {uuid for uuid, since in self._missed.items() if now - since < GRACE}
            )


def _settle(usage: StoreUsage, known: Collection[str]) -> None:
    with store_lock(timeout=_LOCK_TIMEOUT):
        before = read_promises()
        if (left := still_needed(usage, before, known)) != before:
            write_promises(left)


def settle_by(uri: str) -> None:
    """Strike off the guests that are gone now, and all where what is promised fits.

    Nobody is struck off where libvirt or the store does not answer. Raises OSError where the record
    cannot be written.
    """
    if read_promises():
        with suppress(RamshelfError), Hypervisor(uri, read_only=True) as hypervisor:
            usage = observe_store().usage
            if usage is not None:
                _settle(usage, hypervisor.uuids())


def forget_promises() -> None:
    """Strike all promises off.

    Raises OSError.
    """
    with store_lock(timeout=_LOCK_TIMEOUT):
        write_promises(())
