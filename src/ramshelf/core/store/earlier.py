"""What guests were promised when more of the store counted as its capacity, and may have again.

Version 0.1.0 set aside too little of a disk store for the records of memory files' extents. Guests
that were promised more together than the capacity is now are put on record when the hook is
upgraded under them. Each may start again, with no more than it was promised, as long as what 0.1.0
called the capacity holds them all. The others count by the capacity as it is. The record goes when
these promises fit.
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
"""Guests on record; a host runs some hundred."""

_DIGITS = 20
"""Of a number of bytes; what is longer is none."""

GRACE = 900.0
"""Seconds that a guest on record may be unknown to libvirt before the agent strikes it off."""


@dataclass(frozen=True, kw_only=True)
class EarlierPromise:
    """A guest that may start again with ``promised`` bytes; its UUID tells it from another of its
    name.
    """

    name: str
    uuid: str
    promised: int


def format_promises(promises: Iterable[EarlierPromise]) -> str:
    """The record's text: a guest on each line."""
    return "".join(f"{each.uuid} {each.promised} {each.name}\n" for each in promises)


def parse_promises(text: str) -> tuple[EarlierPromise, ...]:
    """The guests on record; a line that is none is passed over."""
    found = []
    for line in text.split("\n")[:MOST]:
        uuid, _, rest = line.partition(" ")
        promised, _, name = rest.partition(" ")
        if promised.isascii() and promised.isdigit() and len(promised) < _DIGITS and name:
            found.append(EarlierPromise(name=name, uuid=uuid, promised=int(promised)))
    return tuple(found)


def recorded(usage: StoreUsage, before: Iterable[EarlierPromise]) -> tuple[EarlierPromise, ...]:
    """Who is to be on record: those ``before``, and where more is promised than a disk holds who runs."""
    promises = {each.uuid: each for each in before}
    current = capacity(usage, configured_mib=None)
    if not usage.kind.tmpfs and current.promised > current.total:
        promises |= {note.uuid: _of(note) for note in usage.notes if note.promised}
    return tuple(promises.values())[:MOST]


def still_needed(
    usage: StoreUsage, promises: Iterable[EarlierPromise], known: Collection[str]
) -> tuple[EarlierPromise, ...]:
    """The promises to guests that libvirt still knows (by UUID); none where all that is promised fits.

    A guest on record that runs counts with what it has now: it may have been made smaller.
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
    """Since when libvirt has not known each guest on record, by its UUID; ``before`` is the answer
    before.

    One that it does not know may come back: Nova undefines a server that it starts or reboots hard,
    and defines it anew a moment later. Times are in seconds, of any clock that goes on.
    """
    return {each.uuid: before.get(each.uuid, now) for each in promises if each.uuid not in known}


def granted(promises: Iterable[EarlierPromise], uuid: str) -> int:
    """What the guest may have whatever the capacity is now, bytes; 0 for one that is not on record."""
    return max((each.promised for each in promises if each.uuid == uuid), default=0)


def as_if_on_record(guest: Guest) -> tuple[EarlierPromise, ...]:
    """What goes for each guest while the hook has not been upgraded too."""
    return (EarlierPromise(name=guest.name, uuid=guest.uuid, promised=guest.promise),)


def is_honoured(
    promises: Iterable[EarlierPromise],
    guest: Guest,
    usage: StoreUsage,
    *,
    configured_mib: int | None,
) -> bool:
    """Whether a guest for which the store has no room may start all the same.

    What all promises take must be there when it has its own, too: the kernel gives each page of a
    running guest its extents while there is room.
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
    """The guests for which there would be no room if all started anew, as after a reboot.

    Those that run in the order in which they were started, then those on record: whoever comes last
    is refused.
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
