"""A disk store that is full keeps every page, in whatever order guests write their memory.

Each page that a guest writes on its own is an extent of its own, and the records of those grow into
what the store's capacity leaves free. Where that is too little the kernel loses pages at writeback,
without a word to the guest; so all is read back from the device.
"""

import mmap
import random
from collections.abc import Iterator
from contextlib import closing

import pytest

from ramshelf.core.guest.reservation import Reservation
from ramshelf.core.record import replace
from ramshelf.core.store.capacity import capacity, extents_run_out
from ramshelf.core.store.ledger import Note
from ramshelf.core.units import MIB
from ramshelf.system.backingstore import observe_store
from ramshelf.system.memoryfiles import allocate, create
from support.devices import zram_device
from support.files import opened, usage
from support.libvirtd import Libvirtd
from support.process import run
from support.stores import MEMORY, store

FILE = MEMORY / "1-full" / "pc.ram"
_PAGE = mmap.PAGESIZE
_CHUNK = 256
_MADV_POPULATE_WRITE = 23
"""Linux 5.14; what QEMU's os_mem_prealloc uses."""


@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
@pytest.mark.parametrize(
    ("size_mib", "immediate"),
    [
        (320, False),
        (320, True),
        (4096, False),
        pytest.param(4096, True, marks=pytest.mark.soak),
        pytest.param(24 * 1024, False, marks=pytest.mark.soak),
    ],
)
def test_no_page_of_a_full_store_is_lost(
    libvirtd: Libvirtd, file_system: str, size_mib: int, *, immediate: bool
) -> None:
    del libvirtd  # It is requested because it resets the host.
    with zram_device(size_mib) as device, store(file_system, size_mib, device=device):
        note = _reserve_all(immediate=immediate)
        for order in _orders(note.promised // _PAGE):
            _write(order)
        full = observe_store(str(MEMORY)).usage
        assert full is not None
        assert full.used < full.size
        full = replace(full, notes=(note,))
        assert not extents_run_out(full)
        room = capacity(full, configured_mib=None)
        assert room.promised <= room.total
        run("umount", str(MEMORY))  # no page stays in RAM: what is read is what the device holds
        run("mount", str(MEMORY))
        assert _lost() == []


def _reserve_all(*, immediate: bool) -> Note:
    """One memory file of the whole capacity, made as the hook makes it; its note.

    It gets its extents from the hook, or as QEMU writes to it before the guest runs.
    """
    FILE.parent.mkdir()
    empty = observe_store(str(MEMORY)).usage
    assert empty is not None
    total = capacity(empty, configured_mib=None).total // MIB * MIB
    with opened(FILE.parent) as (parent, directory):
        made = create(parent, directory, Reservation(name=FILE.name, size=total))
        if not immediate:
            allocate(parent, usage(FILE))
    if immediate:
        with FILE.open("r+b") as file, closing(mmap.mmap(file.fileno(), 0)) as memory:
            memory.madvise(_MADV_POPULATE_WRITE)
    return Note(
        name="full", uuid="", domain_id=1, directory=str(FILE.parent), promised=total, files=(made,)
    )


def _orders(pages: int) -> Iterator[list[int]]:
    """Every second page in two rounds, each in random order; together they have all written back.

    One round's extents come in rising order, which packs the records full. The second round splits
    every extent of the first; of all orders that were tried this one leaves ext4's leaves emptiest.
    """
    for first in (0, 2):
        order = list(range(first, pages, 4))
        random.Random(first).shuffle(order)  # noqa: S311 - the same order each time
        yield order


def _content(page: int) -> bytes:
    """A page's own content: one word again and again, which zram stores as that word."""
    return (page + 1).to_bytes(8, "little") * (_PAGE // 8)


def _write(order: list[int]) -> None:
    with FILE.open("r+b") as file, closing(mmap.mmap(file.fileno(), 0)) as memory:
        memory.madvise(mmap.MADV_RANDOM)  # reading around would have whole folios written
        for page in order:
            memory[page * _PAGE : (page + 1) * _PAGE] = _content(page)
        memory.flush()


def _lost() -> list[int]:
    """The pages that do not read as they were written, or as zeros where they were not."""
    nothing = bytes(_PAGE)
    lost = []
    with FILE.open("rb") as file:
        page = 0
        while chunk := file.read(_CHUNK * _PAGE):
            for start in range(0, len(chunk), _PAGE):
                expected = nothing if page % 2 else _content(page)
                if chunk[start : start + _PAGE] != expected:
                    lost.append(page)
                page += 1
    return lost
