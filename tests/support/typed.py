"""Pages of the documentation, typed literally."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from ramshelf.system.run import Completed
from support.pages import commands
from support.process import run

_DOCS = Path(__file__).resolve().parents[2] / "docs"


class Shell(Protocol):
    """Where lines are typed: a whole host, or ``Here``."""

    def run(self, line: str, ok: Sequence[int] = (0,)) -> Completed:
        """Type a line; it fails the test where its exit status is not one of ``ok``."""


@dataclass(frozen=True)
class Here:
    """A shell on this machine, with more variables in its environment."""

    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, line: str, ok: Sequence[int] = (0,)) -> Completed:
        """Type a line."""
        there = [f"{name}={value}" for name, value in self.variables.items()]
        return run("env", *there, "bash", "-o", "pipefail", "-c", line, ok=ok)


class Page:
    """One page whose lines of code are typed one after the other; none may be forgotten.

    As a context manager it fails at its end where a line was neither typed nor named as one that
    is not for typing.
    """

    def __init__(self, shell: Shell, page: str) -> None:
        self._shell = shell
        self._left = commands((_DOCS / page).read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert kind or not self._left, f"nobody has typed {self._left}"

    def type(self, begin: str, ok: Sequence[int] = (0,)) -> Completed:
        """Type the page's next command that begins so, with all of its lines."""
        return self._shell.run(self.take(begin), ok)

    def take(self, begin: str) -> str:
        """Return the page's next line, or text for a file, that begins so."""
        found = next((line for line in self._left if line.startswith(begin)), None)
        assert found, f"the page has no {begin!r} (any more); it has {self._left}"
        self._left.remove(found)
        return found

    def skip(self, *begins: str) -> None:
        """Name lines that are not typed: what a command answers, or what cannot be had here."""
        for begin in begins:
            self.take(begin)
