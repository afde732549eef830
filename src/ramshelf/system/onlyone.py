"""At most one process of a kind on this host."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ramshelf.core.errors import RefusedError
from ramshelf.system.filesystem import RUN_DIR, read_text


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Be the only ``ramshelf NAME`` here; the kernel lets the next one in when this one ends, however.

    Raises RefusedError ``NAME.running`` where there is one already.
    """
    path = RUN_DIR / f"{name}.lock"
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = read_text(path, "").strip()
            raise RefusedError(
                f"{name}.running",
                f"Another ramshelf {name} runs on this host{f' (process {pid})' if pid else ''}.",
                hint="One is enough for a host: see 'systemctl status ramshelf-agent'.",
                facts={"pid": pid, "lock": str(path)},
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
