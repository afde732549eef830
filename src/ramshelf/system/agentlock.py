"""The lock that allows at most one agent on this host."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ramshelf.core.errors import RefusedError
from ramshelf.system.filesystem import RUN_DIR, read_text
from ramshelf.system.locks import open_locked

_LOCK = f"{RUN_DIR}/agent.lock"


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
