"""Pressure: four guests get half of the RAM they have touched, their hot sets well inside it."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from bench.guests import hook_for, rounds, started
from bench.stores import store
from support.cgroup import memory_limit, usage_mib
from support.domains import wait_console
from support.libvirtd import Libvirtd

_OWN_MIB = 256


@dataclass(frozen=True, kw_only=True)
class _Load:
    """What the guests do; sizes are in MiB."""

    guests: tuple[str, ...]
    cold: int
    hot: int
    settle_seconds: int
    seconds: int

    @property
    def guest_mib(self) -> int:
        return self.cold + self.hot + _OWN_MIB

    @property
    def rounds(self) -> int:
        return sum(map(rounds, self.guests))


_FULL = _Load(
    guests=("one", "two", "three", "four"), cold=400, hot=50, settle_seconds=2, seconds=12
)
_QUICK = _Load(guests=("one", "two"), cold=192, hot=16, settle_seconds=1, seconds=2)
_SHORT = [(name, "ramshelf") for name in ("ext4", "xfs")] + [
    ("swap", backing) for backing in ("ramshelf", "anonymous", "memfd")
]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the guests got done in a while.

    Each had filled its memory and the host had settled before. ``limit`` says whether RAM was
    short. ``touched_mib`` is the RAM that libvirtd, QEMU and the page cache behind them took,
    ``rounds`` are over a hot set, of all guests; ``filling_mib`` was written before.
    """

    store: str
    backing: str
    limit: str
    seconds: int
    rounds: float
    filling_seconds: float
    filling_mib: float
    written_mib: float
    touched_mib: float


def measure(daemon: Libvirtd, *, quick: bool) -> Iterator[Sample]:
    """Measure once without a limit, which tells what half is; then measure each case in turns."""
    load, short = (_QUICK, _SHORT[1:3]) if quick else (_FULL, _SHORT)
    free = _work(daemon, "swap", "ramshelf", load, None)
    yield free
    for _ in range(1 if quick else 3):
        for name, backing in short:
            yield _work(daemon, name, backing, load, int(free.touched_mib / 2))


def _work(daemon: Libvirtd, name: str, backing: str, load: _Load, limit_mib: int | None) -> Sample:
    all_mib = len(load.guests) * load.guest_mib
    with (
        store(name, all_mib) as place,
        hook_for(backing),
        memory_limit(daemon.pid, limit_mib or 2 * all_mib) as group,
        ExitStack() as stack,
    ):
        empty, begun = place.written_mib(), time.perf_counter()
        for guest in load.guests:
            stack.enter_context(
                started(
                    daemon,
                    backing,
                    load.guest_mib,
                    name=guest,
                    dirty_mib=load.cold + load.hot,
                    options=f"ramshelf.rewrite={load.hot}",
                )
            )
        for guest in load.guests:
            wait_console(guest, "DIRTIED", timeout=300)
        filled = time.perf_counter()
        time.sleep(load.settle_seconds)
        before, done = place.written_mib(), load.rounds
        time.sleep(load.seconds)
        return Sample(
            store=name,
            backing=backing,
            limit="half" if limit_mib else "none",
            seconds=load.seconds,
            rounds=float(load.rounds - done),
            filling_seconds=filled - begun,
            filling_mib=before - empty,
            written_mib=place.written_mib() - before,
            touched_mib=usage_mib(group),
        )
