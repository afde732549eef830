"""Figures from /proc and /sys.

For each there is a pure function from text to figures, and one line that reads.
"""

from __future__ import annotations

import os
import stat

from ramshelf.core.files.mounts import parse_mountinfo, unescape
from ramshelf.core.ram import HostRam
from ramshelf.core.record import dataclass
from ramshelf.core.units import KIB
from ramshelf.system.filesystem import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ramshelf.core.files.mounts import Mount
    from ramshelf.core.store.find import Store

    _Identity = tuple[int, int, int]


_RAM_DISKS = frozenset({"zram", "ram"})
_RAM_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "devtmpfs"})


@dataclass(frozen=True, kw_only=True)
class SwapArea:
    """One line of /proc/swaps; ``size`` and ``used`` are in bytes."""

    path: str
    kind: str
    size: int
    used: int
    priority: int


def parse_swaps(text: str) -> tuple[SwapArea, ...]:
    """Return the active swap areas that a /proc/swaps lists."""
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
    """Return /proc/meminfo by name: bytes for what is given in kB, else the number."""
    figures = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields:
            figures[name] = int(fields[0]) * (KIB if fields[-1] == "kB" else 1)
    return figures


def mounts() -> tuple[Mount, ...]:
    """Return this process's mount table."""
    return parse_mountinfo(read_text("/proc/self/mountinfo"))


def swaps() -> tuple[SwapArea, ...]:
    """Return the active swap areas, wherever they lie."""
    return parse_swaps(read_text("/proc/swaps", ""))


def disk_swaps() -> tuple[SwapArea, ...]:
    """Return the active swap areas that are room, because what goes there leaves RAM.

    An area whose file is not seen, as from another mount namespace, is taken for one of these: a
    tmpfs has no swap areas.
    """
    return tuple(area for area in swaps() if not _lies_in_ram(area.path))


def device_number(path: str) -> int:
    """Return the number of a block device, or of the one that a file lies on (st_rdev, st_dev).

    The path is not seen where the kernel shows that of a swap area which somebody with another root
    has activated; then a device is known by its name. Raises OSError.
    """
    try:
        status = os.stat(path)
    except OSError:
        major, _, minor = read_text(f"/sys/class/block/{os.path.basename(path)}/dev", "").partition(
            ":"
        )
        if not minor:
            raise
        return os.makedev(int(major), int(minor))
    return status.st_rdev if stat.S_ISBLK(status.st_mode) else status.st_dev


def _lies_in_ram(path: str) -> bool:
    try:
        number = device_number(path)
    except OSError:
        return False
    return node_in_ram(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")


def node_in_ram(node: str) -> bool:
    """Tell whether what the block device of this sysfs node holds stays in RAM, or a part of it.

    That is so for zram and brd, and for what lies on them or on a tmpfs, whatever layers are in
    between.
    """
    try:
        node = os.path.join(os.path.dirname(node), os.readlink(node))
    except OSError:  # no link
        pass
    if os.path.exists(f"{node}/partition"):
        node = os.path.dirname(node)
    if is_ram_disk(os.path.basename(node)):
        return True
    backing = read_text(f"{node}/loop/backing_file", "").rstrip("\n")
    if backing:
        return on_ram_file_system(backing) or _lies_in_ram(backing)
    try:
        below = os.listdir(f"{node}/slaves")
    except OSError:
        return False
    return any(node_in_ram(f"{node}/slaves/{name}") for name in below)


def is_ram_disk(name: str) -> bool:
    """Tell whether the block device of this name is one of zram or brd."""
    return name.rstrip("0123456789") in _RAM_DISKS


def on_ram_file_system(path: str) -> bool:
    """Tell whether a file that can be seen lies on a tmpfs or the like."""
    try:
        number = os.stat(path).st_dev
    except OSError:
        return False
    device = os.major(number), os.minor(number)
    return any(mount.device == device and mount.fstype in _RAM_FILE_SYSTEMS for mount in mounts())


def meminfo() -> Mapping[str, int]:
    """Return the host's memory figures."""
    return parse_meminfo(read_text("/proc/meminfo"))


def host_ram(store: Store | None, *, reserved: int) -> HostRam:
    """Return what this host has of RAM, and of swap on disks; ``reserved`` is in bytes."""
    figures = meminfo()
    return HostRam(
        size=figures["MemTotal"],
        huge_pages=figures.get("Hugetlb", 0),
        reserved=reserved,
        swap=sum(area.size for area in disk_swaps()),
        kind=store.kind if store else None,
        file_system=store.mount.fstype if store else "",
    )


def parse_maps(text: str) -> frozenset[tuple[int, int, int]]:
    """Return device (major, minor) and inode of all that a /proc/PID/maps shows as mapped.

    Files' names stand at the end of a line, as they are except for line ends. No other letter may
    be taken for a line end, or a name could show what is not mapped.
    """
    mapped = set()
    for line in text.split("\n"):
        fields = line.split(maxsplit=5)
        if len(fields) >= 5 and fields[4] != "0":
            major, _, minor = fields[3].partition(":")
            mapped.add((int(major, 16), int(minor, 16), int(fields[4])))
    return frozenset(mapped)


def holders_of(files: set[tuple[int, int, int]]) -> tuple[int, ...]:
    """Return the processes that have one of these files open or mapped.

    A file is given by its device's numbers and its inode. This sees what root sees of this PID
    namespace, and costs some ms for every hundred processes.
    """
    return _those(files, lambda pid, wanted: _opens(pid, wanted) or _maps(pid, wanted))


def mappers_of(files: set[tuple[int, int, int]]) -> tuple[int, ...]:
    """Return the processes that have one of these files mapped, as ``holders_of`` does."""
    return _those(files, _maps)


def opened_paths(pid: int) -> tuple[str, ...]:
    """Return what a process has open, by the names that the kernel shows.

    There is nothing of a process that has ended.
    """
    paths = []
    for entry in _entries(f"/proc/{pid}/fd"):
        try:
            paths.append(os.readlink(entry))
        except OSError:  # closed meanwhile
            continue
    return tuple(paths)


def _those(files: set[_Identity], holds: Callable[[int, set[_Identity]], bool]) -> tuple[int, ...]:
    if not files:
        return ()
    return tuple(
        pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if holds(pid, files)
    )


def _opens(pid: int, wanted: set[_Identity]) -> bool:
    for entry in _entries(f"/proc/{pid}/fd"):
        try:
            if _identity(os.stat(entry)) in wanted:
                return True
        except OSError:  # closed meanwhile
            continue
    return False


def _maps(pid: int, wanted: set[_Identity]) -> bool:
    try:
        return not wanted.isdisjoint(parse_maps(read_text(f"/proc/{pid}/maps", "")))
    except OSError:  # it has ended meanwhile
        return False


def _entries(directory: str) -> Iterator[str]:
    """Yield the full paths of what is in a directory of a process; nothing once it has ended."""
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        yield f"{directory}/{name}"


def _identity(status: os.stat_result) -> _Identity:
    return os.major(status.st_dev), os.minor(status.st_dev), status.st_ino


@dataclass(frozen=True, kw_only=True)
class Pressure:
    """How long tasks have waited for a resource since boot, in seconds.

    ``waiting`` is how long some of them have, ``stalled`` how long all have at once.
    """

    waiting: float
    stalled: float


def parse_pressure(text: str) -> Pressure:
    """Return what a file of /proc/pressure says (Documentation/accounting/psi.rst).

    The totals in the file are in microseconds.
    """
    totals = {}
    for line in text.splitlines():
        kind, *fields = line.split()
        totals[kind] = int(dict(field.split("=") for field in fields)["total"]) / 1e6
    return Pressure(waiting=totals["some"], stalled=totals.get("full", 0.0))


def pressure(resource: str) -> Pressure | None:
    """Return the pressure on ``memory``, ``io`` or ``cpu``.

    Return None where the kernel keeps no figures (no CONFIG_PSI, or psi=0).
    """
    try:
        return parse_pressure(read_text(f"/proc/pressure/{resource}"))
    except OSError:
        return None
