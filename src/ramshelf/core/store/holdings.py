"""Who holds what on the store: what guests were promised, their files, directories that are nobody's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ramshelf.core.store.capacity import StoreUsage
from ramshelf.core.store.directory import FileUsage
from ramshelf.core.units import MIB, align_up, to_mib


@dataclass(frozen=True, kw_only=True)
class Holding:
    """One directory on the store; ``guest`` is None where it belongs to no running guest. Bytes."""

    directory: str
    guest: str | None
    files: tuple[FileUsage, ...]
    promised: int

    @property
    def size(self) -> int:
        """The apparent size of the memory files."""
        return sum(file.apparent for file in self.files)

    @property
    def allocated(self) -> int:
        """What the memory files occupy."""
        return sum(file.allocated for file in self.files)


def holdings(usage: StoreUsage, guests: Mapping[str, str]) -> tuple[Holding, ...]:
    """What notes and directories there are, most promised first; ``guests``: name by directory name.

    A guest holds what its note says. A directory without a note was promised nothing.
    """
    directories = {directory.path: directory for directory in usage.directories}
    running = frozenset(guests.values())
    found = []
    for note in usage.notes:
        directory = directories.pop(note.directory, None)
        found.append(
            Holding(
                directory=note.directory,
                guest=note.name if note.name in running else None,
                files=directory.memory if directory is not None else (),
                promised=note.promised,
            )
        )
    found += [
        Holding(directory=each.path, guest=guests.get(each.name), files=each.memory, promised=0)
        for each in directories.values()
    ]
    return tuple(sorted(found, key=lambda holding: (-holding.promised, holding.directory)))


def who_holds(found: Iterable[Holding], *, most: int = 5) -> str:
    """A sentence that names the largest holders; '' where nothing is held."""
    parts = [
        f"{holding.guest or holding.directory} {to_mib(align_up(holding.promised, MIB))} MiB"
        for holding in found
        if holding.promised
    ]
    if not parts:
        return ""
    more = f" and {len(parts) - most} more" if len(parts) > most else ""
    return f"Held by {', '.join(parts[:most])}{more}."
