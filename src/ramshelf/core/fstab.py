"""/etc/fstab: what should be mounted, and which of it is ramshelf's.

The store's entry carries ``x-ramshelf.kind=KIND``: mount(8) ignores options that start with ``x-``, so the
expectation of what must lie at the memory backing directory lives where the operator looks for it.
"""

from dataclasses import dataclass

from ramshelf.core.mounts import unescape

KIND_OPTION = "x-ramshelf.kind"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of fstab(5)."""

    spec: str
    mount_point: str
    fstype: str
    options: tuple[str, ...]

    def option(self, name: str) -> str | None:
        """The value of ``name=value``, '' for a bare ``name``, None where it is not set."""
        for option in self.options:
            key, _, value = option.partition("=")
            if key == name:
                return value
        return None


def parse_fstab(text: str) -> tuple[Entry, ...]:
    """The entries of an fstab; comments and lines with too few fields are passed over."""
    entries = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        options = fields[3] if len(fields) > 3 else "defaults"
        entries.append(
            Entry(
                spec=unescape(fields[0]),
                mount_point=unescape(fields[1]),
                fstype=fields[2],
                options=tuple(options.split(",")),
            )
        )
    return tuple(entries)
