"""What a store can hold, what it has promised, and whether one more guest fits.

The store is its own ledger: what is promised is the sum of the apparent sizes of the memory files on it.
A guest that may come to need more than its files are (memory to be hot-plugged) or whose file the hook cannot
name has an empty file in its directory, PROMISE_FILE, whose apparent size is the whole: what the
directory is promised is the larger of the two.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ramshelf.core.errors import RefusedError
from ramshelf.core.kind import Kind
from ramshelf.core.units import MIB, align_up, to_mib

_METADATA_SHARE = 1024
"""One byte in this many is set aside on disk kinds for extents and the journal: 1 MiB per GiB."""

_UNREACHABLE_SHARE, _UNREACHABLE_MOST = 50, 16 * MIB
"""What ext4 gives nobody, not even root, though statvfs says that it is free: 2 %, at most 4096 clusters, for
the extents that it splits when a full file is written (ext4_calculate_resv_clusters). XFS has its own
reserve in f_blocks - f_bavail; there this is slack."""

PROMISE_FILE = ".ramshelf-promise"
"""In a guest's directory: its apparent size is what the guest is promised altogether."""


@dataclass(frozen=True, kw_only=True)
class FileUsage:
    """A regular file below the memory backing directory; bytes."""

    path: str
    apparent: int
    allocated: int

    @property
    def promised(self) -> int:
        """What of guest memory the file may come to hold; its extents' own blocks are set aside for all."""
        return self.apparent

    @property
    def is_promise(self) -> bool:
        """Whether it is no memory, but states what its directory is promised."""
        return self.path.endswith(f"/{PROMISE_FILE}")


def promised(files: Iterable[FileUsage]) -> int:
    """Bytes promised to the guests that these files belong to."""
    memory: dict[str, int] = {}
    stated: dict[str, int] = {}
    for file in files:
        directory, _, name = file.path.rpartition("/")
        ledger = stated if name == PROMISE_FILE else memory
        ledger[directory] = ledger.get(directory, 0) + file.promised
    return sum(max(memory.get(path, 0), stated.get(path, 0)) for path in memory.keys() | stated.keys())


@dataclass(frozen=True, kw_only=True)
class StoreUsage:
    """A store's figures as the kernel gives them; bytes.

    ``size`` and ``used`` are from statvfs (f_blocks, f_blocks - f_bavail); ``swap`` is the sum of the swap
    areas (0 where there is none); ``files`` are all regular files below the memory backing directory.
    """

    kind: Kind
    size: int
    used: int
    swap: int
    beyond_swap: bool
    files: tuple[FileUsage, ...]


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """``total``: guest memory that the store can hold at all, bytes; ``limit_reason`` says what bounds it."""

    total: int
    promised: int
    allocated: int
    limit_reason: str

    @property
    def free(self) -> int:
        """What a further guest may have; 0 when more is promised than the store holds."""
        return max(0, self.total - self.promised)


def capacity(usage: StoreUsage, *, configured_mib: int | None) -> Capacity:
    """The store's capacity: the smallest of what it holds, its swap, and the configured value.

    ``configured_mib`` None means that the store decides. Foreign files and file-system metadata are
    taken off what the store holds; tmpfs keeps its metadata in RAM.
    """
    allocated = sum(file.allocated for file in usage.files)
    foreign = max(0, usage.used - allocated)
    total, reason = usage.size - foreign, "store"
    if not usage.kind.tmpfs:
        unreachable = min(usage.size // _UNREACHABLE_SHARE, _UNREACHABLE_MOST)
        total -= align_up(usage.size // _METADATA_SHARE, MIB) + align_up(unreachable, MIB)
    if usage.kind is Kind.SWAP and not usage.beyond_swap and usage.swap - foreign < total:
        total, reason = usage.swap - foreign, "swap"
    if configured_mib is not None and configured_mib * MIB < total:
        total, reason = configured_mib * MIB, "configured"
    return Capacity(
        total=max(0, total),
        promised=promised(usage.files),
        allocated=allocated,
        limit_reason=reason,
    )


def admit(current: Capacity, guest_name: str, wanted: int, *, present: int = 0) -> None:
    """Refuse a guest that the store cannot hold in full beside the others.

    ``wanted``: bytes of all the guest's memory files; ``present``: what of them is already promised.
    Raises RefusedError ``capacity.exceeded`` with what is missing.
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
        hint="Stop a guest, give this one less memory, or enlarge the store; "
        "'ramshelf capacity' shows who holds what.",
        facts={
            "guest": guest_name,
            "wanted_mib": to_mib(align_up(wanted, MIB)),
            "missing_mib": missing_mib,
            "free_mib": to_mib(current.free),
            "capacity_mib": to_mib(current.total),
            "promised_mib": to_mib(current.promised),
        },
    )
