"""What a guest has on the store, whoever started it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ramshelf.core.units import MIB
from ramshelf.system.hooklogfollower import recorded
from ramshelf.system.ledger import read_note
from support.cli import ramshelf
from support.domains import qemu_pid
from support.process import wait_until
from support.stores import MEMORY

_ATTEMPTS = 5


def memory_files() -> list[Path]:
    """Return all memory files on the store."""
    return [file for file in MEMORY.glob("*/*") if file.parent.name != "lost+found"]


def assert_reserved(domain: str, memory_mib: int) -> None:
    """Assert that the running guest has one memory file of its full size, with all of its extents.

    On a tmpfs only the size counts. The hook has reserved the guest's latest start before QEMU ran,
    and has then found it as it was to be, for which libvirt does not wait.
    """
    [file] = MEMORY.glob(f"*-{domain[:20]}/*")
    assert file.stat().st_size == memory_mib * MIB
    if not _is_tmpfs():  # On a tmpfs it is the size that counts.
        assert file.stat().st_blocks * 512 >= memory_mib * MIB
    wait_until(
        lambda: [entry["event"] for entry in _lives(domain)[:2]] == ["started", "reserved"],
        f"{domain} is found as it was to be",
    )
    reserved = _lives(domain)[1]
    assert reserved["directory"] == str(file.parent)
    assert reserved["promised_mib"] == memory_mib


def allocates_at_start(domain: str) -> bool:
    """Tell whether the running guest's QEMU was told to allocate all of its memory at once."""
    return '"prealloc":true' in Path(f"/proc/{qemu_pid(domain)}/cmdline").read_text()


def capacity() -> dict[str, Any]:
    """Return what ``ramshelf capacity`` says."""
    figures: dict[str, Any] = json.loads(ramshelf("capacity", "--json").stdout)
    return figures


def wait_recorded(domain: str, event: str) -> dict[str, Any]:
    """Wait for an entry of the hook's log with this event of the guest, and return the latest."""
    found: list[dict[str, Any]] = []

    def seen() -> bool:
        found[:] = [entry for entry in recorded(domain) if entry["event"] == event]
        return bool(found)

    wait_until(seen, f"{event} is on record for {domain}")
    return found[0]


def wait_noted(domain: str) -> int:
    """Wait until the hook has noted all that it notes of a guest; return its QEMU's pid."""
    pid = qemu_pid(domain)
    assert pid is not None
    wait_until(
        lambda: (note := read_note(domain)) is not None and note.pid == pid, f"{domain} is noted"
    )
    return pid


def _lives(domain: str) -> list[dict[str, Any]]:
    """Return the hook's entries about the guest's starts and ends, the latest first."""
    return [
        entry for entry in recorded(domain) if entry["event"] in {"reserved", "started", "ended"}
    ]


def _is_tmpfs() -> bool:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return any(line.split()[1:3] == [str(MEMORY), "tmpfs"] for line in lines)


def assert_unwritten(cost: Callable[[], int]) -> None:
    """Assert that less than 1 MiB is written: ``cost`` measures bytes, up to five times.

    Other processes and the kernel may have the store written back meanwhile; an ending that flushes
    does so every time.
    """
    costs: list[int] = []
    while len(costs) < _ATTEMPTS and min(costs, default=MIB) >= MIB:
        costs.append(cost())
    assert min(costs) < MIB, costs
