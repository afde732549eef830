"""What guests were promised when more of the store counted as capacity, and may have again.

Version 0.1.0 set aside too little of a disk store for the records of memory files' extents. Guests
that were promised more together than the capacity is now are put on record when the hook is
upgraded under them. Each may start again, with no more than it was promised, as long as what 0.1.0
called the capacity holds them all. All other guests count by the capacity as it is. The record goes
when these promises fit.
"""

from __future__ import annotations

from ramshelf.core.errors import RefusedError
from ramshelf.core.record import dataclass
from ramshelf.core.store.capacity import admit, capacity, spare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ramshelf.core.domain.memory import Guest
    from ramshelf.core.store.capacity import StoreUsage
    from ramshelf.core.store.ledger import Note

MOST = 10_000
"""The most guests on record; a host runs some hundred."""

_DIGITS = 20
"""A number of bytes on record has fewer digits than this; what is longer is no number."""

GRACE = 900.0
"""Seconds that a guest on record may be unknown to libvirt before the agent strikes it off."""


@dataclass(frozen=True, kw_only=True)
class EarlierPromise:
    """A guest that may start again with ``promised`` bytes.

    Its UUID tells it from another guest of the same name.
    """

    name: str
    uuid: str
    promised: int


def format_promises(promises: Iterable[EarlierPromise]) -> str:
    """Return the record's text, with a guest on each line."""
    return "".join(f"{each.uuid} {each.promised} {each.name}\n" for each in promises)


def parse_promises(text: str) -> tuple[EarlierPromise, ...]:
    """Return the guests on record; a line that is not a guest's is passed over."""
    found = []
    for line in text.split("\n")[:MOST]:
        uuid, _, rest = line.partition(" ")
        promised, _, name = rest.partition(" ")
        if promised.isascii() and promised.isdigit() and len(promised) < _DIGITS and name:
            found.append(EarlierPromise(name=name, uuid=uuid, promised=int(promised)))
    return tuple(found)


def to_be_recorded(
    usage: StoreUsage, before: Iterable[EarlierPromise]
) -> tuple[EarlierPromise, ...]:
    """Return who is to be on record, given who was ``before``.

    Where more is promised than a disk store holds, those who run are put on record, too.
    """
    promises = {each.uuid: each for each in before}
    current = capacity(usage, configured_mib=None)
    if not usage.kind.tmpfs and current.promised > current.total:
        promises |= {note.uuid: _of(note) for note in usage.notes if note.promised}
    return tuple(promises.values())[:MOST]


def still_needed(
    usage: StoreUsage, promises: Iterable[EarlierPromise], known: Collection[str]
) -> tuple[EarlierPromise, ...]:
    """Return the promises to guests that libvirt still knows, by UUID.

    There are none where all that is promised fits. A guest on record that runs counts with what it
    has now, since it may have been made smaller.
    """
    left = {each.uuid: each for each in promises if each.uuid in known}
    running = {note.uuid: note.promised for note in usage.notes if note.promised}
    stopped = sum(each.promised for each in left.values() if each.uuid not in running)
    together = sum(running.values()) + stopped
    return tuple(left.values()) if together > capacity(usage, configured_mib=None).total else ()


def missed(
    promises: Iterable[EarlierPromise],
    known: Collection[str],
    before: Mapping[str, float],
    now: float,
) -> dict[str, float]:
    """Return since when libvirt has not known each guest on record, by the guest's UUID.

    ``before`` is what this returned the last time. A guest that libvirt does not know may come
    back: Nova undefines a server that it starts or reboots hard, and defines it anew a moment
    later. Times are in seconds, of any clock that goes on.
    """
    return {each.uuid: before.get(each.uuid, now) for each in promises if each.uuid not in known}


def granted(promises: Iterable[EarlierPromise], uuid: str) -> int:
    """Return the bytes that the guest may have whatever the capacity is now; 0 if not on record."""
    return max((each.promised for each in promises if each.uuid == uuid), default=0)


def as_if_on_record(guest: Guest) -> tuple[EarlierPromise, ...]:
    """Return the record that goes for each guest while the hook has not been upgraded yet."""
    return (EarlierPromise(name=guest.name, uuid=guest.uuid, promised=guest.promise),)


def is_honoured(
    promises: Iterable[EarlierPromise],
    guest: Guest,
    usage: StoreUsage,
    *,
    configured_mib: int | None,
) -> bool:
    """Tell whether a guest for which the store has no room may start all the same.

    The store must have room for all promises, with this guest's among them: the kernel gives each
    page of a running guest its extents only while there is room.
    """
    if guest.promise > granted(promises, guest.uuid) or spare(usage) < guest.promise:
        return False
    room = capacity(usage, configured_mib=configured_mib, earlier=True)
    try:
        admit(room, guest.name, guest.promise)
    except RefusedError:
        return False
    return True


def refused_anew(
    usage: StoreUsage, promises: Iterable[EarlierPromise], *, configured_mib: int | None
) -> tuple[str, ...]:
    """Return the guests for which there would be no room if all started anew, as after a reboot.

    Those that run come first, in the order in which they were started, then those on record:
    whoever comes last is refused.
    """
    total = capacity(usage, configured_mib=configured_mib).total
    most = capacity(usage, configured_mib=configured_mib, earlier=True).total
    promises = tuple(promises)
    running = [
        _of(note) for note in sorted(usage.notes, key=lambda note: note.domain_id) if note.promised
    ]
    uuids = {each.uuid for each in running}
    refused, taken = [], 0
    for each in (*running, *(each for each in promises if each.uuid not in uuids)):
        room = most if each.promised <= granted(promises, each.uuid) else total
        if taken + each.promised > room:
            refused.append(each.name)
        else:
            taken += each.promised
    return tuple(refused)


def _of(note: Note) -> EarlierPromise:
    return EarlierPromise(name=note.name, uuid=note.uuid, promised=note.promised)
