"""/proc and /sys: a pure function from text to figures, and one line that reads."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
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
    for line in text.split("\n")[1:]:
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


def parse_maps(text: str) -> frozenset[tuple[int, int, int]]:
    """Device (major, minor) and inode of all that a /proc/PID/maps shows as mapped.

    Files' names stand at the end of a line, as they are but for a line end: no other letter may be taken for
    one, or a name could show what is not mapped.
    """
    mapped = set()
    for line in text.split("\n"):
        fields = line.split(maxsplit=5)
        if len(fields) >= 5 and fields[4] != "0":
            major, _, minor = fields[3].partition(":")
            mapped.add((int(major, 16), int(minor, 16), int(fields[4])))
    return frozenset(mapped)


def holders(paths: Iterable[str]) -> tuple[int, ...]:
    """The processes that have one of these files open or mapped; files that are gone are nobody's.

    Sees what root sees of this PID namespace. Costs some ms for every hundred processes.
    """
    return _those(paths, lambda pid, wanted: _opens(pid, wanted) or _maps(pid, wanted))


def mappers(paths: Iterable[str]) -> tuple[int, ...]:
    """The processes that have one of these files mapped; as ``holders``."""
    return _those(paths, _maps)


def opened_paths(pid: int) -> tuple[str, ...]:
    """What a process has open, by the names that the kernel shows; none of one that has ended."""
    paths = []
    with suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                paths.append(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return tuple(paths)


def thread_states(pid: int) -> frozenset[str]:
    """The letters of proc_pid_stat(5) that the threads of a process have, such as R, S, T."""
    states = set()
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                states.add(read_text(f"/proc/{pid}/task/{thread}/stat").rpartition(")")[2].split()[0])
    return frozenset(states)


_Identities = set[tuple[int, int, int]]


def _those(paths: Iterable[str], holds: Callable[[int, _Identities], bool]) -> tuple[int, ...]:
    wanted = set()
    for path in paths:
        with suppress(FileNotFoundError):
            wanted.add(_identity(os.stat(path, follow_symlinks=False)))
    if not wanted:
        return ()
    return tuple(pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if holds(pid, wanted))


def _opens(pid: int, wanted: _Identities) -> bool:
    with suppress(OSError):  # it has ended meanwhile
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if _identity(os.stat(f"/proc/{pid}/fd/{descriptor}")) in wanted:
                    return True
    return False


def _maps(pid: int, wanted: _Identities) -> bool:
    with suppress(OSError):
        return not wanted.isdisjoint(parse_maps(read_text(f"/proc/{pid}/maps", "")))
    return False


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return os.major(status.st_dev), os.minor(status.st_dev), status.st_ino


@dataclass(frozen=True, kw_only=True)
class Pressure:
    """How long tasks have waited for a resource since boot, in seconds: some of them, and all at once."""

    waiting: float
    stalled: float


def parse_pressure(text: str) -> Pressure:
    """A file of /proc/pressure (Documentation/accounting/psi.rst), whose totals are in microseconds."""
    totals = {}
    for line in text.splitlines():
        kind, *fields = line.split()
        totals[kind] = int(dict(field.split("=") for field in fields)["total"]) / 1e6
    return Pressure(waiting=totals["some"], stalled=totals.get("full", 0.0))


def pressure(resource: str) -> Pressure | None:
    """That of ``memory``, ``io`` or ``cpu``; None where the kernel keeps none (no CONFIG_PSI, or psi=0)."""
    try:
        return parse_pressure(read_text(f"/proc/pressure/{resource}"))
    except OSError:
        return None
