"""Give a guest that runs what of its reservation is missing; see ``core/latereserve``."""

import os
from dataclasses import dataclass

from ramshelf.core.capacity import PROMISE_FILE, capacity
from ramshelf.core.config import Config
from ramshelf.core.guest import Guest
from ramshelf.core.latereserve import Late, plan_late
from ramshelf.core.reservation import Reservation
from ramshelf.core.store import NoStore
from ramshelf.core.units import MIB, align_up, to_mib
from ramshelf.system import memoryfiles
from ramshelf.system.backingstore import guest_directories, memory_directories, observe_at
from ramshelf.system.filesystem import store_lock
from ramshelf.system.hooklog import record

_LOCK_TIMEOUT = 30


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was done for a guest; ``late`` is None where its memory is not on the store."""

    guest: str
    late: Late | None


def reserve_late(guest: Guest, config: Config) -> Outcome:
    """Promise and allocate what is missing, under the store's lock, and put it on the hook's record.

    libvirt must not be asked meanwhile: it may be waiting for its hook, and that for the lock. Raises
    RefusedError ``store.locked``, ``store.full``, ``store.no-fallocate``; OSError.
    """
    nothing = Outcome(guest=guest.name, late=None)
    if not guest.file_backed or guest.domain_id is None:
        return nothing
    with store_lock(timeout=_LOCK_TIMEOUT):
        paths = guest_directories(guest.domain_id, guest.name)
        if len(paths) != 1:
            return nothing  # it has just ended, or the doctor tells where its memory is
        try:
            directory = memoryfiles.observe_directory(paths[0])
        except FileNotFoundError:
            return nothing
        store, usage = observe_at(os.path.dirname(paths[0]), memory_directories())
        if isinstance(store, NoStore) or usage is None or directory.device != store.mount.device:
            return nothing
        current = capacity(usage, configured_mib=config.file_backed_memory_mib or None)
        late = plan_late(guest, directory, store.kind, current)
        if late.promise:
            memoryfiles.remove(directory, (PROMISE_FILE,))
            memoryfiles.create(directory, Reservation(name=PROMISE_FILE, size=late.promise, allocate=False))
        for usage_of_file in late.allocate:
            memoryfiles.allocate(usage_of_file)
    if late.needed:
        record(
            "reserved-late",
            guest=guest.name,
            uuid=guest.uuid,
            directory=directory.path,
            promised_mib=to_mib(align_up(max(late.promise, guest.promise), MIB)),
            files=[file.path for file in late.allocate],
            by="agent",
        )
    return Outcome(guest=guest.name, late=late)
