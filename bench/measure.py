"""What every table needs: repeated measurements told by their median, counters, the machine's description."""

import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ramshelf import __version__
from ramshelf.core.units import MIB
from ramshelf.system.procfs import meminfo

_SECTOR = 512
"""/sys/block/*/stat counts in sectors of 512 bytes, whatever the device's own are."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Repeated measurements of one thing: the median, and the range that the middle half of them lies in."""

    count: int
    median: float
    low: float
    high: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Series":
        """Sum up at least one value."""
        quarters = (
            statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        )
        return cls(
            count=len(values),
            median=statistics.median(values),
            low=quarters[0],
            high=quarters[2],
            minimum=min(values),
            maximum=max(values),
        )

    def __str__(self) -> str:
        return f"{self.median:.1f} ({self.low:.1f}-{self.high:.1f})"


def in_turns(contestants: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """Measure each in turn, over and over, so that the machine's moods hit all alike; one round warms up.

    The n-th values of all belong together.
    """
    values: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(repetitions + 1):
        for name, measure in contestants.items():
            value = measure()
            if round_number:
                values[name].append(value)
    return values


def program_ms(*argv: str, stdin: str | os.PathLike[str] = os.devnull) -> float:
    """Milliseconds from starting a program to its end; an exit status other than 0 is an error."""
    with open(stdin, "rb") as file:
        start = time.perf_counter_ns()
        subprocess.run(argv, stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
        return (time.perf_counter_ns() - start) / 1e6


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What went to and came from a device meanwhile; MiB."""

    read_mib: float
    written_mib: float


def device_sectors(text: str) -> tuple[int, int]:
    """Sectors read and written, of a /sys/block/DEVICE/stat (the kernel's Documentation/block/stat.rst)."""
    fields = text.split()
    return int(fields[2]), int(fields[6])


def device_stat(device: str) -> Path:
    """The counters of a block device or partition such as /dev/loop0."""
    return Path("/sys/class/block", Path(device).resolve().name, "stat")


@contextmanager
def traffic(device: str) -> Iterator[Callable[[], Traffic]]:
    """Count a device's traffic; call what is yielded for the figures so far (sync first where it matters)."""
    path = device_stat(device)
    before = device_sectors(path.read_text())

    def so_far() -> Traffic:
        read, written = device_sectors(path.read_text())
        return Traffic(
            read_mib=(read - before[0]) * _SECTOR / MIB, written_mib=(written - before[1]) * _SECTOR / MIB
        )

    yield so_far


def swap_pages(text: str) -> tuple[int, int]:
    """Pages swapped in and out since boot, of a /proc/vmstat; all swap devices together."""
    figures = dict(line.split() for line in text.splitlines())
    return int(figures["pswpin"]), int(figures["pswpout"])


def machine() -> dict[str, object]:
    """What the figures were measured on; nothing that names the machine."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "ramshelf": __version__,
        "cpu": cpu[1] if cpu else platform.machine(),
        "cpus": os.cpu_count(),
        "ram_mib": meminfo()["MemTotal"] // MIB,
        "kernel": platform.release(),
        "distribution": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "python": platform.python_version(),
        "libvirt": _version("virsh", "--version"),
        "qemu": _version("qemu-system-x86_64", "--version"),
    }


def document(table: str, rows: Sequence[object], *, quick: bool) -> dict[str, object]:
    """A table's result for JSON; ``rows`` are dataclasses."""
    return {
        "table": table,
        "quick": quick,
        "machine": machine(),
        "rows": [asdict(row) for row in rows],  # type: ignore[call-overload]
    }


def _version(*argv: str) -> str:
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found[0] if found else "unknown"
