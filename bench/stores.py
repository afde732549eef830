"""Stores to measure on, made by ramshelf as a user would make them.

Each is on a device with counters of its own.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.kernel import sysctls_of_the_store
from bench.measure import written_mib
from ramshelf.core.units import MIB
from support.cli import ramshelf
from support.devices import loop_device
from support.process import run

MEMORY = Path("/var/lib/libvirt/qemu/ram")
KINDS = {
    "ext4": ("--kind", "disk", "--fs", "ext4"),
    "xfs": ("--kind", "disk", "--fs", "xfs"),
    "tmpfs": ("--kind", "ram"),
    "swap": ("--kind", "swap"),
}
"""A store's name in the tables, and what ``ramshelf store create`` is told.

Here tmpfs is one without swap.
"""

SPARE_MIB = 320
"""The MiB that file systems take for themselves: xfs makes none below 300 MiB."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store that is in place; ``device`` is "" for tmpfs alone."""

    name: str
    device: str

    def written_mib(self) -> float:
        """Return the MiB that its device has written so far.

        For tmpfs over swap that is the swap's device.
        """
        return written_mib(self.device) if self.device else 0.0

    def allocated_mib(self) -> float:
        """Return the MiB that the memory files on it have been given."""
        return (
            sum(file.stat().st_blocks * 512 for file in Path(MEMORY).glob("*/*") if file.is_file())
            / MIB
        )


@contextmanager
def store(name: str, size_mib: int) -> Iterator[Store]:
    """Make a store with room for ``size_mib`` of guest memory, and remove it at the end.

    Meanwhile the kernel is set up as ramshelf sets it up for the store.
    """
    if name == "tmpfs":
        ramshelf("store", "create", *KINDS[name], "--size", f"{size_mib}MiB")
        with _removed():
            yield Store(name=name, device="")
        return
    with loop_device(size_mib + size_mib // 50 + SPARE_MIB) as device:
        ramshelf("store", "create", *KINDS[name], "--device", device)
        with _removed(), sysctls_of_the_store():
            yield Store(name=name, device=device)


@contextmanager
def btrfs(size_mib: int) -> Iterator[Store]:
    """Make a store that ramshelf refuses to make, to show why.

    It copies on write: with no more room than the guest is large, QEMU is killed by SIGBUS.
    """
    owner = MEMORY.parent.stat()
    with loop_device(4 * size_mib) as device:
        run("mkfs.btrfs", "-q", device)
        run("mount", device, str(MEMORY))
        os.chown(MEMORY, owner.st_uid, owner.st_gid)
        try:
            yield Store(name="btrfs", device=device)
        finally:
            run("umount", str(MEMORY))


@contextmanager
def _removed() -> Iterator[None]:
    try:
        yield
    finally:
        ramshelf("store", "remove")
