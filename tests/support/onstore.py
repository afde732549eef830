"""What a guest has on the store, whoever started it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ramshelf.core.units import MIB
from ramshelf.system.hooklogfollower import recorded
from support.cli import ramshelf
from support.domains import qemu_pid
from support.process import wait_until
from support.stores import MEMORY

_ATTEMPTS = 5


def memory_files() -> list[Path]:
    """All memory files on the store."""
    return [file for file in MEMORY.glob("*/*") if file.parent.name != "lost+found"]


def assert_reserved(domain: str, memory_mib: int) -> None:
    """The running guest of this name has one memory file of its full size, whose extents no one can
    take.

    Its latest start was reserved by the hook, before QEMU ran, and found as it was to be, for which
    libvirt does not wait.
    """
    [file] = MEMORY.glob(f"*-{domain[:20]}/*")
    assert file.stat().st_size == memory_mib * MIB
    if not _is_tmpfs():  # there it is the size that counts
        assert file.stat().st_blocks * 512 >= memory_mib * MIB
    wait_until(
        lambda: [entry["event"] for entry in _lives(domain)[:2]] == ["started", "reserved"],
        f"{domain} is found as it was to be",
    )
    reserved = _lives(domain)[1]
    assert reserved["directory"] == str(file.parent)
    assert reserved["promised_mib"] == memory_mib


def allocates_at_start(domain: str) -> bool:
    """Whether the running guest's QEMU was told to allocate all of its memory at once."""
    return '"prealloc":true' in Path(f"/proc/{qemu_pid(domain)}/cmdline").read_text()


def capacity() -> dict[str, Any]:
    """What ``ramshelf capacity`` says."""
    figures: dict[str, Any] = json.loads(ramshelf("capacity", "--json").stdout)
    return figures


def wait_recorded(domain: str, event: str) -> dict[str, Any]:
    """The hook's latest word of this kind about the guest, once there is one."""
    found: list[dict[str, Any]] = []

    def seen() -> bool:
        found[:] = [entry for entry in recorded(domain) if entry["event"] == event]
        return bool(found)

    wait_until(seen, f"{event} is on record for {domain}")
    return found[0]


def _lives(domain: str) -> list[dict[str, Any]]:
    """The hook's words about the guest's starts and ends, the latest first."""
    return [
        entry for entry in recorded(domain) if entry["event"] in {"reserved", "started", "ended"}
    ]


def _is_tmpfs() -> bool:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return any(line.split()[1:3] == [str(MEMORY), "tmpfs"] for line in lines)


def assert_unwritten(cost: Callable[[], int]) -> None:
    """Less than 1 MiB is written: ``cost`` measures bytes, up to five times.

    Others and the kernel may have the store written back meanwhile; what flushes does so every
    time.
    """
    costs: list[int] = []
    while len(costs) < _ATTEMPTS and min(costs, default=MIB) >= MIB:
        costs.append(cost())
    assert min(costs) < MIB, costs
