"""The hook's log: a line of JSON for each decision, below /run, bounded."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ramshelf.system.filesystem import RUN_DIR, read_text

LOG = f"{RUN_DIR}/hook.log"
_LIMIT = 1 << 20
"""Bytes after which the log is set aside as hook.log.1, replacing the one before."""


def record(event: str, **facts: object) -> None:
    """Add a line. What cannot be logged is no reason to refuse a guest."""
    line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **facts}, default=str)
    with suppress(OSError):
        os.makedirs(RUN_DIR, mode=0o755, exist_ok=True)
        log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            os.write(log, f"{line}\n".encode())
            if os.fstat(log).st_size > _LIMIT:
                os.replace(LOG, f"{LOG}.1")
        finally:
            os.close(log)


def recorded(guest: str) -> Iterator[dict[str, Any]]:
    """What is on record about guests of this name, the latest first."""
    word = json.dumps(guest)
    for path in (LOG, f"{LOG}.1"):
        lines = ""
        with suppress(OSError):
            lines = read_text(path, "")
        for line in reversed(lines.splitlines()):
            if word in line:
                with suppress(ValueError):  # a line that was cut off
                    entry = json.loads(line)
                    if entry.get("guest") == guest:
                        yield entry
