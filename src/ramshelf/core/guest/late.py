"""What a running guest lacks of its reservation, and may be given late.

What running guests may come to need is noted in any case: those that were started without the hook
get a note when somebody first looks. What can be missing is the promise of memory that was plugged
in beyond it, and on disks the extents. Memory that is plugged in within the promise gets its
extents at this point, but nothing was missing; nor is anything missing where the guest has given
memory back. No guest is ended for what it lacks: what can no longer be given is a finding.
"""

from dataclasses import dataclass

from ramshelf.core.domain.memory import Guest
from ramshelf.core.guest.reservation import verify
from ramshelf.core.store.directory import FileUsage, GuestDirectory
from ramshelf.core.store.kind import Kind
from ramshelf.core.store.ledger import Note


@dataclass(frozen=True, kw_only=True)
class Late:
    """What to do for a guest: bytes to note as its promise (0: nothing), and files to give extents.

    ``given`` is what its note is to say of the files that have had them, and ``overdue`` tells
    whether it has lacked anything since its start. ``settled`` is False where its files are not
    those that it is to have: it is starting, or ending, or its devices are just changing.
    """

    promise: int
    allocate: tuple[FileUsage, ...]
    settled: bool
    given: tuple[int, ...] = ()
    overdue: bool = False


def plan_late(
    guest: Guest,
    note: Note,
    directory: GuestDirectory,
    kind: Kind,
    opened: frozenset[int] | None = None,
) -> Late:
    """Compare a running guest's note and files with what the hook would have made sure of.

    The note is to tell what the guest may come to need even where the store cannot hold that: the
    guest runs, and no other must be admitted on the same space. ``opened`` is as for ``verify``.
    """
    found = verify(guest, directory, kind, opened, note.given)
    if found.wrong or not directory.memory:
        return Late(promise=0, allocate=(), settled=False, given=note.given)
    promise = guest.promise if guest.promise > note.promised else 0
    first = {file.inode for file in note.files}
    return Late(
        promise=promise,
        allocate=found.unallocated,
        settled=True,
        given=found.given,
        overdue=promise > 0 or any(file.inode in first for file in found.unallocated),
    )
