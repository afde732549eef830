"""A host with less RAM: a memory cgroup (version 1 or 2) around a daemon and all that it starts."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.process import wait_until

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


@contextmanager
def memory_limit(pid: int, mib: int) -> Iterator[Path]:
    """Limit ``pid`` and what it starts from now on to ``mib`` of RAM; swap is not limited.

    Yield the group's directory. Skip the test if the machine does not allow making such a group.
    """
    root, limit = (_V1, "memory.limit_in_bytes") if _V1.is_dir() else (_V2, "memory.max")
    home = Path(f"{root}{_group_of(pid, 'memory' if root == _V1 else '')}")
    for abandoned in root.glob("ramshelf-test-*"):
        with suppress(OSError):  # It may be in use.
            abandoned.rmdir()
    try:
        group = Path(tempfile.mkdtemp(prefix="ramshelf-test-", dir=root))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made: {error.strerror}")
    try:
        if not (group / limit).exists():
            pytest.skip("the memory controller is not there for new cgroups")
        (group / limit).write_text(str(mib << 20))
        (group / "cgroup.procs").write_text(str(pid))
        yield group
    finally:
        wait_until(lambda: _dissolved(group, home), f"{group} has no members any more")


def _dissolved(group: Path, home: Path) -> bool:
    """Send the group's members home, and tell whether the group could be removed.

    Members may start other processes meanwhile, or end.
    """
    for member in (group / "cgroup.procs").read_text().split():
        with suppress(ProcessLookupError):
            (home / "cgroup.procs").write_text(member)
    with suppress(OSError):
        group.rmdir()
    return not group.exists()


def usage_mib(group: Path) -> float:
    """Return the RAM in MiB that the group's members use now, page cache included."""
    figure = group / ("memory.usage_in_bytes" if group.parent == _V1 else "memory.current")
    return int(figure.read_text()) / (1 << 20)


def _group_of(pid: int, controller: str) -> str:
    """Return the group that a process is in, by /proc/PID/cgroup (cgroups(7))."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"
