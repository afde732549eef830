"""What of each memory file is in RAM, asked of the kernel no more often than it is worth.

The kernel walks every page that a file has in RAM, which takes it some 20 ns each: seconds on a
large host.
"""

import time
from contextlib import suppress
from dataclasses import dataclass

from ramshelf.core.store.directory import FileUsage
from ramshelf.system.pagecache import resident


@dataclass
class _Figure:
    resident: int
    measured: float
    cost: float
    asked: bool = True


class Residency:
    """Remembers each file's figure and measures anew, within a budget, those that are oldest."""

    def __init__(self) -> None:
        self._figures: dict[str, _Figure] = {}
        self._due: set[str] = set()

    def begin(self, budget: float) -> None:
        """Begin a round, in which ``budget`` seconds may be spent on files that have a figure."""
        self._figures = {path: figure for path, figure in self._figures.items() if figure.asked}
        self._due = set()
        for path, figure in sorted(self._figures.items(), key=lambda item: item[1].measured):
            figure.asked = False
            budget -= figure.cost
            if budget >= 0 or not self._due:
                self._due.add(path)

    def __call__(self, file: FileUsage) -> int:
        """Return the bytes of the file in RAM, as of this round or an earlier one.

        They are 0 where the file has gone.
        """
        path = file.path
        figure = self._figures.get(path)
        if figure is None or path in self._due:
            begun, size = time.monotonic(), 0
            with suppress(FileNotFoundError):
                size = resident(file)
            ended = time.monotonic()
            figure = self._figures[path] = _Figure(
                resident=size, measured=ended, cost=ended - begun
            )
        figure.asked = True
        return figure.resident
