"""What has been written to the store's device, by the kernel's own count. Standard library only."""

import mmap

from ramshelf.core.store import Store
from ramshelf.system.filesystem import read_text

_SECTOR = 512
"""What a block device's stat counts in, whatever its own sectors are (Documentation/block/stat.rst)."""


def sectors_written(text: str) -> int:
    """Sectors written since the device was made, of its stat."""
    return int(text.split()[6])


def pages_swapped_out(text: str) -> int:
    """Pages written to swap since boot, all areas together, of /proc/vmstat."""
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("pswpout ")), 0)


def bytes_written(store: Store) -> int:
    """Bytes written to the store's device since it is there: all that was, not only what is guests'.

    For a tmpfs what was written to swap; where that is a file, other files on its device do not count.
    """
    if store.kind.tmpfs:
        return pages_swapped_out(read_text("/proc/vmstat")) * mmap.PAGESIZE
    major, minor = store.mount.device
    return sectors_written(read_text(f"/sys/dev/block/{major}:{minor}/stat")) * _SECTOR
