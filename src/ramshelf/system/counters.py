"""What was read from and written to the store's device, by the kernel's own count.

This module needs the standard library only.
"""

from __future__ import annotations

import os

from ramshelf.system.filesystem import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ramshelf.core.store.find import Store

_SECTOR = 512
"""Bytes that a block device's stat counts in, whatever the device's own sectors are.

See Documentation/block/stat.rst.
"""


def sectors_written(text: str) -> int:
    """Return the sectors written since the device was made, by the device's stat."""
    return int(text.split()[6])


def sectors_read(text: str) -> int:
    """Return the sectors read since the device was made, by the device's stat."""
    return int(text.split()[2])


def pages_swapped_out(text: str) -> int:
    """Return the pages written to swap since boot, of all areas together, by /proc/vmstat."""
    return _vmstat(text, "pswpout")


def pages_swapped_in(text: str) -> int:
    """Return the pages read from swap since boot, of all areas together, by /proc/vmstat."""
    return _vmstat(text, "pswpin")


def _vmstat(text: str, name: str) -> int:
    return next(
        (int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0
    )


def bytes_written(store: Store) -> int:
    """Return the bytes written to the store's device since it is there.

    All that was written counts, not only what is guests'. For a tmpfs it is what was written to
    swap; where that is a file, other files on its device do not count.
    """
    if store.kind.tmpfs:
        return pages_swapped_out(read_text("/proc/vmstat")) * os.sysconf("SC_PAGE_SIZE")
    return sectors_written(_stat(store)) * _SECTOR


def bytes_read(store: Store) -> int:
    """Return the bytes read from the store's device, counted as ``bytes_written`` does."""
    if store.kind.tmpfs:
        return pages_swapped_in(read_text("/proc/vmstat")) * os.sysconf("SC_PAGE_SIZE")
    return sectors_read(_stat(store)) * _SECTOR


def _stat(store: Store) -> str:
    major, minor = store.mount.device
    return read_text(f"/sys/dev/block/{major}:{minor}/stat")
