"""The hook's log, as others than the hook follow it: the hook is spared these imports."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ramshelf.system.filesystem import read_text
from ramshelf.system.hooklog import LOG


def recorded(guest: str) -> Iterator[dict[str, Any]]:
    """Yield what is on record about guests of this name, the latest first."""
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
    """A reader that follows the hook's log as it grows.

    The first time it reads all that is there. The file that it reads stays open, so that it is read
    to its end also when it was set aside.
    """

    def __init__(self, log: Path = Path(LOG)) -> None:
        self._log = log
        self._file: BinaryIO | None = None

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield what has been added since the last time, the oldest first.

        To be read to the end.
        """
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
        """Close the file; after that, all that is there would be read again."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _open(self, path: Path) -> None:
        file = path.open("rb")
        self.close()
        self._file = file

    def _rest(self) -> Iterator[dict[str, Any]]:
        """Yield the entries of the whole lines that have not been read."""
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
