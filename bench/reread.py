"""The other side: read-only passes over a set twice as large as the RAM that it may use."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.mapping import PLACES, mapping
from bench.stores import store
from support.counters import sync
from support.libvirtd import Libvirtd

PASSES = 3


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Three passes over memory that has been filled before.

    Where it is a file's, it has been written back, too.
    """

    store: str
    memory: str
    set_mib: int
    seconds: float
    written_mib: float


def measure(_: Libvirtd, *, quick: bool) -> Iterator[Sample]:
    """Measure with a plain mapping instead of a guest: what a pass costs is the kernel's."""
    size = 16 if quick else 64
    for _repetition in range(1 if quick else 3):
        for name, memories in PLACES.items():
            with store(name, 2 * size) as place:
                for memory in memories:
                    with mapping(memory, size, size // 2) as one:
                        one.fill()
                        sync()
                        before = place.written_mib()
                        seconds = sum(one.read() for _ in range(PASSES))
                        sync()
                        written = place.written_mib() - before
                    yield Sample(
                        store=name,
                        memory=memory,
                        set_mib=size,
                        seconds=seconds,
                        written_mib=written,
                    )
