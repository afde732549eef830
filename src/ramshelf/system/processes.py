"""The processes of this host, by /proc."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ramshelf.core.host import Process, Unknown
from ramshelf.system.filesystem import read_text
from ramshelf.system.procfs import parse_meminfo


def parse_process(
    pid: int, stat: str, status: str, cmdline: str, oom_score_adj: str, *, boot_time: float, ticks: int
) -> Process:
    """A process by the text of its files; ``boot_time`` in seconds since the epoch, ``ticks`` a second.

    A script is named after itself, not after its interpreter. The start is rounded up to a tick
    (proc_pid_stat(5), field 22): what was written before it never looks newer.
    """
    left, _, right = stat.rpartition(")")
    name = left.partition("(")[2]
    argv = tuple(cmdline.rstrip("\0").split("\0")) if cmdline else ()
    if name.startswith("python") and len(argv) > 1:
        name = os.path.basename(argv[1])
    sizes = parse_meminfo("\n".join(line for line in status.splitlines() if line.endswith(" kB")))
    return Process(
        pid=pid,
        name=name,
        argv=argv,
        started=boot_time + (int(right.split()[19]) + 1) / ticks,
        anonymous=sizes.get("RssAnon", 0),
        swapped=sizes.get("VmSwap", 0),
        page_tables=sizes.get("VmPTE", 0),
        oom_score_adj=int(oom_score_adj),
    )


def processes() -> tuple[Process, ...] | Unknown:
    """All processes that have memory of their own (kernel threads have none)."""
    try:
        read_text("/proc/1/stat")
    except OSError:
        return Unknown("/proc hides the processes of other users (hidepid)")
    return tuple(_all())


def running(name: str) -> int | None:
    """The process of this name, however it was started; reads no more than it must. None: there is none."""
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError):
            command = read_text(f"/proc/{entry}/comm").strip()
            if command.startswith("python"):
                argv = read_text(f"/proc/{entry}/cmdline").split("\0")
                command = os.path.basename(argv[1]) if len(argv) > 1 else command
            if command == name:
                return int(entry)
    return None


def _all() -> Iterator[Process]:
    boot_time = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    ticks = os.sysconf("SC_CLK_TCK")
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        directory = Path("/proc", entry)
        try:
            status = read_text(directory / "status")
            if "\nVmRSS:" in status:
                yield parse_process(
                    int(entry),
                    read_text(directory / "stat"),
                    status,
                    read_text(directory / "cmdline"),
                    read_text(directory / "oom_score_adj"),
                    boot_time=boot_time,
                    ticks=ticks,
                )
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
