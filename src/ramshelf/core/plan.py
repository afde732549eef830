"""What is done to a host, as data: made by pure planners, shown by ``--dry-run``, carried out by node.

Each action describes itself as the exact command or file change, and can be carried out again after it was
interrupted anywhere.
"""

import difflib
import shlex
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Run:
    """Run a program; ``timeout`` in seconds.

    ``patience``: for so many seconds it is run again when it fails; for devices that the kernel, udev or
    another program holds for a moment longer.
    """

    why: str
    argv: tuple[str, ...]
    timeout: float = 120
    patience: float = 0

    def lines(self) -> tuple[str, ...]:
        """The command."""
        return (shlex.join(self.argv),)


@dataclass(frozen=True, kw_only=True)
class WriteFile:
    """Write a whole file, old or new and never half; ``before`` is its text now, None where there is none.

    A file that is there keeps its mode and owner; a new one gets mode 0644.
    """

    why: str
    path: str
    text: str
    before: str | None = None

    def lines(self) -> tuple[str, ...]:
        """The change as a unified diff."""
        return tuple(
            line.rstrip("\n")
            for line in difflib.unified_diff(
                (self.before or "").splitlines(keepends=True),
                self.text.splitlines(keepends=True),
                fromfile=self.path if self.before is not None else "/dev/null",
                tofile=self.path,
                n=1,
            )
        )


@dataclass(frozen=True, kw_only=True)
class SetValue:
    """Write a value into a file of /proc/sys."""

    why: str
    path: str
    value: str

    def lines(self) -> tuple[str, ...]:
        """The command that would do the same."""
        return (f"echo {self.value} >{self.path}",)


@dataclass(frozen=True, kw_only=True)
class RemoveFile:
    """Remove a file that may be gone already."""

    why: str
    path: str

    def lines(self) -> tuple[str, ...]:
        """The command that would do the same."""
        return (f"rm --force {shlex.quote(self.path)}",)


@dataclass(frozen=True, kw_only=True)
class MakeDirectory:
    """Make a directory, or give one that is there this owner and mode; its parent is there."""

    why: str
    path: str
    uid: int
    gid: int
    mode: int

    def lines(self) -> tuple[str, ...]:
        """The command that would do the same."""
        owner = f"--owner {self.uid} --group {self.gid} --mode {self.mode:04o}"
        return (f"install --directory {owner} {shlex.quote(self.path)}",)


@dataclass(frozen=True, kw_only=True)
class RemoveDirectory:
    """Remove a directory where it is empty; one that holds anything stays."""

    why: str
    path: str

    def lines(self) -> tuple[str, ...]:
        """The command that would do the same."""
        return (f"rmdir --ignore-fail-on-non-empty {shlex.quote(self.path)}",)


@dataclass(frozen=True, kw_only=True)
class Allocate:
    """Make a file of ``size`` bytes with every block allocated, mode 0600; goes on where it was interrupted.

    ``no_copy_on_write``: on btrfs, where swap needs it.
    """

    why: str
    path: str
    size: int
    no_copy_on_write: bool = False

    def lines(self) -> tuple[str, ...]:
        """The commands that would do the same."""
        path = shlex.quote(self.path)
        attribute = (f"chattr +C {path}",) if self.no_copy_on_write else ()
        return (
            f"install --mode 0600 /dev/null {path}",
            *attribute,
            f"fallocate --length {self.size} {path}",
        )


Action = Run | WriteFile | SetValue | RemoveFile | MakeDirectory | RemoveDirectory | Allocate


def describe(actions: tuple[Action, ...]) -> list[dict[str, object]]:
    """The plan for ``--json``: why, and the exact change."""
    return [{"why": action.why, "change": list(action.lines())} for action in actions]
