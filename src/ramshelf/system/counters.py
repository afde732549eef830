"""What was read from and written to the store's device, by the kernel's own count. Standard library
only.
"""

from __future__ import annotations

import os

from ramshelf.system.filesystem import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ramshelf.core.store.find import Store

_SECTOR = 512
"""What a block device's stat counts in, whatever its own sectors are (Documentation/block/stat.rst).
"""


def sectors_written(text: str) -> int:
    """Sectors written since the device was made, of its stat."""
    return int(text.split()[6])


def sectors_read(text: str) -> int:
    """Sectors read since the device was made, of its stat."""
    return int(text.split()[2])


def pages_swapped_out(text: str) -> int:
    """Pages written to swap since boot, all areas together, of /proc/vmstat."""
    return _vmstat(text, "pswpout")


def pages_swapped_in(text: str) -> int:
    """Pages read from swap since boot, all areas together, of /proc/vmstat."""
    return _vmstat(text, "pswpin")


def _vmstat(text: str, name: str) -> int:
    return next(
        (int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0
    )


def bytes_written(store: Store) -> int:
    """Bytes written to the store's device since it is there: all that was, not only what is guests'.

    For a tmpfs what was written to swap; where that is a file, other files on its device do not
    count.
    """
    if store.kind.tmpfs:
        return pages_swapped_out(read_text("/proc/vmstat")) * os.sysconf("SC_PAGE_SIZE")
    return sectors_written(_stat(store)) * _SECTOR


def bytes_read(store: Store) -> int:
    """Bytes read from the store's device, as ``bytes_written``."""
    if store.kind.tmpfs:
        return pages_swapped_in(read_text("/proc/vmstat")) * os.sysconf("SC_PAGE_SIZE")
    return sectors_read(_stat(store)) * _SECTOR


def _stat(store: Store) -> str:
    major, minor = store.mount.device
    return read_text(f"/sys/dev/block/{major}:{minor}/stat")
