"""What is left of ramshelf where state is kept, once its last part is removed."""

import os
from contextlib import suppress

from ramshelf.core.agent.unit import ENABLED, NAMES, unit_path
from ramshelf.core.errors import RefusedError
from ramshelf.core.hook.script import SCRIPT
from ramshelf.core.store.layout import FSTAB, find_claim
from ramshelf.system.agentlock import agent_lock
from ramshelf.system.earlier import DIRECTORY as STATE_DIR
from ramshelf.system.filesystem import RUN_DIR, read_text
from ramshelf.system.locks import open_locked, store_lock

_LOCK_TIMEOUT = 30
_NOTES = ("arriving", "coming", "guests")
"""The directories of notes that serve the hook."""


def leave_nothing() -> None:
    """Remove ramshelf's directories of state, once hook, services and store are gone.

    For whoever has removed one of them. While an agent runs that no service started, nothing is
    done. What is in use stays: a lock that is held, a guest that is trimmed, a claim that is made,
    what an embedded Placement knows.
    """
    units = (unit_path(name) for name in NAMES)
    if any(map(os.path.lexists, (SCRIPT, ENABLED, *units))) or find_claim(read_text(FSTAB, "")):
        return
    try:
        with agent_lock(), store_lock(timeout=_LOCK_TIMEOUT):
            for notes in _NOTES:
                import shutil  # noqa: PLC0415 - not for those who only look

                shutil.rmtree(f"{RUN_DIR}/{notes}", ignore_errors=True)
    except RefusedError:
        return
    with suppress(FileNotFoundError):  # another removal was quicker
        for entry in list(os.scandir(RUN_DIR)):
            if entry.is_dir(follow_symlinks=False):
                _remove_empty(entry.path)
            else:
                _remove_unheld(entry.path)
    for directory in (RUN_DIR, STATE_DIR):
        _remove_empty(directory)


def _remove_unheld(path: str) -> None:
    with suppress(OSError):
        descriptor = open_locked(path, timeout=0)
        os.unlink(path)
        os.close(descriptor)


def _remove_empty(directory: str) -> None:
    with suppress(OSError):
        os.rmdir(directory)
