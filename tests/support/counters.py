"""What has been written to a device, by the kernel's own count."""

import os
from pathlib import Path

from support.devices import own_swaps
from support.process import run
from support.stores import MEMORY

_SECTOR = 512
"""The unit in bytes of /sys/dev/block/*/stat, whatever the device's own sectors are."""


def device_of(file_system: str, at: Path = MEMORY) -> int | None:
    """Return the number of the device below a store; None for kind ram.

    It is the device of the store's file system or of its swap.
    """
    if file_system == "tmpfs":
        return None
    return os.stat(own_swaps()[0]).st_rdev if file_system == "swap" else os.stat(at).st_dev


def written(device: int | None) -> int:
    """Return the bytes written to the device since it was made; 0 if there is no device."""
    if device is None:
        return 0
    text = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text()
    return int(text.split()[6]) * _SECTOR


def sync() -> None:
    """Have what the store still has to write written, and leave other file systems alone."""
    run("sync", "--file-system", str(MEMORY))
    # The swap areas hold what mkswap has written.
    run("sync", *own_swaps(), str(MEMORY))
