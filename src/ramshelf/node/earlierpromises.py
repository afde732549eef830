"""Promises from before an upgrade: put on record, and struck off when they fit or their guests are gone."""

from contextlib import suppress

from ramshelf.core.capacity import StoreUsage
from ramshelf.core.earlierpromises import EarlierPromise, recorded, still_needed
from ramshelf.core.errors import RamshelfError
from ramshelf.system.backingstore import observe_store
from ramshelf.system.earlierpromises import read_promises, write_promises
from ramshelf.system.filesystem import store_lock
from ramshelf.system.hypervisor import Hypervisor

_LOCK_TIMEOUT = 30


def promises(hypervisor: Hypervisor | None) -> tuple[EarlierPromise, ...]:
    """Those on record that libvirt still knows; all without it. Raises ServiceError, OSError."""
    found = read_promises()
    if not found or hypervisor is None:
        return found
    there = hypervisor.uuids()
    return tuple(each for each in found if each.uuid in there)


def keep() -> None:
    """Put the guests on record that run with more together than the store has capacity. Raises OSError."""
    usage = None
    with suppress(RamshelfError, OSError):  # a store that does not answer has no room for anybody
        usage = observe_store().usage
    if usage is None:
        return
    with store_lock(timeout=_LOCK_TIMEOUT):
        before = read_promises()
        if (now := recorded(usage, before)) != before:
            write_promises(now)


def settle(hypervisor: Hypervisor, usage: StoreUsage) -> None:
    """Strike off who is gone, and all where what is promised fits. Raises ServiceError, OSError."""
    if not read_promises():
        return
    known = hypervisor.uuids()
    with store_lock(timeout=_LOCK_TIMEOUT):
        before = read_promises()
        if (left := still_needed(usage, before, known)) != before:
            write_promises(left)


def settle_by(uri: str) -> None:
    """The same as far as libvirt and the store answer. Raises OSError where the record cannot be written."""
    if read_promises():
        with suppress(RamshelfError), Hypervisor(uri, read_only=True) as hypervisor:
            usage = observe_store().usage
            if usage is not None:
                settle(hypervisor, usage)


def forget() -> None:
    """Strike all off. Raises OSError."""
    with store_lock(timeout=_LOCK_TIMEOUT):
        write_promises(())
