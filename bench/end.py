"""End: how long it takes until nothing of a guest is left, and what of its dirty memory that writes."""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from bench.guests import ENDINGS, end, hook_for, started
from bench.stores import Store, btrfs, store
from support.domains import wait_console
from support.libvirtd import Libvirtd

_OWN_MIB = 256
"""What the guest needs for itself."""

_CONTROL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One end; ``written_mib`` includes what a sync writes after it.

    ``before_mib`` is what was written in the half second before: the kernel's ordinary writeback, that had
    begun.
    """

    store: str
    backing: str
    ending: str
    dirty_mib: int
    seconds: float
    written_mib: float
    before_mib: float


@dataclass(frozen=True, kw_only=True)
class _Case:
    backing: str
    ending: str
    dirty_mib: int


def _cases(name: str) -> Iterator[_Case]:
    """What is ended on a store, and how: the main peers with all amounts dirty, the rest with one."""
    amounts = (512, 1024, 2048)
    if name == "btrfs":
        yield from (
            _Case(backing=backing, ending="destroy", dirty_mib=512) for backing in ("default", "nova")
        )
        return
    yield _Case(backing="default", ending="destroy", dirty_mib=512)
    # Memory that is in no file is the same beside every store.
    for backing in ("anonymous", "memfd", "nova", "ramshelf") if name == "swap" else ("nova", "ramshelf"):
        yield from (_Case(backing=backing, ending="destroy", dirty_mib=amount) for amount in amounts)
    for ending in ENDINGS if name in ("ext4", "xfs") else ():
        if ending != "destroy":
            yield from (
                _Case(backing=backing, ending=ending, dirty_mib=512) for backing in ("nova", "ramshelf")
            )


_QUICK = {
    "xfs": [
        *(_Case(backing="ramshelf", ending=ending, dirty_mib=64) for ending in ENDINGS),
        _Case(backing="nova", ending="destroy", dirty_mib=64),
    ],
    "swap": [_Case(backing="memfd", ending="destroy", dirty_mib=64)],
}


def measure(daemon: Libvirtd, *, quick: bool) -> Iterator[Sample]:
    """All cases in turns; btrfs, which ramshelf refuses, once, to show why.

    Not on tmpfs without swap, which has no device that it could write to.
    """
    full = {name: list(_cases(name)) for name in ("ext4", "xfs", "swap")}
    last = {"btrfs": list(_cases("btrfs"))}
    for stores in (_QUICK,) if quick else (full, full, full, last):
        for name, cases in stores.items():
            size = max(case.dirty_mib for case in cases) + _OWN_MIB
            with btrfs(size) if name == "btrfs" else store(name, size) as place:
                for case in cases:
                    yield _end(daemon, place, case)


def _end(daemon: Libvirtd, place: Store, case: _Case) -> Sample:
    memory = case.dirty_mib + _OWN_MIB
    with (
        hook_for(case.backing),
        started(daemon, case.backing, memory, vcpus=2, dirty_mib=case.dirty_mib) as guest,
    ):
        os.sync()  # while it boots: what its start has dirtied, so that only what the guest dirties is left
        wait_console(guest.name, "DIRTIED", timeout=120)
        control = place.written_mib()
        time.sleep(_CONTROL_SECONDS)
        before = place.written_mib()
        seconds = end(daemon, guest, case.ending)
        os.sync()
        return Sample(
            store=place.name,
            **asdict(case),
            seconds=seconds,
            written_mib=place.written_mib() - before,
            before_mib=before - control,
        )
