"""The hook's log: a line of JSON for each decision, below /run, bounded."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

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


class Follower:
    """Reads the log as it grows; the first time all that is there.

    The file that it reads stays open, so that it is read to its end also when it was set aside.
    """

    def __init__(self, log: Path = LOG) -> None:
        self._log = log
        self._file: BinaryIO | None = None

    def entries(self) -> Iterator[dict[str, Any]]:
        """What has been added since the last time, the oldest first; to be read to the end."""
        yield from self._rest()
        current, older = _inode(self._log), Path(f"{self._log}.1")
        held = os.fstat(self._file.fileno()).st_ino if self._file is not None else None
        if current in {None, held}:
            return
        for path in (self._log,) if _inode(older) in {None, held} else (older, self._log):
            with suppress(FileNotFoundError):  # it was set aside just now
                self._open(path)
                yield from self._rest()

    def close(self) -> None:
        """Let the file go; all that is there would be read again."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _open(self, path: Path) -> None:
        file = path.open("rb")
        self.close()
        self._file = file

    def _rest(self) -> Iterator[dict[str, Any]]:
        """The whole lines that have not been read."""
        if self._file is None:
            return
        begin = self._file.tell()
        text = self._file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._file.seek(begin + len(whole))
        for line in whole.splitlines():
            with suppress(ValueError):  # a line that was cut off
                yield json.loads(line)


def _inode(path: Path) -> int | None:
    with suppress(FileNotFoundError):
        return path.stat().st_ino
    return None
