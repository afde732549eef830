"""A guest that starts is noted and reserved before QEMU opens its memory files.

Afterwards it is verified.
"""

from __future__ import annotations

import errno
import os

from ramshelf.core.domain.memory import parse_guest
from ramshelf.core.errors import RefusedError
from ramshelf.core.guest.reservation import (
    Reservation,
    Verification,
    check_leftovers,
    check_pages,
    directory_missing,
    require_store,
    reservations,
    verify,
)
from ramshelf.core.ram import admit_ram
from ramshelf.core.record import dataclass, replace
from ramshelf.core.requirements import punch_writes_back, version
from ramshelf.core.store.capacity import admit, capacity
from ramshelf.core.store.directory import PROMISE_FILE, FileUsage, GuestDirectory, directory_names
from ramshelf.core.store.find import Store
from ramshelf.core.store.ledger import NotedFile, note_of
from ramshelf.core.units import MIB, to_mib
from ramshelf.hook.aftercare import leave_aftercare, let_go
from ramshelf.hook.thishost import bounds, limit_of
from ramshelf.system import arrivals, backingstore, ledger, livestate, memoryfiles, storetree
from ramshelf.system.counters import bytes_written
from ramshelf.system.hooklog import record
from ramshelf.system.locks import store_lock
from ramshelf.system.procfs import host_ram

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ramshelf.core.domain.memory import Guest
    from ramshelf.core.setting import Limit
    from ramshelf.core.store.capacity import StoreUsage
    from ramshelf.core.store.ledger import Note
    from ramshelf.system.backingstore import Place

    Step = Callable[[str], None]

_LOCK_TIMEOUT = 15
"""Seconds to wait for the store's lock.

libvirt holds the guest meanwhile, and the hook as a whole has 20 (hook/call.py).
"""

_MOST = 20_000
"""The most entries that are removed of a guest's directory before the guest is refused.

Others wait meanwhile.
"""

_TOUCHED = 7 / 8
"""By itself a guest has not touched this share of its memory when the hook looks.

The rest may be ballooned.
"""

_TRIES = 20
"""How often a file is made again while somebody keeps putting another in its place."""


def reserve(files: Sequence[str], name: str, xml: bytes, step: Step) -> None:
    """Answer ``start begin``: note the guest and make its memory files.

    Raises RamshelfError, and leaves no files then. ``name`` is as libvirt calls the guest: XML has
    no carriage return, which libvirt writes as it is.
    """
    _let_go()
    guest = replace(parse_guest(xml, page_size=os.sysconf("SC_PAGE_SIZE")), name=name)
    check_pages(guest)
    if arrivals.comes_running(name):
        _check_arrival(guest, files)
    if not guest.file_backed and not guest.pinned:
        ledger.write_note(_timed(note_of(guest), None))  # its own alone, so it waits for nobody
        return
    with store_lock(timeout=_LOCK_TIMEOUT):
        step("locked")
        held = _hold(files, guest, step)
    if held is None:
        return
    note, found = held
    with found.opened:
        _allocate(guest, note, found, step)
    names = [file.name for file in note.files]
    _record("reserved", note, files=names, clock=note.since, written=note.written)
    step("reserved")


def _hold(files: Sequence[str], guest: Guest, step: Step) -> tuple[Note, _Found] | None:
    """Admit and note the guest, and make its files, under the lock.

    Return None where the guest has no files on the store.
    """
    limit, reserved = bounds(files)
    places = backingstore.places()
    others = backingstore.holding(places, but=guest.name, keep=True)
    store = next((place.store for place in places if isinstance(place.store, Store)), None)
    found = _find(guest, places, off=limit.off) if guest.file_backed else None
    if found is None:
        if guest.pinned or store is not None:
            admit_ram(guest, others, host_ram(store, reserved=reserved))
        ledger.write_note(_timed(note_of(guest), None))
        return None
    parent = found.opened.descriptor
    try:
        if guest.passthrough:
            _check_device(guest, found.store)
        directory = storetree.observe(parent, found.path)
        if directory.files or directory.others:
            _empty(guest, parent, directory, others)
            step("emptied")
        _admit(guest, backingstore.figures(found.store, others), found.store, places, limit)
        admit_ram(guest, others, host_ram(store, reserved=reserved))
        noted = _make(guest, parent, directory, step)
        note = _timed(note_of(guest, directory=found.path, files=noted), found.store)
        if not found.store.kind.tmpfs:
            # They get their extents next, here or by QEMU, or the guest is not started.
            note = replace(note, given=tuple(file.inode for file in noted))
        ledger.write_note(note)
        if any(file.name is None for file in guest.files):
            ledger.have_started_waited_for(note.name)
    except BaseException:
        os.close(parent)
        raise
    return note, found


def _let_go() -> None:
    try:
        let_go()
    except OSError as error:  # no reason to refuse a guest
        record("no-aftercare", reason=str(error))


def _check_arrival(guest: Guest, files: Sequence[str]) -> None:
    from ramshelf.hook.arrival import (  # noqa: PLC0415 - hardly any guest comes like that
        check_arrival,
    )

    check_arrival(files, guest)


def _check_device(guest: Guest, store: Store) -> None:
    from ramshelf.core.guest.pinned import check_device  # noqa: PLC0415 - most guests have none

    check_device(guest, store, version(os.uname().release))


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The guest's directory on the store, opened."""

    store: Store
    path: str
    opened: storetree.Opened


def _find(guest: Guest, places: tuple[Place, ...], *, off: bool) -> _Found | None:
    """Return the directory that libvirt has made for the guest.

    Return None where there is no store and there is to be none.
    """
    for place in places:
        if not isinstance(place.store, Store):
            continue
        opened = _opened(guest, place)
        if opened is not None:
            store = require_store(place.store, off=off)
            assert store is not None  # noqa: S101 - it is one
            return _Found(store=store, path=opened[0], opened=opened[1])
    if require_store(places[0].store, off=off) is None:
        return None
    raise directory_missing(guest)


def _opened(guest: Guest, place: Place) -> tuple[str, storetree.Opened] | None:
    assert place.mount is not None  # noqa: S101 - a store is mounted
    try:
        above = storetree.open_directory(place.mount, place.path)
    except OSError:
        return None
    with above as parent:
        storetree.take_over(parent)
        for name in directory_names(guest.domain_id or 0, guest.name):
            try:
                return f"{place.path}/{name}", storetree.open_guest(parent, name)
            except OSError:
                continue
    return None


def _empty(guest: Guest, parent: int, directory: GuestDirectory, others: tuple[Note, ...]) -> None:
    """Empty the directory of what an earlier guest left, or QEMU's user puts there.

    None of it is anybody's.
    """
    check_leftovers(guest, directory, others)
    try:
        memoryfiles.empty(parent, most=_MOST)
    except OSError as error:
        raise _not_emptied(directory) from error
    removed = [file.path for file in directory.files] + [
        f"{directory.path}/{name}" for name in directory.others
    ]
    record("emptied", guest=guest.name, directory=directory.path, removed=removed[:100])


def _not_emptied(directory: GuestDirectory) -> RefusedError:
    return RefusedError(
        "guest.directory-not-empty",
        f"The memory directory {directory.path} cannot be emptied of what lies in it.",
        hint="Somebody puts files there: see which processes of QEMU's user run.",
        facts={"directory": directory.path},
    )


def _admit(
    guest: Guest, usage: StoreUsage, store: Store, places: tuple[Place, ...], limit: Limit
) -> None:
    """Refuse a guest that does not fit.

    The files are looked at where that is not clear without them.
    """
    try:
        admit(capacity(usage, configured_mib=limit.mib), guest.name, guest.promise)
    except RefusedError:
        usage = backingstore.with_files(usage, store, places, everything=False)
        try:
            admit(capacity(usage, configured_mib=limit.mib), guest.name, guest.promise)
        except RefusedError:
            if not _was_promised(guest, usage, limit):
                raise


def _was_promised(guest: Guest, usage: StoreUsage, limit: Limit) -> bool:
    """Tell whether the guest was promised its memory before an upgrade, and may have it again.

    Until the hook is upgraded too, each guest may have what 0.1.0 called the capacity: nobody is on
    record.
    """
    from ramshelf.core.store.earlier import (  # noqa: PLC0415 - hardly any guest comes here
        as_if_on_record,
        is_honoured,
    )
    from ramshelf.system.earlier import hook_is_earlier, read_promises  # noqa: PLC0415

    promises = as_if_on_record(guest) if hook_is_earlier() else read_promises()
    if not is_honoured(promises, guest, usage, configured_mib=limit.mib):
        return False
    record("promised-before", guest=guest.name, uuid=guest.uuid, promised_mib=to_mib(guest.promise))
    return True


def _make(
    guest: Guest, parent: int, directory: GuestDirectory, step: Step
) -> tuple[NotedFile, ...]:
    """Make the memory files at their sizes, all or none."""
    made = []
    try:
        for reservation in reservations(guest):
            made.append(_create(parent, directory, reservation))
            step(f"created {reservation.name}")
    except BaseException as error:
        memoryfiles.remove(parent, tuple(file.name for file in made))
        _translate(error, directory)
        raise
    return tuple(file for file in made if file.name != PROMISE_FILE)


def _create(parent: int, directory: GuestDirectory, reservation: Reservation) -> NotedFile:
    """Make one file, whatever somebody puts in its place meanwhile."""
    for _ in range(_TRIES):
        try:
            return memoryfiles.create(parent, directory, reservation)
        except FileExistsError:
            memoryfiles.put_away(parent, reservation.name)
    raise _not_emptied(directory)


def _allocate(guest: Guest, note: Note, found: _Found, step: Step) -> None:
    """Give the files their extents; where that fails, remove all files and the note.

    Nobody waits for the lock meanwhile. Where QEMU is to allocate all memory before the guest runs
    (prealloc), it does so by writing to each page: extents that are there, but not written, would
    only have to be converted one by one.
    """
    if found.store.kind.tmpfs or guest.allocation == "immediate":
        return
    directory = GuestDirectory(path=note.directory, device=found.store.mount.device, uid=0, gid=0)
    parent = found.opened.descriptor
    try:
        for file in note.files:
            memoryfiles.allocate(parent, _usage_of(file, note.directory))
            step(f"allocated {file.name}")
    except BaseException as error:
        memoryfiles.remove(parent, (*(file.name for file in note.files), PROMISE_FILE))
        ledger.remove_note(guest.name)
        _translate(error, directory)
        raise


def _usage_of(file: NotedFile, directory: str) -> FileUsage:
    """Return a file that was made as one that was found."""
    return FileUsage(
        path=f"{directory}/{file.name}", apparent=file.size, allocated=0, inode=file.inode
    )


def _timed(note: Note, store: Store | None) -> Note:
    """Return the note with who starts the guest, and where clock and counter stand."""
    written = bytes_written(store) if store is not None else 0
    flushes = False
    if store is not None:
        flushes = punch_writes_back(store.mount.fstype, version(os.uname().release))
    return replace(
        note,
        starter=ledger.this_starter(),
        since=round(ledger.clock(), 3),
        written=written,
        flushes=flushes and note.flushes,
    )


def verify_started(files: Sequence[str], name: str, step: Step) -> None:
    """Answer ``started begin``: see that QEMU opened what was reserved, or make it so.

    Then leave the aftercare that the guest needs. The guest is read from libvirt's record, which is
    there by now. Raises RamshelfError where something cannot be made right: libvirt ends the guest
    if it waits for the hook. What the guest runs with is noted in any case.
    """
    limit = limit_of(files)
    with store_lock(timeout=_LOCK_TIMEOUT):
        # This is under the lock: an earlier run's call that comes late finds this run's record, or
        # none.
        live = livestate.read_live(name)
        if live is None or live.guest is None or livestate.is_forgotten(name):
            return
        guest = live.guest
        places = backingstore.places()
        others = backingstore.holding(places, but=guest.name, keep=True)
        before = ledger.read_note(guest.name)
        if before is not None and (before.uuid, before.domain_id) != (guest.uuid, guest.domain_id):
            before = None
        # The guest has a record now: if it ends while this goes on, nobody takes it for one that is
        # just starting.
        pid = livestate.qemu_pid(name) or 0
        note = replace(before or backingstore.noted_again(guest, places), pid=pid, starter="")
        if note.promised < guest.promise:
            note = replace(note, promised=guest.promise)
        if before != note:
            ledger.write_note(note)
        if not guest.file_backed:
            return
        found = _find(guest, places, off=limit.off)
        if found is None:
            return
        with found.opened as parent:
            note = _verified(guest, note, found, parent, step)
            read = found.store.kind.tmpfs and (
                _from_stream(name) or _is_touched(guest, storetree.observe(parent, found.path))
            )
        if before is None or before.promised < note.promised:
            usage = backingstore.figures(found.store, (*others, note))
            usage = backingstore.with_files(usage, found.store, places, everything=False)
            _admit_late(guest, note, usage, limit)
    _record("started", note, **_cost(before, found.store))
    tasks = (["discard"] if note.flushes else []) + (["trim"] if read else [])
    if tasks:
        leave_aftercare(guest.name, note.uuid, note.domain_id, tasks)


def _admit_late(guest: Guest, note: Note, usage: StoreUsage, limit: Limit) -> None:
    """Refuse a guest that was not promised all its memory before and does not fit.

    libvirt ends it, if it still waits for the hook. Else the guest runs, and what it may come to
    need counts.
    """
    try:
        admit(
            capacity(usage, configured_mib=limit.mib),
            guest.name,
            note.promised,
            present=note.promised,
        )
    except RefusedError as error:
        if ledger.is_waited_for(guest.name):
            raise
        _record("overpromised", note, reason=error.sentence)


def _verified(guest: Guest, note: Note, found: _Found, parent: int, step: Step) -> Note:
    """Return the guest's note by what QEMU has opened.

    The guest's files have their extents then, and no file is left over.
    """
    directory = storetree.observe(parent, found.path)
    opened = livestate.opened_files(guest.name)
    seen = verify(guest, directory, found.store.kind, opened, note.given)
    if seen.superfluous:
        memoryfiles.remove(parent, tuple(file.name for file in seen.superfluous))
        step("removed superfluous")
    made = {file.name: file.inode for file in note.files}
    wrong = list(seen.wrong)
    wrong += [
        f"{file.name} is not the file that was made for it"
        for file in directory.memory
        if made.get(file.name, file.inode) != file.inode
    ]
    note = replace(note, directory=found.path, files=_files(guest, note, directory, seen, opened))
    ledger.write_note(note)
    step("noted")
    for usage in seen.unallocated:
        try:
            memoryfiles.allocate(parent, usage)
        except FileNotFoundError:
            wrong.append(f"{usage.name} is another file now")
        step("allocated")
    if seen.given != note.given:
        note = replace(note, given=seen.given)
        ledger.write_note(note)
    if wrong:
        _record("wrong", note, found=wrong)
    if seen.unallocated:
        _record("reserved-late", note, files=[file.path for file in seen.unallocated])
    return note


def _files(
    guest: Guest, note: Note, directory: GuestDirectory, seen: Verification, opened: frozenset[int]
) -> tuple[NotedFile, ...]:
    """Return the files that were made for the guest, and those that QEMU has made itself.

    The former are returned wherever they are now.
    """
    gone = {file.name for file in seen.superfluous}
    kept = [file for file in note.files if file.name not in gone]
    known = {file.name: file.size for file in guest.files}
    missing = (known.keys() | seen.adopted) - gone - {file.name for file in kept}
    made = [
        NotedFile(name=file.name, size=file.apparent, inode=file.inode)
        for file in directory.memory
        if file.name in missing
        and file.inode in opened
        and known.get(file.name, file.apparent) == file.apparent
    ]
    return (*kept, *made)


def _cost(reserved: Note | None, store: Store) -> dict[str, float]:
    """Return what the start has cost since the guest was reserved.

    The figures also say where clock and counter stand.
    """
    clock, written = round(ledger.clock(), 3), bytes_written(store)
    figures: dict[str, float] = {"clock": clock, "written": written}
    if reserved is not None and reserved.starter:
        figures["seconds"] = round(clock - reserved.since, 3)
        figures["written_mib"] = round((written - reserved.written) / MIB, 3)
    return figures


def _from_stream(name: str) -> bool:
    """Tell whether QEMU reads all of the guest's memory from a stream.

    That is a saved image, another host or a snapshot. ``-loadvm`` is how libvirt before 10.10
    reverts to a snapshot inside a disk image (qemuBuildLoadVMCommandLine).
    """
    try:
        with open(f"/proc/{livestate.qemu_pid(name)}/cmdline", "rb") as file:
            return not {b"-incoming", b"-loadvm"}.isdisjoint(file.read().split(b"\0"))
    except OSError:  # it has ended already
        return False


def _is_touched(guest: Guest, directory: GuestDirectory) -> bool:
    """Tell whether a guest has nearly all of its memory on a tmpfs as soon as it runs.

    Then QEMU has read a snapshot; since libvirt 10.10 (snapshot-load) nothing else tells of it. A
    guest whose memory QEMU was told to touch at once is not one of them.
    """
    size = sum(file.apparent for file in directory.memory)
    allocated = sum(file.allocated for file in directory.memory)
    return 0 < size * _TOUCHED <= allocated and guest.allocation != "immediate"


def _record(event: str, note: Note, **facts: object) -> None:
    record(
        event,
        guest=note.name,
        uuid=note.uuid,
        directory=note.directory,
        promised_mib=to_mib(note.promised),
        **facts,
    )


def _translate(error: BaseException, directory: GuestDirectory) -> None:
    """Raise what the operating system refused as a RefusedError with a sentence.

    Other errors mean that the hook is broken.
    """
    if isinstance(error, OSError) and error.errno in _REFUSED:
        raise RefusedError(
            "store.failed",
            f"The store refuses the memory files in {directory.path}: "
            f"{os.strerror(error.errno or 0)}.",
            hint=(
                "'df' and 'df -i' show whether space or inodes are gone; 'ramshelf doctor' says "
                "more."
            ),
            facts={"directory": directory.path, "errno": error.errno},
        ) from error


_REFUSED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
