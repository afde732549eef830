"""zswap in front of the swap: memory three times as large as its RAM, filled once."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.kernel import setting
from bench.mapping import PLACES, mapping
from bench.measure import Unavailable
from bench.stores import store
from ramshelf.core.units import MIB
from ramshelf.system.procfs import meminfo
from support.libvirtd import Libvirtd

_PARAMETERS = "/sys/module/zswap/parameters"
_POOL_PERCENT = 1
"""The share of the host's RAM for zswap's pool, in percent.

It is smaller than what is filled, so that what does not compress goes on to the swap.
"""

_SETTLE_SECONDS = 0.5
"""The seconds until what is on its way to the swap has arrived there."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One filling of memory, with zswap on or off.

    ``pool_mib`` is the RAM in which zswap kept ``kept_mib`` of the memory at the end. That RAM
    comes on top of the limit where memory cgroups are of version 1.
    """

    memory: str
    content: str
    zswap: str
    set_mib: int
    seconds: float
    written_mib: float
    kept_mib: float
    pool_mib: float


def measure(_: Libvirtd, *, quick: bool) -> Iterator[Sample]:
    """Measure over the store of kind swap, in turns."""
    if not os.path.exists(_PARAMETERS):
        raise Unavailable("this kernel has no zswap")
    size = 48 if quick else 512
    for _repetition in range(1 if quick else 3):
        with (
            store("swap", 2 * size) as place,
            setting(f"{_PARAMETERS}/max_pool_percent", str(_POOL_PERCENT)),
        ):
            for content in ("text", "random"):
                for memory in PLACES["swap"]:
                    for state, value in (("off", "N"), ("on", "Y")):
                        with (
                            setting(f"{_PARAMETERS}/enabled", value),
                            mapping(memory, size, size // 3, content=content) as one,
                        ):
                            before = place.written_mib()
                            seconds = one.fill()
                            time.sleep(_SETTLE_SECONDS)
                            written, figures = place.written_mib() - before, meminfo()
                        yield Sample(
                            memory=memory,
                            content=content,
                            zswap=state,
                            set_mib=size,
                            seconds=seconds,
                            written_mib=written,
                            kept_mib=figures["Zswapped"] / MIB,
                            pool_mib=figures["Zswap"] / MIB,
                        )
