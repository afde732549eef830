"""Steady state: what a store writes while a guest rewrites a working set, with RAM to spare."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench.guests import hook_for, rounds, started
from bench.stores import store
from support.domains import wait_console
from support.libvirtd import Libvirtd

_OWN_MIB = 256
_GUESTS = {"ext4": ("ramshelf",), "xfs": ("ramshelf",), "swap": ("ramshelf", "memfd", "anonymous")}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a minute of rewriting wrote.

    ``rounds`` are those of the whole working set, of all guests.
    """

    store: str
    guests: str
    set_mib: int
    seconds: int
    rounds: float
    written_mib: float


def measure(daemon: Libvirtd, *, quick: bool) -> Iterator[Sample]:
    """Measure each store in turns.

    Guests that have no file to be written back to run side by side, over the same swap.
    """
    for _ in range(1 if quick else 3):
        for name, backings in _GUESTS.items():
            if quick and name == "xfs":
                continue
            yield _rewrite(
                daemon, name, backings, set_mib=64 if quick else 1024, seconds=2 if quick else 60
            )


def _rewrite(
    daemon: Libvirtd, name: str, backings: Sequence[str], *, set_mib: int, seconds: int
) -> Sample:
    memory = set_mib + _OWN_MIB
    with store(name, memory) as place, ExitStack() as stack:
        stack.enter_context(hook_for("ramshelf"))
        for backing in backings:
            stack.enter_context(
                started(
                    daemon,
                    backing,
                    memory,
                    name=backing,
                    dirty_mib=set_mib,
                    options="ramshelf.rewrite",
                )
            )
        for backing in backings:
            wait_console(backing, "DIRTIED", timeout=120)
        written, done = place.written_mib(), sum(map(rounds, backings))
        time.sleep(seconds)
        return Sample(
            store=name,
            guests=" + ".join(backings),
            set_mib=set_mib,
            seconds=seconds,
            rounds=float(sum(map(rounds, backings)) - done),
            written_mib=place.written_mib() - written,
        )
