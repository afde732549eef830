"""The lock that allows at most one agent on this host."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ramshelf.core.errors import RefusedError
from ramshelf.system.filesystem import RUN_DIR, read_text
from ramshelf.system.locks import open_locked

_LOCK = f"{RUN_DIR}/agent.lock"


def agent_process() -> int | None:
    """Return the process that is this host's agent, None where there is none.

    It only looks: whoever tried the lock would keep an agent out that starts at that moment. An
    agent of another PID namespace is seen from the host alone.
    """
    try:
        status = os.stat(_LOCK)
    except FileNotFoundError:
        return None
    return lock_holder(
        read_text("/proc/locks", ""),
        os.major(status.st_dev),
        os.minor(status.st_dev),
        status.st_ino,
    )


def lock_holder(locks: str, major: int, minor: int, inode: int) -> int | None:
    """Return the process that holds the flock(2) of a file, by the text of /proc/locks.

    A lock is a line such as ``1: FLOCK  ADVISORY  WRITE 812 00:19:1234 0 EOF``; one that is waited
    for has ``->`` in it (lock_get_status in the kernel's fs/locks.c).
    """
    for line in locks.splitlines():
        words = line.split()
        if words[1:2] == ["FLOCK"] and words[5:6] == [f"{major:02x}:{minor:02x}:{inode}"]:
            return int(words[4])
    return None


@contextmanager
def agent_lock() -> Iterator[None]:
    """Be the only agent on this host while the context lasts.

    The kernel lets the next one in when this process ends, however it ends. Raises RefusedError
    ``agent.running`` where there is an agent already.
    """
    try:
        descriptor = open_locked(_LOCK, timeout=0)
    except BlockingIOError:
        pid = read_text(_LOCK, "").strip()
        raise RefusedError(
            "agent.running",
            f"Another agent runs on this host{f' (process {pid})' if pid else ''}.",
            hint="One is enough for a host: see 'systemctl status ramshelf-agent'.",
            facts={"process": pid},
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
