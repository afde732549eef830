"""The record of what guests were promised before an upgrade (core/earlierpromises.py), below /var/lib."""

from __future__ import annotations

import os

from ramshelf.core.earlierpromises import format_promises, parse_promises
from ramshelf.system.filesystem import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ramshelf.core.earlierpromises import EarlierPromise

DIRECTORY = "/var/lib/ramshelf"
PATH = f"{DIRECTORY}/promised-before"


def read_promises() -> tuple[EarlierPromise, ...]:
    """The guests on record; none where there is no record. Raises OSError."""
    return parse_promises(read_text(PATH, ""))


def write_promises(promises: Iterable[EarlierPromise]) -> None:
    """Write the record anew, old or new, never half; remove it where nobody is on it. Raises OSError.

    For holders of the store's lock.
    """
    from ramshelf.system.textfiles import write_atomically  # noqa: PLC0415 - the hook only reads

    text = format_promises(promises)
    if text:
        os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
        write_atomically(PATH, text, mode=0o600)
        return
    try:
        os.unlink(PATH)
    except FileNotFoundError:
        pass
