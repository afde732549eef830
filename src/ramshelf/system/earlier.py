"""The record of what guests were promised before an upgrade (core/store/earlier.py), below /var/lib."""

from __future__ import annotations

import os

from ramshelf.core.store.earlier import format_promises, parse_promises
from ramshelf.system.filesystem import have_directory, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ramshelf.core.store.earlier import EarlierPromise

DIRECTORY = "/var/lib/ramshelf"
PATH = f"{DIRECTORY}/promised-before"


_SCRIPT = "/etc/libvirt/hooks/qemu.d/ramshelf"
"""core/hookscript.SCRIPT; that module is slow to import, and the hook has no other use for it."""

_ONLY_THERE = "\nverdict="
"""A line that the script of version 0.1.0 has, and none since."""


def hook_is_earlier() -> bool:
    """Whether libvirt still calls the script of version 0.1.0. Raises OSError.

    It runs the modules of the installation that it was made by: this version's, once that is
    upgraded.
    """
    return _ONLY_THERE in read_text(_SCRIPT, "")


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
        have_directory(DIRECTORY, 0o700)
        write_atomically(PATH, text, mode=0o600)
        return
    try:
        os.unlink(PATH)
    except FileNotFoundError:
        pass
