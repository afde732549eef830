"""Plain mappings, without a guest around them: a process of its own (touch.py), short of RAM."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.stores import MEMORY
from support.cgroup import memory_limit

PLACES = {"swap": ("file", "memfd", "anonymous"), "ext4": ("file",), "xfs": ("file",)}
"""The stores, and the memory that is measured over each."""


class Mapping:
    """A process that has memory mapped and does as it is told."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def fill(self) -> float:
        """Write all of it; return the seconds that it took."""
        return self._order("fill")

    def read(self) -> float:
        """Read all of it once; return the seconds that it took."""
        return self._order("read")

    def _order(self, word: str) -> float:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("touch.py has no pipes")
        print(word, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


@contextmanager
def mapping(
    memory: str, size_mib: int, limit_mib: int, *, content: str = "random"
) -> Iterator[Mapping]:
    """Start a process that has memory mapped, and hold its RAM to a limit.

    ``memory`` is "anonymous", "memfd" or "file", which is a file on the store.
    """
    file = MEMORY / "mapping"
    argv = [sys.executable, str(Path(__file__).with_name("touch.py"))]
    argv += [str(file) if memory == "file" else memory, str(size_mib), content]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            with memory_limit(process.pid, limit_mib):
                yield Mapping(process)
                process.kill()
                process.wait()
        finally:
            process.kill()
            file.unlink(missing_ok=True)
