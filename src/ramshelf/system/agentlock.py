"""The lock that allows at most one agent on this host."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ramshelf.core.errors import RefusedError
from ramshelf.system.filesystem import RUN_DIR, read_text

_LOCK = Path(RUN_DIR, "agent.lock")


@contextmanager
def agent_lock() -> Iterator[None]:
    """Be the only agent on this host while the context lasts.

    The kernel lets the next one in when this process ends, however it ends. Raises RefusedError
    ``agent.running`` where there is an agent already.
    """
    _LOCK.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Whoever can read a file can lock it, and keep the agent from starting.
        os.fchmod(descriptor, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = read_text(_LOCK, "").strip()
            raise RefusedError(
                "agent.running",
                f"Another agent runs on this host{f' (process {pid})' if pid else ''}.",
                hint="One is enough for a host: see 'systemctl status ramshelf-agent'.",
                facts={"process": pid},
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
