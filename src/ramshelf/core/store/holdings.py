"""Who holds what on the store.

That is what guests were promised, their files, and the directories that belong to nobody.
"""

from collections.abc import Iterable, Mapping

from ramshelf.core.record import dataclass
from ramshelf.core.store.capacity import StoreUsage
from ramshelf.core.store.directory import FileUsage
from ramshelf.core.units import MIB, align_up, to_mib


@dataclass(frozen=True, kw_only=True)
class Holding:
    """One directory on the store, with sizes in bytes.

    ``guest`` is None where the directory belongs to no running guest.
    """

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
        """The bytes that the memory files occupy."""
        return sum(file.allocated for file in self.files)


def holdings(usage: StoreUsage, guests: Mapping[str, str]) -> tuple[Holding, ...]:
    """Return what the notes and directories hold, those with the largest promises first.

    ``guests`` has the guests' names by the names of their directories. A guest holds what its note
    says. A directory without a note was promised nothing.
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
    """Return a sentence that names the largest holders; '' where nothing is held."""
    parts = [
        f"{holding.guest or holding.directory} {to_mib(align_up(holding.promised, MIB))} MiB"
        for holding in found
        if holding.promised
    ]
    if not parts:
        return ""
    more = f" and {len(parts) - most} more" if len(parts) > most else ""
    return f"Held by {', '.join(parts[:most])}{more}."
