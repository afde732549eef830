"""What every table needs: samples summed up, a device's counters, the machine's description."""

import os
import platform
import re
import shlex
import statistics
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ramshelf import __version__
from ramshelf.core.units import MIB
from ramshelf.system.procfs import meminfo


class Unavailable(Exception):  # noqa: N818 - it is no error: a table that this machine cannot have
    """The reason why a table cannot be measured here, in a few words."""


_SECTOR = 512
"""The bytes of a sector in /sys/block/*/stat, whatever the device's own sectors are."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Repeated measurements of one thing: the median, and the range that they lie in.

    The range is that of all values, or from eight values on that of their middle half.
    """

    count: int
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Series":
        """Sum up at least one value."""
        if len(values) < 8:
            low, high = min(values), max(values)
        else:
            low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(count=len(values), median=statistics.median(values), low=low, high=high)

    def __str__(self) -> str:
        median, low, high = map(number, (self.median, self.low, self.high))
        return median if low == high else f"{median} ({low}-{high})"


def number(value: float) -> str:
    """Return a value as text: three digits that matter, and no more than two decimals."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits else text


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the samples of one thing have in common, and their figures."""

    keys: Mapping[str, str | int]
    figures: Mapping[str, Series]


def rows(samples: Iterable[Mapping[str, str | float]]) -> list[Row]:
    """Sum samples up, in the order in which their things came first.

    A sample is a table's dataclass as a mapping: its floats are figures, all else says what they
    are of.
    """
    groups: dict[tuple[str | int, ...], list[Mapping[str, str | float]]] = {}
    for sample in samples:
        keys = tuple(value for value in sample.values() if not isinstance(value, float))
        groups.setdefault(keys, []).append(sample)
    return [
        Row(
            keys={name: value for name, value in alike[0].items() if not isinstance(value, float)},
            figures={
                name: Series.of([float(one[name]) for one in alike])
                for name, value in alike[0].items()
                if isinstance(value, float)
            },
        )
        for alike in groups.values()
    ]


def timed(*argv: str, stdin: str | os.PathLike[str] = os.devnull) -> float:
    """Run a program, and return the seconds from its start to its end.

    Raises RuntimeError where its exit status is not 0.
    """
    with open(stdin, "rb") as file:
        start = time.perf_counter()
        ended = subprocess.run(
            argv,
            stdin=file,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - start
    if ended.returncode:
        raise RuntimeError(
            f"{shlex.join(argv)} ended with {ended.returncode}: {ended.stderr.strip()}"
        )
    return seconds


def written_sectors(text: str) -> int:
    """Return the sectors written, from the text of a /sys/block/DEVICE/stat.

    The kernel's Documentation/block/stat.rst describes that file.
    """
    return int(text.split()[6])


def written_mib(device: str) -> float:
    """Return the MiB that a block device such as /dev/loop0 has written since it came to be.

    It may be a partition, too.
    """
    path = Path("/sys/class/block", Path(device).resolve().name, "stat")
    return written_sectors(path.read_text()) * _SECTOR / MIB


def machine(virt_type: str) -> dict[str, object]:
    """Describe what the figures were measured on, with nothing that names the machine.

    ``virt_type`` is libvirt's word for what ran the guests.
    """
    qemu = _version("qemu-system-x86_64", "--version")
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "ramshelf": __version__,
        "cpu": cpu[1] if cpu else platform.machine(),
        "cpus": os.cpu_count(),
        "ram_mib": meminfo()["MemTotal"] // MIB,
        "kernel": _numbers(platform.release()),
        "distribution": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "python": platform.python_version(),
        "libvirt": _version("virsh", "--version"),
        "qemu": f"{qemu}, {'KVM' if virt_type == 'kvm' else 'no KVM (TCG)'}",
        "cgroup": 1 if Path("/sys/fs/cgroup/memory").is_dir() else 2,
        "devices": "loop devices with direct I/O",
    }


def _version(*argv: str) -> str:
    return _numbers(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def _numbers(text: str) -> str:
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found[0] if found else "unknown"
