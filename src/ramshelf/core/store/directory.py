"""A guest's directory on the store, as it was found.

QEMU's user may write, rename and plant files there.
"""

from __future__ import annotations

import posixpath

from ramshelf.core.record import dataclass

PROMISE_FILE = ".ramshelf-promise"
"""A file in a guest's directory whose apparent size is what the guest is promised.

Versions before 0.2 go by it, so that a downgrade keeps what is promised; this version goes by its
own notes (core/store/ledger.py).
"""


SHORT_NAME_MAX = 20
"""The characters of a guest's name in its directory's name (VIR_DOMAIN_SHORT_NAME_MAX)."""


def directory_name(domain_id: int, name: str) -> str:
    """Return the name of the guest's directory (virDomainDefGetShortName)."""
    return f"{domain_id}-{name[:SHORT_NAME_MAX]}"


def directory_names(domain_id: int, name: str) -> tuple[str, ...]:
    """Return the names that the guest's directory may have.

    There is a second one because a libvirtd in the C locale cuts the guest's name by bytes.
    """
    by_bytes = name.encode(errors="surrogateescape")[:SHORT_NAME_MAX].decode(
        errors="surrogateescape"
    )
    return tuple(dict.fromkeys((directory_name(domain_id, name), f"{domain_id}-{by_bytes}")))


def guest_directory(memory_dir: str, domain_id: int, name: str) -> str:
    """Return the absolute path of a running guest's directory."""
    return posixpath.join(memory_dir, directory_name(domain_id, name))


@dataclass(frozen=True, kw_only=True)
class FileUsage:
    """A regular file in a guest's directory; sizes are in bytes."""

    path: str
    apparent: int
    allocated: int
    inode: int = 0

    @property
    def name(self) -> str:
        """The last part of the file's path."""
        return self.path.rpartition("/")[2]

    @property
    def is_promise(self) -> bool:
        """Whether the file is no memory, but tells older versions what the guest is promised."""
        return self.name == PROMISE_FILE


@dataclass(frozen=True, kw_only=True)
class GuestDirectory:
    """The directory that libvirt made for a guest's memory files.

    ``device`` is the major and minor number of its file system, ``changed`` its ctime in ns.
    ``files`` are its regular files, ``others`` the names of whatever else is in it. ``cut`` says
    that it holds more than was looked at.
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
        """The last part of the directory's path: ID-NAME."""
        return self.path.rpartition("/")[2]

    @property
    def entries(self) -> int:
        """The number of entries in the directory, as far as was looked at."""
        return len(self.files) + len(self.others)

    @property
    def memory(self) -> tuple[FileUsage, ...]:
        """The files that are memory."""
        return tuple(file for file in self.files if not file.is_promise)

    @property
    def size(self) -> int:
        """The sum of the apparent sizes of the memory files."""
        return sum(file.apparent for file in self.memory)

    @property
    def allocated(self) -> int:
        """The bytes that all files in the directory occupy."""
        return sum(file.allocated for file in self.files)
