"""Start: what ``virsh start --paused`` takes and writes; the guest touches none of its memory."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.guests import BACKINGS, IN_FILES, hook_for, started
from bench.stores import KINDS, Store, store
from support.counters import sync
from support.libvirtd import Libvirtd


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One start; ``written_mib`` includes what a sync writes after it.

    ``allocated_mib`` is what the store has given the guest; of anonymous memory and memfd it is
    what is in RAM.
    """

    store: str
    backing: str
    guest_mib: int
    seconds: float
    written_mib: float
    allocated_mib: float


def measure(daemon: Libvirtd, *, quick: bool) -> Iterator[Sample]:
    """Measure each size on each store with each backing, in turns.

    Memory that is in no file is measured once, beside swap.
    """
    sizes = (256,) if quick else (1024, 2048, 4096, 8192, 16384)
    for _ in range(1 if quick else 3):
        for name in KINDS:
            with store(name, max(sizes)) as place:
                for backing in BACKINGS if name == "swap" else IN_FILES:
                    with hook_for(backing):
                        for size in sizes:
                            yield _start(daemon, place, backing, size)


def _start(daemon: Libvirtd, place: Store, backing: str, size: int) -> Sample:
    sync()  # writes what the guest before has left, such as that its file is gone
    before = place.written_mib()
    with started(daemon, backing, size, paused=True) as guest:
        sync()
        return Sample(
            store=place.name,
            backing=backing,
            guest_mib=size,
            seconds=guest.start_seconds,
            written_mib=place.written_mib() - before,
            allocated_mib=place.allocated_mib() or guest.resident_mib(),
        )
