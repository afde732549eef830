"""A guest's directory on the store, as it was found: QEMU's user may write, rename and plant there."""

from __future__ import annotations

import posixpath

from ramshelf.core.record import dataclass

PROMISE_FILE = ".ramshelf-promise"
"""In a guest's directory: its apparent size is what the guest is promised. Versions before 0.2 go by
it, so that a downgrade keeps what is promised; this one goes by its own notes
(core/store/ledger.py)."""


SHORT_NAME_MAX = 20
"""Characters of a guest's name in its directory's name (VIR_DOMAIN_SHORT_NAME_MAX)."""


def directory_name(domain_id: int, name: str) -> str:
    """The guest's directory below the memory backing directory (virDomainDefGetShortName)."""
    return f"{domain_id}-{name[:SHORT_NAME_MAX]}"


def directory_names(domain_id: int, name: str) -> tuple[str, ...]:
    """The names that the directory may have: a libvirtd in the C locale cuts the name by bytes."""
    by_bytes = name.encode(errors="surrogateescape")[:SHORT_NAME_MAX].decode(
        errors="surrogateescape"
    )
    return tuple(dict.fromkeys((directory_name(domain_id, name), f"{domain_id}-{by_bytes}")))


def guest_directory(memory_dir: str, domain_id: int, name: str) -> str:
    """The absolute path of a running guest's directory."""
    return posixpath.join(memory_dir, directory_name(domain_id, name))


@dataclass(frozen=True, kw_only=True)
class FileUsage:
    """A regular file in a guest's directory; bytes."""

    path: str
    apparent: int
    allocated: int
    inode: int = 0

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @property
    def is_promise(self) -> bool:
        """Whether it is no memory, but tells older versions what its directory is promised."""
        return self.name == PROMISE_FILE


@dataclass(frozen=True, kw_only=True)
class GuestDirectory:
    """The directory that libvirt made for a guest's memory files.

    ``device``: major and minor number of its file system; ``changed`` is its ctime in ns. ``files``
    are its regular files; ``others`` the names of whatever else is in it. ``cut``: it holds more
    than was looked at.
    """

    path: str
    device: tuple[int, int]
    uid: int
    gid: int
    inode: int = 0
    changed: int = 0
    files: tuple[FileUsage, ...] = ()
    others: tuple[str, ...] = ()
    cut: bool = False

    @property
    def name(self) -> str:
        """The last part of its path: ID-NAME."""
        return self.path.rpartition("/")[2]

    @property
    def entries(self) -> int:
        """How much lies in it, as far as was looked at."""
        return len(self.files) + len(self.others)

    @property
    def memory(self) -> tuple[FileUsage, ...]:
        """The files that are memory."""
        return tuple(file for file in self.files if not file.is_promise)

    @property
    def size(self) -> int:
        """The sizes of its memory files, together."""
        return sum(file.apparent for file in self.memory)

    @property
    def allocated(self) -> int:
        """What its files occupy."""
        return sum(file.allocated for file in self.files)
