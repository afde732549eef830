"""Starts in pairs: ``virsh start --paused`` of an anonymous guest, and of one on the store."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.guests import hook_for, started
from bench.stores import store
from support.libvirtd import Libvirtd


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One pair of starts, the anonymous guest's first.

    ``ratio`` is the file-backed guest's time divided by the anonymous one's. The hook is installed
    all the time: libvirt calls it for both.
    """

    store: str
    guest_mib: int
    anonymous_seconds: float
    ramshelf_seconds: float
    ratio: float


def measure(daemon: Libvirtd, *, quick: bool) -> Iterator[Sample]:
    """Measure the sizes in turns, on each store by itself."""
    sizes = (256,) if quick else (1024, 4096, 16384)
    for name in ("tmpfs",) if quick else ("tmpfs", "ext4", "xfs"):
        with store(name, max(sizes)), hook_for("ramshelf"):
            for number in range(1 if quick else 21):
                for size in sizes:
                    pair = _pair(daemon, name, size)
                    if number or quick:
                        yield pair


def _pair(daemon: Libvirtd, name: str, size: int) -> Sample:
    seconds = {}
    for backing in ("anonymous", "ramshelf"):
        with started(daemon, backing, size, paused=True) as guest:
            seconds[backing] = guest.start_seconds
    return Sample(
        store=name,
        guest_mib=size,
        anonymous_seconds=seconds["anonymous"],
        ramshelf_seconds=seconds["ramshelf"],
        ratio=seconds["ramshelf"] / seconds["anonymous"],
    )
