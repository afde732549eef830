"""Giving a running guest what is missing of its reservation; see ``core/guest/late``."""

from dataclasses import dataclass

from ramshelf.core.domain.memory import Guest
from ramshelf.core.guest.late import Late, plan_late
from ramshelf.core.record import replace
from ramshelf.core.store.find import Store
from ramshelf.core.store.ledger import Note
from ramshelf.core.units import MIB, align_up, to_mib
from ramshelf.system import backingstore, ledger, livestate, memoryfiles, storetree
from ramshelf.system.hooklog import record
from ramshelf.system.locks import store_lock

_LOCK_TIMEOUT = 30


@dataclass(frozen=True, kw_only=True)
class LateReservation:
    """What was done for a guest; ``late`` is None where its memory is not on the store."""

    guest: str
    late: Late | None


def reserve_late(guest: Guest) -> LateReservation:
    """Note and allocate what is missing, under the store's lock, and put it on the hook's record.

    libvirt must not be asked meanwhile: it may be waiting for its hook, and the hook for the lock.
    Raises RefusedError ``store.locked``, ``store.full``, ``store.no-fallocate``; OSError.
    """
    nothing = LateReservation(guest=guest.name, late=None)
    if guest.domain_id is None:
        return nothing
    with store_lock(timeout=_LOCK_TIMEOUT):
        places = backingstore.places()
        note = next(
            (note for note in backingstore.holding(places, keep=True) if note.name == guest.name),
            None,
        )
        if note is None:
            return nothing  # it has just ended
        note = _with_plugged(guest, note)
        if not guest.file_backed:
            return nothing
        if not (note.files or note.starter):  # it was noted before QEMU had made its files
            note = replace(note, files=backingstore.noted_again(guest, places).files)
            ledger.write_note(note)
        directory = note.directory or backingstore.directory_of(guest, places)
        path, _, name = directory.rpartition("/")
        place = next((place for place in places if place.path == path), None)
        if place is None or place.mount is None or not isinstance(place.store, Store):
            return nothing  # the doctor tells where its memory is
        try:
            with (
                storetree.open_directory(place.mount, path) as parent,
                storetree.open_guest(parent, name) as opened,
            ):
                seen = storetree.observe(opened, directory)
                late = plan_late(
                    guest, note, seen, place.store.kind, livestate.opened_files(guest.name)
                )
                if late.promise:
                    note = replace(note, promised=late.promise, directory=directory)
                    ledger.write_note(note)
                for usage in late.allocate:
                    memoryfiles.allocate(opened, usage)
                if late.given != note.given:
                    ledger.write_note(replace(note, given=late.given))
        except (FileNotFoundError, NotADirectoryError):
            return nothing
    if late.overdue:
        record(
            "reserved-late",
            guest=guest.name,
            uuid=guest.uuid,
            directory=directory,
            promised_mib=to_mib(align_up(max(late.promise, guest.promise), MIB)),
            files=[file.path for file in late.allocate],
            by="agent",
        )
    return LateReservation(guest=guest.name, late=late)


def _with_plugged(guest: Guest, note: Note) -> Note:
    """Return the guest's note with what has been plugged in; write it where that is new.

    What is noted is what the plugged-in parts keep in RAM, and may take of it.
    """
    now = replace(
        note,
        plugged=guest.pinned if guest.pinned > note.pinned else 0,
        private=max(note.private, guest.private_bytes),
        memory=max(note.memory, guest.paged),
    )
    if now != note:
        ledger.write_note(now)
    return now
