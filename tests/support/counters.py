"""What reached a device, by the kernel's own count."""

import os
from pathlib import Path

from support.devices import own_swaps
from support.process import run
from support.stores import MEMORY

_SECTOR = 512
"""What /sys/dev/block/*/stat counts in, whatever the device's own sectors are."""


def device_of(file_system: str, at: Path = MEMORY) -> int | None:
    """The number of the device below a store: its file system's or its swap's; None for kind ram."""
    if file_system == "tmpfs":
        return None
    return os.stat(own_swaps()[0]).st_rdev if file_system == "swap" else os.stat(at).st_dev


def written(device: int | None) -> int:
    """Bytes written to the device since it was made; 0 where there is none."""
    if device is None:
        return 0
    text = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text()
    return int(text.split()[6]) * _SECTOR


def sync() -> None:
    """What the store still has to write is written; others' file systems are left alone."""
    run("sync", "--file-system", str(MEMORY))
    run("sync", *own_swaps(), str(MEMORY))  # mkswap's
