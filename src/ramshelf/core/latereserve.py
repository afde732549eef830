"""What a guest that runs lacks of its reservation, and may be given late.

Guests that were started without the hook, and memory plugged in beyond what was promised, are on the store
and counted there by their files' sizes. What is missing is the promise of memory that may still come, and on
disks the extents. Nobody is ended for it: what cannot be given any more is a finding.
"""

from dataclasses import dataclass

from ramshelf.core.capacity import Capacity, FileUsage, promised
from ramshelf.core.guest import Guest
from ramshelf.core.kind import Kind
from ramshelf.core.reservation import GuestDirectory, verify


@dataclass(frozen=True, kw_only=True)
class Late:
    """What to do for a guest: bytes to state in its promise file (0: nothing), files to give extents.

    ``missing``: bytes of it that the store cannot promise any more. ``settled`` is False where its files are
    not those that it is to have: it is starting, or ending, or its devices are just changing.
    """

    promise: int
    allocate: tuple[FileUsage, ...]
    missing: int
    settled: bool

    @property
    def needed(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.promise or self.allocate)


def plan_late(guest: Guest, directory: GuestDirectory, kind: Kind, current: Capacity) -> Late:
    """Hold a running guest's files against what the hook would have made sure of.

    ``current`` is the store's capacity with this guest on it. A guest that may be given memory has all that
    it may come to stated, also where its files already come to it: so nothing that was plugged in looks as if
    nobody had admitted it. Extents that exist already are of what is promised, whatever else is missing.
    """
    found = verify(guest, directory, kind)
    if found.wrong or not any(not file.is_promise for file in directory.files):
        return Late(promise=0, allocate=(), missing=0, settled=False)
    stated = sum(file.apparent for file in directory.files if file.is_promise)
    present = promised(directory.files)
    wanted = max(present, guest.promise)
    lacking = (guest.slots > 0 or wanted > present) and stated < wanted
    missing = max(0, current.promised - present + wanted - current.total) if lacking else 0
    return Late(
        promise=wanted if lacking and not missing else 0,
        allocate=found.unallocated,
        missing=missing,
        settled=True,
    )
