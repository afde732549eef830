"""/proc and /sys: a pure function from text to figures, and one line that reads."""

from collections.abc import Mapping
from dataclasses import dataclass

from ramshelf.core.mounts import Mount, parse_mountinfo, unescape
from ramshelf.core.units import KIB
from ramshelf.system.filesystem import read_text


@dataclass(frozen=True, kw_only=True)
class SwapArea:
    """One line of /proc/swaps; bytes."""

    path: str
    kind: str
    size: int
    used: int
    priority: int


def parse_swaps(text: str) -> tuple[SwapArea, ...]:
    """The active swap areas."""
    areas = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 5:
            areas.append(
                SwapArea(
                    path=unescape(fields[0]).removesuffix(" (deleted)"),
                    kind=fields[1],
                    size=int(fields[2]) * KIB,
                    used=int(fields[3]) * KIB,
                    priority=int(fields[4]),
                )
            )
    return tuple(areas)


def parse_meminfo(text: str) -> Mapping[str, int]:
    """/proc/meminfo by name; bytes for what is given in kB, else the number."""
    figures = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields:
            figures[name] = int(fields[0]) * (KIB if fields[-1] == "kB" else 1)
    return figures


def mounts() -> tuple[Mount, ...]:
    """This process's mount table."""
    return parse_mountinfo(read_text("/proc/self/mountinfo"))


def swaps() -> tuple[SwapArea, ...]:
    """The active swap areas."""
    return parse_swaps(read_text("/proc/swaps", ""))


def meminfo() -> Mapping[str, int]:
    """The host's memory figures."""
    return parse_meminfo(read_text("/proc/meminfo"))
