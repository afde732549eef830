"""The RAM that cannot go to the store: one sum for the hook, doctor, agent and ``capacity``.

The store holds guests' files. All else that guests need has to find room in RAM, or in swap that is
on a disk. Anonymous memory and the pages of a tmpfs can go there, whoever they belong to, and the
store's come first, since the swap is there for them. What is left of them then, and what the kernel
cannot swap, has to fit into RAM beside what the host keeps for itself; where it does not, somebody
is killed once all guests use all that they have. Swap in RAM (zram) is no room.

What guests may come to need counts, not what they use: of a guest that runs nobody knows what it
will write next. What QEMU itself needs is an estimate by measurement, and counts as never swapped,
since it is in use all the time. A guest that QEMU emulates may come to more than that: the code
that it has translated grows with what the guest runs, up to 1 GiB or an eighth of RAM (QEMU's
DEFAULT_CODE_GEN_BUFFER_SIZE and qemu_get_host_physmem, since 5.1). Callers that know what a QEMU
has by now say so (``measured``).
"""

from __future__ import annotations

from ramshelf.core.errors import RefusedError
from ramshelf.core.record import dataclass
from ramshelf.core.store.kind import Kind
from ramshelf.core.store.ledger import note_of
from ramshelf.core.units import GIB, MIB, align_up, to_mib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ramshelf.core.domain.memory import Guest
    from ramshelf.core.store.ledger import Note

_PAGE = 4096

_TABLE_ENTRY = 8
"""The bytes of a page table's entry for each page that is mapped.

There is an entry in QEMU's page tables, and with KVM one in the guest's second level, too (Intel's
EPT and AMD's NPT: 64 bits). Both stay when the page has gone to the store: the kernel frees tables
when what they map is unmapped. The levels above add a 512th.
"""

_NODE, _NODE_SLOTS = 576, 64
"""The bytes of an xarray's node, and its slots, one for each page of a tmpfs in RAM or in swap.

The node is never swapped: radix_tree_node is 576 bytes for 64 slots (XA_CHUNK_SIZE), 9 bytes for
each page.
"""

_XFS_EXTENTS = 36
"""The bytes for each page by which XFS keeps all extents of an open file in RAM.

They are never swapped nor dropped (xfs_iext_tree): 16 bytes each, 15 in a leaf of 256 that is half
full at least, and the nodes above. In the worst case each page is one. A GiB of which every second
page was written in random order took 6.8 MiB (Linux 6.18), and can take 9. What ext4 keeps
(extent_status) the kernel drops when RAM is short.
"""

_SWAP_ENTRY = 8
"""The bytes in the swap table for each page that is swapped out.

That is Linux 6.18 (mm/swap_table.h); older kernels take less. What swap takes for each of its pages
whether they are used or not is part of what the host needs.
"""

_QEMU, _QEMU_CPU = 96 * MIB, 8 * MIB
_EMULATED, _EMULATED_CPU = 128 * MIB, 16 * MIB
"""What QEMU needs besides the guest's memory, and for each vCPU.

It is RssAnon, with the page tables of what is not the guest's memory, of a Linux that has booted
and written all its memory.

By KVM, QEMU 10.0 on Debian 13: 46 MiB with one vCPU, 82 with four, a screen, a network card and a
disk. Emulated, QEMU 7.2 on Debian 12: 77 MiB with one vCPU, 80 with two, 86 with four, 8 more with
VGA and VNC. The page tables of a guest of 512 MiB were 1.0 MiB in QEMU (VmPTE) and by KVM as much
again (SecPageTables).
"""

_STACK, _THREADS = 8 * MIB, 4
_TRANSLATED, _TRANSLATED_MOST = 8, GIB
"""What <locked/> has QEMU take besides: mlockall fills all that QEMU has mapped, used or not.

That is a stack of 8 MiB for each vCPU and some threads more, and, emulated, the buffer for
translated code: an eighth of RAM, at most a GiB (tcg/region.c, size_code_gen_buffer). By QEMU 10.0
a guest of 128 MiB on a host with 3919 MiB had 559 MiB of RssAnon, 490 of them the buffer.
"""


@dataclass(frozen=True, kw_only=True)
class HostRam:
    """The RAM and swap that a host has, in bytes.

    ``size`` is all RAM (MemTotal), ``huge_pages`` what of it is set aside for those (Hugetlb),
    ``reserved`` what the host needs for itself, ``swap`` what there is on disks. ``kind`` is the
    store's, None where there is none, and ``file_system`` what it lies on.
    """

    size: int
    huge_pages: int
    reserved: int
    swap: int
    kind: Kind | None
    file_system: str = ""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What has to be in RAM in the worst case, by what needs it, in bytes.

    ``anonymous`` is of guests whose memory is in no file, ``private`` of files that are mapped
    privately and ``store`` of a tmpfs: each what swap does not take. ``overhead`` is QEMU's own;
    ``records`` are the kernel's of the pages of a tmpfs, of the extents of files on XFS and of the
    pages in swap.
    """

    host: int = 0
    huge_pages: int = 0
    pinned: int = 0
    anonymous: int = 0
    private: int = 0
    store: int = 0
    overhead: int = 0
    page_tables: int = 0
    records: int = 0

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """The parts by name, as metrics and ``--json`` have them."""
        return {
            "host": self.host,
            "huge_pages": self.huge_pages,
            "pinned": self.pinned,
            "anonymous": self.anonymous,
            "private": self.private,
            "store": self.store,
            "overhead": self.overhead,
            "page_tables": self.page_tables,
            "records": self.records,
        }

    @property
    def figures(self) -> dict[str, int]:
        """The parts in MiB, by names that end in ``_mib``."""
        return {f"{name}_mib": to_mib(align_up(size, MIB)) for name, size in self.parts.items()}

    def __str__(self) -> str:
        """Return the parts that are not 0, in MiB, as text."""
        return self.described(lambda size: str(to_mib(align_up(size, MIB))))

    def described(self, text: Callable[[int], str]) -> str:
        """Return the parts that are not 0, each as ``text`` writes its bytes."""
        return ", ".join(
            f"{_WORDS[name]} {text(size)}" for name, size in self.parts.items() if size
        )


_WORDS = {
    "host": "the host",
    "huge_pages": "huge pages",
    "pinned": "pinned guests",
    "anonymous": "anonymous guests",
    "private": "private mappings",
    "store": "a store without swap",
    "overhead": "QEMU",
    "page_tables": "page tables",
    "records": "the kernel's records",
}


def ram_demand(
    guests: Iterable[Note], host: HostRam, measured: Mapping[str, int] | None = None
) -> Demand:
    """Return what these guests and the host need of RAM.

    ``measured`` is what the QEMU of a guest takes besides the guest's memory, by the guest's name,
    where that is known; it counts where it is more than the estimate.
    """
    measured = measured or {}
    tmpfs = host.kind is not None and host.kind.tmpfs
    pinned = anonymous = private = stored = promised = overhead = tables = 0
    for note in guests:
        fixed = max(note.pinned, note.plugged)
        memory = note.memory or max(note.promised, fixed)  # A note of an older version has 0.
        pinned += fixed
        promised += note.promised
        if fixed:
            # Pinned pages of a shared file are the file's own. Pinned private copies are not: the
            # file counts beside them.
            stored += max(0, note.promised - max(0, fixed - note.private))
        else:
            stored += note.promised
            private += note.private
            anonymous += max(0, memory - note.promised)
        overhead += max(_overhead(note, host.size), measured.get(note.name, 0))
        tables += memory // _PAGE * _TABLE_ENTRY * (1 if note.emulated else 2)
    records = promised // _PAGE * _XFS_EXTENTS if host.file_system == "xfs" else 0
    if tmpfs:
        records = promised // _PAGE * _NODE // _NODE_SLOTS
    else:
        stored = 0
    movable = anonymous + private + stored
    # Where fstab says kind ram there may be swap all the same, but nothing says that the store may
    # go there.
    swap = host.swap
    if host.kind is None or not host.kind.bare:
        stored, swap = _swapped(stored, swap)
    private, swap = _swapped(private, swap)
    anonymous, swap = _swapped(anonymous, swap)
    out = movable - stored - private - anonymous
    return Demand(
        host=host.reserved,
        huge_pages=host.huge_pages,
        pinned=pinned,
        anonymous=anonymous,
        private=private,
        store=stored,
        overhead=overhead,
        page_tables=tables,
        records=records + out // _PAGE * _SWAP_ENTRY,
    )


def _swapped(size: int, swap: int) -> tuple[int, int]:
    """Return what of so many bytes does not find room in swap, and what swap is left."""
    return max(0, size - swap), max(0, swap - size)


def _overhead(note: Note, ram: int) -> int:
    base, each = (_EMULATED, _EMULATED_CPU) if note.emulated else (_QEMU, _QEMU_CPU)
    size = base + each * max(1, note.vcpus)
    if note.locked:
        size += _STACK * (_THREADS + note.vcpus)
        if note.emulated:
            size += min(ram // _TRANSLATED, _TRANSLATED_MOST)
    return size


def anonymous_alone(guests: Iterable[Note], host: HostRam) -> Demand | None:
    """Return what guests that are neither in files nor pinned need where they alone leave no RAM.

    It is None where these guests alone leave RAM, or where there are none.
    """
    alone = [note for note in guests if not (note.promised or note.pinned or note.plugged)]
    demand = ram_demand(alone, host)
    return demand if alone and demand.total > host.size else None


@dataclass(frozen=True, kw_only=True)
class Balance:
    """A host's RAM, and what has to be in it, in bytes.

    ``anonymous_alone`` says that guests whose memory is neither in files nor pinned leave none on
    their own.
    """

    size: int
    demand: Demand
    anonymous_alone: bool

    @property
    def free(self) -> int:
        """The RAM that further guests may need; 0 where more is needed than there is."""
        return max(0, self.size - self.demand.total)


def balance(guests: Iterable[Note], host: HostRam) -> Balance:
    """Compare what these guests need with this host's RAM."""
    notes = tuple(guests)
    return Balance(
        size=host.size,
        demand=ram_demand(notes, host),
        anonymous_alone=anonymous_alone(notes, host) is not None,
    )


def admit_ram(guest: Guest, others: Iterable[Note], host: HostRam) -> None:
    """Refuse a guest with memory in files, or that pins it, for which RAM does not suffice.

    ``others`` are the guests that run or start. Raises RefusedError ``ram.exceeded`` with the
    parts.
    """
    others = tuple(others)
    after = ram_demand((*others, note_of(guest)), host)
    missing = after.total - host.size
    if missing <= 0:
        return
    before = ram_demand(others, host)
    needed_mib = to_mib(align_up(after.total - before.total, MIB))
    missing_mib = to_mib(align_up(missing, MIB))
    raise RefusedError(
        "ram.exceeded",
        f"Guest {guest.name} needs {needed_mib} MiB of RAM that cannot go to the store, and of "
        f"{to_mib(host.size)} MiB {max(0, host.size - before.total) // MIB} are left ({before}).",
        hint=(
            "Its memory is locked or a device uses it: end another such guest, or take <locked/> or"
            " the device from this one."
            if guest.pinned
            else (
                "End or move a guest whose memory is anonymous or pinned, or add RAM, or swap on a "
                "disk; 'ramshelf capacity' shows the sum."
            )
        ),
        facts={
            "guest": guest.name,
            "needed_mib": needed_mib,
            "missing_mib": missing_mib,
            "ram_mib": to_mib(host.size),
            "parts": before.figures,
        },
    )
