"""End: how long until nothing of a guest is left, and what of its dirty memory that writes."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from bench.guests import (
    ASLEEP,
    BACKINGS,
    ENDINGS,
    IN_FILES,
    OWN_MIB,
    POWEROFF,
    end,
    hook_for,
    started,
)
from bench.stores import Store, btrfs, store
from support.counters import sync
from support.domains import wait_console
from support.libvirtd import Libvirtd

_CONTROL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One end of a guest; ``written_mib`` includes what a sync writes after it.

    ``control_mib`` is what was written of the same guest's memory in the half second before, when
    it was not ended yet: the kernel's ordinary writeback. Where a guest powers off by itself,
    everything is counted from its start on.
    """

    store: str
    backing: str
    ending: str
    dirty_mib: int
    seconds: float
    written_mib: float
    control_mib: float


@dataclass(frozen=True, kw_only=True)
class _Case:
    backing: str
    ending: str
    dirty_mib: int


_SOME, *_MORE = 512, 1024, 2048


def _cases(name: str) -> list[_Case]:
    """Return what is ended on a store, and how.

    It is ended by destroy with each amount of dirty memory, and by the other endings with one.
    Memory that is in no file is the same beside every store.
    """
    if name == "btrfs":
        return [
            _Case(backing=backing, ending="destroy", dirty_mib=_SOME)
            for backing in ("default", "nova")
        ]
    return [
        _Case(backing=backing, ending=ending, dirty_mib=amount)
        for backing in (BACKINGS if name == "swap" else IN_FILES)
        for ending in (ENDINGS if name in {"ext4", "xfs"} else ("destroy",))
        for amount in ((_SOME, *_MORE) if ending == "destroy" else (_SOME,))
    ]


_QUICK = {
    "xfs": [
        *(_Case(backing="ramshelf", ending=ending, dirty_mib=64) for ending in ENDINGS),
        _Case(backing="nova", ending="destroy", dirty_mib=64),
    ],
    "swap": [_Case(backing="memfd", ending="destroy", dirty_mib=64)],
}


def measure(daemon: Libvirtd, *, quick: bool) -> Iterator[Sample]:
    """Measure all cases in turns, and btrfs, which ramshelf refuses, once to show why."""
    full = {name: _cases(name) for name in ("ext4", "xfs", "tmpfs", "swap")}
    for stores in (_QUICK,) if quick else (full, full, full, {"btrfs": _cases("btrfs")}):
        for name, cases in stores.items():
            size = max(case.dirty_mib for case in cases) + OWN_MIB
            with btrfs(size) if name == "btrfs" else store(name, size) as place:
                for backing in dict.fromkeys(case.backing for case in cases):
                    with hook_for(backing):
                        for case in cases:
                            if case.backing == backing:
                                yield _end(daemon, place, case)


def _end(daemon: Libvirtd, place: Store, case: _Case) -> Sample:
    asleep, by_itself = case.ending in ASLEEP, case.ending == POWEROFF
    # A guest that runs does not touch the memory that the host dirties.
    options = (
        f"ramshelf.poweroff ramshelf.dirty={case.dirty_mib}" if by_itself else f"mem={OWN_MIB}M"
    )
    with ExitStack() as stack:
        guest = stack.enter_context(
            started(
                daemon,
                case.backing,
                case.dirty_mib + OWN_MIB * (1 + by_itself),
                paused=asleep,
                vcpus=1 + by_itself,
                options=options,
            )
        )
        sync()  # writes what its start has dirtied: only what is dirtied from now on is left
        if not asleep:
            wait_console(guest.name, "GUEST-UP", timeout=120)
        if not by_itself:
            guest.dirty(case.dirty_mib)
        begin = place.written_mib()
        if not by_itself:
            time.sleep(_CONTROL_SECONDS)
        before = place.written_mib()
        seconds = end(daemon, guest, case.ending)
        sync()
        return Sample(
            store=place.name,
            backing=case.backing,
            ending=case.ending,
            dirty_mib=case.dirty_mib,
            seconds=seconds,
            written_mib=place.written_mib() - before,
            control_mib=before - begin,
        )
