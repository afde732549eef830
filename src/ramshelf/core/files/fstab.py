"""/etc/fstab: what should be mounted, and which of it is ramshelf's.

The store's entry carries ``x-ramshelf.kind=KIND``. mount(8) ignores options that start with ``x-``,
so the expectation of what must lie at the memory backing directory lives where the operator looks
for it. Entries with an option that starts with ``x-ramshelf.`` are ramshelf's own; all other lines
stay byte for byte.
"""

from __future__ import annotations

from ramshelf.core.files.mounts import normal, unescape
from ramshelf.core.record import dataclass

OWN_PREFIX = "x-ramshelf."
KIND_OPTION = f"{OWN_PREFIX}kind"
AREA_OPTION = f"{OWN_PREFIX}area"
"""The size of the device's or file's part that holds the store, on the entry that names it."""
FILE_OPTION = f"{OWN_PREFIX}file"
"""The file on a loop device that holds the store's file system."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of fstab(5)."""

    spec: str
    mount_point: str
    fstype: str
    options: tuple[str, ...]

    def option(self, name: str) -> str | None:
        """Return the value of ``name=value``, '' for a bare ``name``, None where it is not set."""
        for option in self.options:
            key, _, value = option.partition("=")
            if key == name:
                return value
        return None

    @property
    def bind(self) -> bool:
        """Whether the entry shows a directory, ``spec``, in another place.

        The type of such an entry is none, whatever is written.
        """
        return "bind" in self.options or "rbind" in self.options

    @property
    def own(self) -> bool:
        """Whether ramshelf made the entry."""
        return any(option.startswith(OWN_PREFIX) for option in self.options)

    def line(self) -> str:
        """Return the entry as fstab has it; its fields must hold no white space."""
        return f"{self.spec} {self.mount_point} {self.fstype} {','.join(self.options)} 0 0\n"


def parse_fstab(text: str) -> tuple[Entry, ...]:
    """Return the entries of an fstab; comments and lines with too few fields are passed over."""
    return tuple(entry for line in text.splitlines() if (entry := _entry(line)))


def add_entries(text: str, entries: tuple[Entry, ...]) -> str:
    """Return the fstab with these entries at its end."""
    separator = "" if not text or text.endswith("\n") else "\n"
    return text + separator + "".join(entry.line() for entry in entries)


def remove_own(text: str) -> str:
    """Return the fstab without ramshelf's entries."""
    return "".join(
        line
        for line in text.splitlines(keepends=True)
        if (entry := _entry(line)) is None or not entry.own
    )


@dataclass(frozen=True, kw_only=True)
class OwnEntries:
    """An edit of fstab after which these are ramshelf's entries, and no others."""

    entries: tuple[Entry, ...] = ()

    def __call__(self, text: str) -> str:
        """Return the fstab with these entries; all other lines stay byte for byte."""
        return add_entries(remove_own(text), self.entries)


def _entry(line: str) -> Entry | None:
    fields = line.split()
    if len(fields) < 3 or fields[0].startswith("#"):
        return None
    options = fields[3] if len(fields) > 3 else "defaults"
    return Entry(
        spec=unescape(fields[0]),
        mount_point=normal(unescape(fields[1])),
        fstype=fields[2],
        options=tuple(options.split(",")),
    )
