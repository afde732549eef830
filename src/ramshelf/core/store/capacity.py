"""What a store can hold, what it has promised, and whether one more guest fits.

What is promised is the sum of the guests' notes (core/store/ledger.py). What is taken by others
than guests' memory is what the file system says is used, less what guests hold within their
promises. A file beyond a promise, a directory that belongs to nobody, and a file that was unlinked
and is still open each count with the blocks that they take, never with the size that they claim.
"""

from __future__ import annotations

from ramshelf.core.errors import ENLARGE, RefusedError
from ramshelf.core.record import dataclass
from ramshelf.core.store.extents import extents
from ramshelf.core.store.kind import Kind
from ramshelf.core.units import MIB, align_up, to_mib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ramshelf.core.store.directory import FileUsage, GuestDirectory
    from ramshelf.core.store.ledger import Note

_SLACK_SHARE, _SLACK_MOST = 50, 16 * MIB
"""What disk kinds keep free beside the extents' records: 2 %, at most 16 MiB.

Guests' directories and inodes come out of it. On XFS so do the last blocks of each allocation
group, which a transaction that holds another group cannot take (xfs_bmap_btalloc), and what a
conversion reserves ahead (xfs_iomap_write_unwritten). ext4 keeps as much again from everybody for
its extents (ext4_calculate_resv_clusters), which f_bavail does not count.
"""

_EARLIER_SHARE = 1024
"""The share of the size that version 0.1.0 set aside for extents' records: one byte in so many.

That was too little: pages were lost.
"""

_ALARM = 4
"""Little is left for extents' records below one part in so many of what was set aside."""

_FEW = 100
"""The share below which few are left, of inodes or of space: one in so many."""

_MANY = 10
"""A directory is crowded where one in so many of the inodes that are used lies in it."""

_INODES_OF_A_GUEST = 3
"""The inodes of a guest with one NUMA cell: its directory, a memory file and the promise."""


@dataclass(frozen=True, kw_only=True)
class StoreUsage:
    """A store's figures as the kernel gives them, in bytes.

    ``size`` and ``used`` are from statvfs (f_blocks, f_blocks - f_bavail). ``inodes`` and
    ``inodes_free`` are numbers (f_files, f_ffree), both 0 where there is no bound. ``file_system``
    is its name in the mount table, ``block`` the size of its blocks, ``cluster`` that of ext4's
    clusters (bigalloc). ``swap`` is the swap on disks that a store of kind ``swap`` has; swap in
    RAM (zram) makes no room. ``notes`` are those of the guests on the store, ``directories`` those
    of guests that run or ran, and ``lost`` the memory files that are in no directory any more, but
    open in the guest's QEMU.
    """

    kind: Kind
    size: int
    used: int
    swap: int
    beyond_swap: bool
    file_system: str = ""
    block: int = 4096
    cluster: int = 0
    inodes: int = 0
    inodes_free: int = 0
    notes: tuple[Note, ...] = ()
    directories: tuple[GuestDirectory, ...] = ()
    lost: tuple[FileUsage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How much guest memory a store can hold, and how much of it is promised and taken.

    ``total`` is the guest memory that the store can hold at all, in bytes; ``limit_reason`` says
    what bounds it.
    """

    total: int
    promised: int
    allocated: int
    limit_reason: str

    @property
    def free(self) -> int:
        """What a further guest may have; 0 when more is promised than the store holds."""
        return max(0, self.total - self.promised)


def capacity(usage: StoreUsage, *, configured_mib: int | None, earlier: bool = False) -> Capacity:
    """Return the store's capacity: the least of what it holds, its swap and the configured value.

    ``configured_mib`` None means that the store decides. What is no guest's memory, and what is set
    aside for the file system's own records of it, are taken off what the store holds; tmpfs keeps
    its records in RAM. With ``earlier`` as much is set aside as version 0.1.0 did
    (core/store/earlier.py).
    """
    allocated = within(usage)
    foreign = max(0, usage.used - allocated)
    aside = _set_aside_earlier(usage) if earlier else set_aside(usage)
    total, reason = usage.size - foreign - aside, "store"
    if usage.kind.swaps and not usage.beyond_swap and usage.swap - foreign < total:
        total, reason = usage.swap - foreign, "swap"
    if configured_mib is not None and configured_mib * MIB < total:
        total, reason = configured_mib * MIB, "configured"
    return Capacity(
        total=max(0, total),
        promised=sum(note.promised for note in usage.notes),
        allocated=allocated,
        limit_reason=reason,
    )


def set_aside(usage: StoreUsage) -> int:
    """Return the bytes that a disk store keeps free for its files' extent records, and some."""
    if usage.kind.tmpfs:
        return 0
    return align_up(_records(usage, usage.size) + min(usage.size // _SLACK_SHARE, _SLACK_MOST), MIB)


def _set_aside_earlier(usage: StoreUsage) -> int:
    """Return the bytes that version 0.1.0 kept free."""
    if usage.kind.tmpfs:
        return 0
    slack = min(usage.size // _SLACK_SHARE, _SLACK_MOST)
    return align_up(usage.size // _EARLIER_SHARE, MIB) + align_up(slack, MIB)


def _records(usage: StoreUsage, size: int) -> int:
    """Return the bytes that memory files of this size may occupy beyond it."""
    return extents(usage.file_system, size, block=usage.block, cluster=usage.cluster)


def extents_run_out(usage: StoreUsage) -> bool:
    """Tell whether a disk store has hardly any room left for the records of its files' extents.

    That is the room beside all promises. Each page that a guest writes may need more records, and
    the kernel loses the pages that find none.
    """
    return not usage.kind.tmpfs and spare(usage) < set_aside(usage) // _ALARM


def spare(usage: StoreUsage) -> int:
    """Return the bytes that a disk store has left when all that is promised has its extents.

    The number may be below 0.
    """
    return (
        usage.size
        - usage.used
        - sum(max(0, note.promised - held) for note, held in _holdings(usage))
    )


def within(usage: StoreUsage) -> int:
    """Return the bytes that guests hold of what they are promised.

    That is their memory, and nothing else that they wrote.
    """
    return sum(held for _, held in _holdings(usage))


def _holdings(usage: StoreUsage) -> Iterator[tuple[Note, int]]:
    """Yield each guest's note, and what the guest holds of what it is promised."""
    directories = {directory.path: directory for directory in usage.directories}
    lost = {file.inode: file for file in usage.lost}
    for note in usage.notes:
        yield note, _held(usage, note, directories.get(note.directory), lost)


def _held(
    usage: StoreUsage, note: Note, directory: GuestDirectory | None, lost: dict[int, FileUsage]
) -> int:
    """Return the bytes that a guest's memory files take, within what it is promised.

    Each file that was made for the guest counts up to its size, with the blocks of its records.
    Other files count up to what else is promised.
    """
    files = directory.memory if directory is not None else ()
    found = {**lost, **{file.inode: file for file in files}}
    made = 0
    for noted in note.files:
        if noted.inode in found:
            made += min(found[noted.inode].allocated, noted.size + _records(usage, noted.size))
    inodes = {noted.inode for noted in note.files}
    others = sum(file.allocated for file in files if file.inode not in inodes)
    made = min(made, note.promised + _records(usage, note.promised))
    return made + min(others, max(0, note.promised - note.noted))


@dataclass(frozen=True, kw_only=True)
class Excess:
    """A guest whose directory holds ``beyond`` bytes more than the guest is promised."""

    guest: str
    directory: str
    beyond: int


def excesses(usage: StoreUsage) -> tuple[Excess, ...]:
    """Return the guests whose directories are more than a MiB beyond their promises, largest first.

    A tmpfs has no quota for a directory: who may write there can fill the store.
    """
    notes = {note.directory: note for note in usage.notes if note.directory}
    found = []
    for directory in usage.directories:
        note = notes.get(directory.path)
        if note is None:
            continue
        occupied = sum({file.inode: file.allocated for file in directory.files}.values())
        beyond = occupied - note.promised - _records(usage, note.promised)
        if beyond > MIB:
            found.append(Excess(guest=note.name, directory=directory.path, beyond=beyond))
    return tuple(sorted(found, key=lambda each: -each.beyond))


def inodes_run_out(usage: StoreUsage) -> bool:
    """Tell whether the store runs out of inodes before it runs out of space.

    It does where fewer than one in a hundred are left, or fewer than one guest needs. An XFS
    without space says that it has no inodes either, since it makes them of space.
    """
    few = max(usage.inodes // _FEW, _INODES_OF_A_GUEST)
    return (
        usage.inodes > 0
        and usage.inodes_free < few
        and usage.size - usage.used > usage.size // _FEW
    )


def crowded(usage: StoreUsage) -> GuestDirectory | None:
    """Return the guest's directory that takes the inodes, or None where none stands out.

    What lies deeper is not looked at. So a directory that has few entries is only taken for the one
    where it has entries other than regular files, of which QEMU makes none, and more of them than
    each other guest's directory.
    """
    fullest = max(usage.directories, key=lambda each: each.entries, default=None)
    if (
        fullest is None
        or fullest.cut
        or fullest.entries * _MANY >= usage.inodes - usage.inodes_free
    ):
        return fullest
    strange = max(usage.directories, key=lambda each: len(each.others))
    return strange if strange.others else None


def admit(current: Capacity, guest_name: str, wanted: int, *, present: int = 0) -> None:
    """Refuse a guest that the store cannot hold in full beside the others.

    ``wanted`` is the bytes of all the guest's memory files, ``present`` what of them is already
    promised. Raises RefusedError ``capacity.exceeded`` with what is missing.
    """
    missing = current.promised - present + wanted - current.total
    if missing <= 0:
        return
    missing_mib = to_mib(align_up(missing, MIB))
    raise RefusedError(
        "capacity.exceeded",
        f"Guest {guest_name} needs {to_mib(align_up(wanted, MIB))} MiB of file-backed memory, "
        f"{missing_mib} MiB more than are free on the store "
        f"(capacity {to_mib(current.total)} MiB, promised {to_mib(current.promised)} MiB).",
        hint=(
            f"Stop a guest, give this one less memory, or {ENLARGE}; "
            "'ramshelf capacity' shows who holds what."
        ),
        facts={
            "guest": guest_name,
            "wanted_mib": to_mib(align_up(wanted, MIB)),
            "missing_mib": missing_mib,
            "free_mib": to_mib(current.free),
            "capacity_mib": to_mib(current.total),
            "promised_mib": to_mib(current.promised),
        },
    )
