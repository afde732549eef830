"""A guest that is starting: its memory files reserved before QEMU opens them, and verified afterwards."""

import errno
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ramshelf.core.capacity import PROMISE_FILE, Capacity, StoreUsage, admit, capacity, promised
from ramshelf.core.errors import RefusedError
from ramshelf.core.guest import Guest, parse_guest
from ramshelf.core.pinning import check_device, check_ram
from ramshelf.core.requirements import punch_writes_back, version
from ramshelf.core.reservation import (
    GuestDirectory,
    Reservation,
    check_leftovers,
    check_pages,
    check_store,
    reservations,
    the_directory,
    verify,
)
from ramshelf.core.store import Store
from ramshelf.core.units import to_mib
from ramshelf.hook.aftercare import interpreter
from ramshelf.hook.figures import now, since
from ramshelf.hook.thishost import STATE_DIR, guests, limit_mib, ram, state_files
from ramshelf.system import memoryfiles
from ramshelf.system.backingstore import guest_directories, memory_directories, observe_at
from ramshelf.system.filesystem import store_lock
from ramshelf.system.hooklog import record, recorded
from ramshelf.system.procfs import holders

_LOCK_TIMEOUT = 30
"""Seconds; libvirt waits for its hooks without end, and holds the guest meanwhile."""

Step = Callable[[str], None]


def reserve(files: Sequence[str], xml: bytes, step: Step) -> None:
    """``start begin``: make the guest's memory files, or raise RamshelfError and leave none."""
    guest = _guest(xml)
    if guest is None:
        return
    limit = limit_mib(files)
    with store_lock(timeout=_LOCK_TIMEOUT):
        step("locked")
        place = _observe(guest, limit)
        if place is None:
            return
        check_pages(guest)
        check_device(guest, place.store, version(os.uname().release))
        _check_pinned(files, guest)
        if place.directory.files or place.directory.others:
            _remove_leftovers(guest, place.directory)
            step("emptied")
            place = _observe(guest, limit) or place
        admit(_capacity(place, limit), guest.name, guest.promise)
        wanted = reservations(guest, place.store.kind)
        before = now(place.store)
        try:
            for reservation in wanted:
                memoryfiles.create(place.directory, reservation)
                step(f"created {reservation.name}")
        except BaseException as error:
            memoryfiles.remove(place.directory, tuple(reservation.name for reservation in wanted))
            _translate(error, place.directory)
            raise
    names = [reservation.name for reservation in wanted]
    _record("reserved", guest, place, files=names, **before)
    step("reserved")


def verify_started(files: Sequence[str], xml: bytes, step: Step) -> None:
    """``started begin``: see that what QEMU opened is what was reserved, and make it so.

    Raises RamshelfError where it cannot be: libvirt then ends the guest.
    """
    guest = _guest(xml)
    if guest is None or not guest.file_backed:
        return
    limit = limit_mib(files)
    with store_lock(timeout=_LOCK_TIMEOUT):
        place = _observe(guest, limit)
        if place is None:
            return
        _check_pinned(files, guest)  # two may have started at the same time
        found = verify(guest, place.directory, place.store.kind)
        if found.superfluous:
            names = tuple(os.path.basename(file.path) for file in found.superfluous)
            memoryfiles.remove(place.directory, names)
            step("removed superfluous")
            place = _observe(guest, limit) or place
        present = promised(place.directory.files)
        wanted = max(present, guest.promise)
        admit(_capacity(place, limit), guest.name, wanted, present=present)
        if wanted > present:
            memoryfiles.create(place.directory, Reservation(name=PROMISE_FILE, size=wanted, allocate=False))
            step("promised")
        for usage in found.unallocated:
            memoryfiles.allocate(usage)
            step("allocated")
    if found.wrong:
        _record("wrong", guest, place, found=list(found.wrong))
    if found.unallocated or wanted > present:
        _record("reserved-late", guest, place, files=[file.path for file in found.unallocated])
    _record("started", guest, place, **_start_cost(guest, place))
    flushes = guest.discard and punch_writes_back(place.store.mount.fstype, version(os.uname().release))
    populated = place.store.kind.tmpfs and _from_stream(guest)
    if tasks := (*(["discard"] if flushes else []), *(["trim"] if populated else [])):
        _leave_aftercare(guest, tasks)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where the guest's memory is to be: its directory and the store below it."""

    directory: GuestDirectory
    store: Store
    usage: StoreUsage


def _guest(xml: bytes) -> Guest | None:
    """The guest, where its memory is on the memory backing directory or is asked to be."""
    guest = parse_guest(xml, page_size=os.sysconf("SC_PAGE_SIZE"))
    return guest if guest.file_backed or (guest.source == "file" and guest.hugepages) else None


def _check_pinned(files: Sequence[str], guest: Guest) -> None:
    """Refuse a guest whose memory is to stay in RAM where it cannot; most guests cost nothing here."""
    if guest.pinned:
        size, reserved = ram(files)
        check_ram(guest, guests(besides=guest.name), ram=size, reserved=reserved)


def _capacity(place: _Place, limit: int | None) -> Capacity:
    """What the store holds. 0 does not limit it: where ramshelf is off, others' guests still need room."""
    return capacity(place.usage, configured_mib=limit or None)


def _observe(guest: Guest, limit: int | None) -> _Place | None:
    """Where the guest's memory is to be; None where there is no store and is to be none."""
    path = the_directory(guest, guest_directories(guest.domain_id or 0, guest.name))
    directory = memoryfiles.observe_directory(path)
    store, usage = observe_at(os.path.dirname(path), memory_directories())
    checked = check_store(store, directory, off=limit == 0)
    if checked is None or usage is None:
        return None
    return _Place(directory=directory, store=checked, usage=usage)


def _start_cost(guest: Guest, place: _Place) -> dict[str, float]:
    """What the start has cost since the guest was reserved, and where the counters stand."""
    current = now(place.store)
    reserved = next((entry for entry in recorded(guest.name) if entry["event"] == "reserved"), None)
    if reserved is None or reserved["uuid"] != guest.uuid:
        return current
    return {**current, **since(reserved, current)}


def _from_stream(guest: Guest) -> bool:
    """Whether QEMU reads all of the guest's memory from a saved image or another host."""
    try:
        with open(f"{STATE_DIR}/{guest.name}.pid", "rb") as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"-incoming" in file.read().split(b"\0")
    except (OSError, ValueError):  # it has ended already
        return False


def _leave_aftercare(guest: Guest, tasks: tuple[str, ...]) -> None:
    """Leave a process that does these tasks once libvirt has done with the start.

    libvirt alone can talk to QEMU, and cannot be asked from its own hook. It waits for its hook's outputs to
    be closed.
    """
    devnull = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    python = interpreter()
    argv = (python, "-I", "-m", "ramshelf.node.aftercare", guest.name, str(guest.domain_id), *tasks)
    try:
        os.posix_spawn(python, argv, os.environ, file_actions=devnull, setsid=True)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        record("no-aftercare", guest=guest.name, uuid=guest.uuid, tasks=tasks, reason=reason)


def _remove_leftovers(guest: Guest, directory: GuestDirectory) -> None:
    """Empty the directory of what an earlier guest left, once that is proven to be nobody's."""
    paths = [file.path for file in directory.files]
    check_leftovers(guest, directory, live=_live_guest(guest), holders=holders(paths))
    memoryfiles.empty(directory)
    record("emptied", guest=guest.name, directory=directory.path, removed=[*paths, *directory.others])


def _record(event: str, guest: Guest, place: _Place, **facts: object) -> None:
    record(
        event,
        guest=guest.name,
        uuid=guest.uuid,
        directory=place.directory.path,
        promised_mib=to_mib(guest.promise),
        **facts,
    )


def _live_guest(guest: Guest) -> str | None:
    """Another guest that libvirt's state files know under this guest's number."""
    number = re.compile(rb"<domain\b[^>]*\bid='%d'" % (guest.domain_id or 0))
    return next((name for name, xml in state_files(guest.name) if number.search(xml)), None)


def _translate(error: BaseException, directory: GuestDirectory) -> None:
    """Raise what the operating system refused as a sentence; other errors mean that the hook is broken."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}:
        raise RefusedError(
            "store.failed",
            f"The store refuses the memory files in {directory.path}: {os.strerror(error.errno)}.",
            hint="'ramshelf doctor' looks at the store; the kernel's messages may say more.",
            facts={"directory": directory.path, "errno": error.errno},
        ) from error
