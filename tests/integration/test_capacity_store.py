"""What a store is said to hold can really be reserved on it, to the last MiB."""

import subprocess
import sys

import pytest

from ramshelf.core.guest.reservation import Reservation
from ramshelf.core.record import replace
from ramshelf.core.store.capacity import capacity, set_aside
from ramshelf.core.store.find import Store
from ramshelf.core.store.ledger import Note
from ramshelf.core.units import MIB
from ramshelf.system import backingstore
from ramshelf.system.backingstore import observe_store
from ramshelf.system.memoryfiles import allocate, create
from support.files import opened, usage
from support.libvirtd import Libvirtd
from support.stores import MEMORY, store


@pytest.mark.parametrize(
    ("options", "cluster"), [("", 4096), ("-b 1024", 1024), ("-O bigalloc -C 65536", 65536)]
)
def test_clusters_of_ext4_are_seen(libvirtd: Libvirtd, options: str, cluster: int) -> None:
    """A block of records takes one of them; the most part of what is set aside is records."""
    del libvirtd
    with store("ext4", 1024, options=options):
        usage = observe_store(str(MEMORY)).usage
        assert usage is not None
        assert usage.cluster == cluster
        assert set_aside(usage) > cluster // usage.block * 14 * MIB


@pytest.mark.parametrize(
    ("file_system", "size_mib", "options"),
    [
        ("ext4", 128, ""),
        ("ext4", 512, ""),
        ("ext4", 4096, ""),
        ("ext4", 4096, "-m 5"),
        ("ext4", 4096, "-O ^has_journal"),
        ("xfs", 320, ""),
        ("xfs", 4096, ""),
    ],
)
@pytest.mark.parametrize("guests", [1, 13])
def test_all_of_the_capacity_can_be_reserved(
    libvirtd: Libvirtd, file_system: str, size_mib: int, options: str, guests: int
) -> None:
    del libvirtd  # It is requested because it resets the host.
    with store(file_system, size_mib, options=options):
        empty = observe_store(str(MEMORY)).usage
        assert empty is not None
        total = capacity(empty, configured_mib=None).total // MIB
        assert total > 0.9 * empty.size // MIB - empty.used // MIB
        notes = []
        for guest in range(guests):
            path = MEMORY / f"{guest}-guest"
            path.mkdir()
            size = (total // guests + (total % guests if guest == 0 else 0)) * MIB
            with opened(path) as (parent, directory):
                made = create(parent, directory, Reservation(name="pc.ram", size=size))
                allocate(parent, usage(path / "pc.ram"))
            notes.append(
                Note(
                    name=f"guest{guest}",
                    uuid="",
                    domain_id=guest,
                    directory=str(path),
                    promised=size,
                    files=(made,),
                )
            )
        full = observe_store(str(MEMORY)).usage
        assert full is not None
        room = capacity(replace(full, notes=tuple(notes)), configured_mib=None)
        assert room.promised == total * MIB
        assert room.free == 0 or room.free < MIB


_BREATHE = """
import mmap, sys, time
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
print("breathing", flush=True)
while True:
    for at in range(0, len(memory), mmap.PAGESIZE):
        memory[at] = 1
    time.sleep(0.002)
    for at in range(0, len(memory), 1 << 20):
        memory.madvise(mmap.MADV_REMOVE, at, 1 << 20)
    time.sleep(0.002)
"""
"""A program that writes to all of a file's pages again and again.

It gives them back a MiB at a time.
"""


def test_what_a_guest_takes_and_gives_back_meanwhile_is_nobody_elses(libvirtd: Libvirtd) -> None:
    """A guest that is trimmed, or whose balloon works, while another starts."""
    del libvirtd
    with store("tmpfs", 400):
        path = MEMORY / "1-guest"
        path.mkdir()
        with opened(path) as (parent, directory):
            made = create(parent, directory, Reservation(name="pc.ram", size=64 * MIB))
        note = Note(
            name="guest",
            uuid="",
            domain_id=1,
            directory=str(path),
            promised=64 * MIB,
            files=(made,),
        )
        places = backingstore.places(str(MEMORY))
        backed = places[0].store
        assert isinstance(backed, Store)

        def room() -> int:
            figures = backingstore.figures(backed, [note])
            usage = backingstore.with_files(figures, backed, places, everything=True)
            return capacity(usage, configured_mib=None).free

        before = room()
        with subprocess.Popen(
            [sys.executable, "-c", _BREATHE, path / "pc.ram"], stdout=subprocess.PIPE, text=True
        ) as guest:
            try:
                assert guest.stdout is not None
                assert guest.stdout.readline() == "breathing\n"
                wrong = sum(room() != before for _ in range(1000))
                # With one look it would be one in ten; the kernel's figures may be a page off.
                assert wrong < 5
            finally:
                guest.kill()
