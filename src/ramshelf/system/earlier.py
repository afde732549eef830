"""The record below /var/lib of what guests were promised before an upgrade.

core/store/earlier.py says what the record is for.
"""

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
"""The same as SCRIPT in core/hook/script.py.

That module is slow to import, and the hook has no other use for it.
"""

_ONLY_THERE = "\nverdict="
"""The beginning of a line that the script of version 0.1.0 has, and none since."""


def hook_is_earlier() -> bool:
    """Tell whether libvirt still calls the script of version 0.1.0. Raises OSError.

    That script runs the modules of the installation that it was made by. Once the installation is
    upgraded, these are this version's.
    """
    return _ONLY_THERE in read_text(_SCRIPT, "")


def read_promises() -> tuple[EarlierPromise, ...]:
    """Return the guests on record; none where there is no record. Raises OSError."""
    return parse_promises(read_text(PATH, ""))


def write_promises(promises: Iterable[EarlierPromise]) -> None:
    """Write the record anew, or remove it where nobody is on it. Raises OSError.

    The record is the old or the new one, never half of it. Callers hold the store's lock.
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
