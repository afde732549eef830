"""What a run leaves: samples of one table, the machine that they were taken on, and its text."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import Row, rows
from ramshelf.cli.output import table

SPREAD = "Median (lowest-highest; of eight and more the middle half)."


@dataclass(frozen=True, kw_only=True)
class Result:
    """A table's JSON.

    ``seconds`` is how long it took. The figures of a quick one mean nothing.
    """

    table: str
    title: str
    quick: bool
    seconds: int
    machine: Mapping[str, Any]
    samples: Sequence[Mapping[str, str | float]]

    @property
    def rows(self) -> list[Row]:
        """The samples, summed up."""
        return rows(self.samples)


def load(path: Path) -> Result:
    """Read what a run has written."""
    return Result(**json.loads(path.read_text()))


def digest(path: Path) -> str:
    """Return the digest that tells whether a picture shows this file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def text(result: Result) -> str:
    """Return the table as it is printed."""
    found = result.rows
    header = [*found[0].keys, *found[0].figures]
    cells = [[*row.keys.values(), *row.figures.values()] for row in found]
    host = ", ".join(f"{key} {value}" for key, value in result.machine.items())
    body = table([name.upper().replace("_", " ") for name in header], cells)
    return f"{result.title}\n{host}\n{SPREAD}\n\n{body}\n"
