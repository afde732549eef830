"""Who holds what on the store: its files, by the guest whose directory they lie in."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from ramshelf.core.capacity import FileUsage, promised
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


def holdings(files: Iterable[FileUsage], guests: Mapping[str, str]) -> tuple[Holding, ...]:
    """The directories that these files lie in, most promised first; ``guests``: name by directory name."""
    by_directory: dict[str, list[FileUsage]] = {}
    for file in files:
        by_directory.setdefault(str(PurePosixPath(file.path).parent), []).append(file)
    found = (
        Holding(
            directory=directory,
            guest=guests.get(PurePosixPath(directory).name),
            files=tuple(file for file in inside if not file.is_promise),
            promised=promised(inside),
        )
        for directory, inside in by_directory.items()
    )
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
