"""The installed console command."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ramshelf.system.run import Completed
from support.process import HANG, run

RAMSHELF = str(Path(sys.executable).parent / "ramshelf")


def ramshelf(
    *args: str, ok: Sequence[int] = (0,), stdin: str | None = None, timeout: float = HANG
) -> Completed:
    """Run ``ramshelf ARGS``; an exit status that is not in ``ok`` fails the test."""
    return run(RAMSHELF, *args, ok=ok, stdin=stdin, timeout=timeout)
