"""What is done to a host, as data.

Pure planners make it, ``--dry-run`` shows it, and ``node/apply.py`` carries it out. Each action
describes itself as the exact command or file change, and can be carried out again after it was
interrupted anywhere.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Protocol

from ramshelf.core.record import dataclass


@dataclass(frozen=True, kw_only=True)
class Run:
    """Run a program; ``timeout`` is in seconds.

    For ``patience`` seconds it is run again when it fails. That is for devices that the kernel,
    udev or another program holds for a moment longer.
    """

    why: str
    argv: tuple[str, ...]
    timeout: float = 120
    patience: float = 0

    def lines(self) -> tuple[str, ...]:
        """Return the command."""
        return (shlex.join(self.argv),)


@dataclass(frozen=True, kw_only=True)
class HangUp:
    """Send SIGHUP to the process ``pid`` that ``started`` in this tick since boot.

    One that is gone, or would end of it, gets none.
    """

    why: str
    pid: int
    started: int

    def lines(self) -> tuple[str, ...]:
        """Return the command that would do the same."""
        return (f"kill -HUP {self.pid}",)


@dataclass(frozen=True, kw_only=True)
class WriteFile:
    """Write a whole file of ramshelf's own: the old or the new text is there, never half of it.

    ``before`` is its text as the plan was made, None where there was none; a file that has another
    text by then is somebody else's, and stays. A file that is there keeps its owner, and its mode
    unless ``mode`` is given; a new one gets 0644. ``beside`` is the directory for the temporary
    file, '' for the file's own.
    """

    why: str
    path: str
    text: str
    before: str | None = None
    mode: int | None = None
    beside: str = ""

    def lines(self) -> tuple[str, ...]:
        """Return the change as a unified diff, and the command that sets the mode."""
        mode = () if self.mode is None else (f"chmod {self.mode:04o} {shlex.quote(self.path)}",)
        return (*_difference(self.path, self.before, self.text), *mode)


class Edit(Protocol):
    """A change to a text that others edit too; applied to its own outcome it changes nothing."""

    def __call__(self, text: str) -> str:
        """Return the text with the change in it; all that is not ramshelf's stays byte for byte."""


@dataclass(frozen=True, kw_only=True)
class EditFile:
    """Edit a file that others edit too, in the text that it has when the plan is applied.

    ``before`` is its text as the plan was made, None where there was none. ``original`` is its text
    before ramshelf touched it first, where that is known: it comes back where nothing is left of
    the difference but the end of the last line. With ``or_gone`` a file that would be empty is
    removed.
    """

    why: str
    path: str
    edit: Edit
    before: str | None = None
    original: str | None = None
    or_gone: bool = False

    def changed(self, text: str | None) -> str | None:
        """Return what becomes of this text; None stands for no file."""
        new = self.edit(text or "")
        if not new and (self.or_gone or text is None):
            return None
        if self.original is not None and new.rstrip("\n") == self.original.rstrip("\n"):
            return self.original
        return new

    @property
    def text(self) -> str:
        """What becomes of the text that was there as the plan was made."""
        return self.changed(self.before) or ""

    def lines(self) -> tuple[str, ...]:
        """Return the change as a unified diff."""
        return _difference(self.path, self.before, self.changed(self.before))


def _difference(path: str, before: str | None, after: str | None) -> tuple[str, ...]:
    """Return a unified diff; None stands for no file."""
    import difflib  # noqa: PLC0415 - not for those who only look

    return tuple(
        line.rstrip("\n")
        for line in difflib.unified_diff(
            (before or "").splitlines(keepends=True),
            (after or "").splitlines(keepends=True),
            fromfile=path if before is not None else "/dev/null",
            tofile=path if after is not None else "/dev/null",
            n=1,
        )
    )


@dataclass(frozen=True, kw_only=True)
class CopyFiles:
    """Put ``files`` (text by path) into a directory of ramshelf's own, and nothing else into it.

    ``source`` is the directory that they come from, for who reads the plan.
    """

    why: str
    source: str
    path: str
    files: Mapping[str, str]

    def lines(self) -> tuple[str, ...]:
        """Return the commands that would do the same."""
        return tuple(
            shlex.join(
                ("install", "-D", "--mode", "0644", f"{self.source}/{name}", f"{self.path}/{name}")
            )
            for name in sorted(self.files)
        )


@dataclass(frozen=True, kw_only=True)
class SetValue:
    """Write a value into a file of /proc/sys; ``before`` is what it was as the plan was made."""

    why: str
    path: str
    value: str
    before: str

    def lines(self) -> tuple[str, ...]:
        """Return the command that would do the same."""
        return (f"echo {self.value} >{self.path}",)


@dataclass(frozen=True, kw_only=True)
class RemoveFile:
    """Remove a file that may be gone already.

    ``before`` is its text as the plan was made, where that matters: a file that has another text by
    then stays. So does one that is not the same as ``copy_of``, another file, but for the end of
    the last line.
    """

    why: str
    path: str
    before: str | None = None
    copy_of: str = ""

    def lines(self) -> tuple[str, ...]:
        """Return the command that would do the same."""
        return (f"rm --force {shlex.quote(self.path)}",)


@dataclass(frozen=True, kw_only=True)
class RemoveTree:
    """Remove a directory of ramshelf's own with all that is in it; it may be gone already."""

    why: str
    path: str

    def lines(self) -> tuple[str, ...]:
        """Return the command that would do the same."""
        return (f"rm --recursive --force {shlex.quote(self.path)}",)


@dataclass(frozen=True, kw_only=True)
class MakeDirectory:
    """Make a directory, or give one that is there this owner and mode; its parent is there."""

    why: str
    path: str
    uid: int
    gid: int
    mode: int

    def lines(self) -> tuple[str, ...]:
        """Return the command that would do the same."""
        owner = f"--owner {self.uid} --group {self.gid} --mode {self.mode:04o}"
        return (f"install --directory {owner} {shlex.quote(self.path)}",)


@dataclass(frozen=True, kw_only=True)
class RemoveDirectory:
    """Remove a directory where it is empty; one that holds anything stays."""

    why: str
    path: str

    def lines(self) -> tuple[str, ...]:
        """Return the command that would do the same."""
        return (f"rmdir --ignore-fail-on-non-empty {shlex.quote(self.path)}",)


@dataclass(frozen=True, kw_only=True)
class AllocateFile:
    """Make a file of ``size`` bytes with every block allocated, mode 0600.

    Carried out again it goes on where it was interrupted. ``no_copy_on_write`` is for btrfs, where
    swap needs it.
    """

    why: str
    path: str
    size: int
    no_copy_on_write: bool = False

    def lines(self) -> tuple[str, ...]:
        """Return the commands that would do the same."""
        path = shlex.quote(self.path)
        attribute = (f"chattr +C {path}",) if self.no_copy_on_write else ()
        return (
            f"install --mode 0600 /dev/null {path}",
            *attribute,
            f"fallocate --length {self.size} {path}",
        )


Action = (
    Run
    | HangUp
    | WriteFile
    | EditFile
    | CopyFiles
    | SetValue
    | RemoveFile
    | RemoveTree
    | MakeDirectory
    | RemoveDirectory
    | AllocateFile
)


class Step(Protocol):
    """What ``--dry-run`` shows: an action, or what libvirt is asked to do."""

    @property
    def why(self) -> str:
        """Return what it is for."""

    def lines(self) -> tuple[str, ...]:
        """Return the command or change."""


def describe(actions: Sequence[Step]) -> list[dict[str, object]]:
    """Return the plan for ``--json``: why, and the exact change."""
    return [{"why": action.why, "change": list(action.lines())} for action in actions]
