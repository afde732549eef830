"""What is left of ramshelf where state is kept, once its last part is removed."""

import os
import shutil
from contextlib import suppress

from ramshelf.core.agent.unit import NAMES, unit_path
from ramshelf.core.errors import RefusedError
from ramshelf.core.hook.script import SCRIPT
from ramshelf.core.store.layout import FSTAB, find_claim
from ramshelf.system.agentlock import agent_lock
from ramshelf.system.earlier import DIRECTORY as STATE_DIR
from ramshelf.system.filesystem import RUN_DIR, read_text
from ramshelf.system.locks import store_lock

_LOCK_TIMEOUT = 30


def leave_nothing() -> None:
    """Remove ramshelf's directories of state, once hook, services and store are gone.

    For whoever has removed one of them. While an agent runs that no service started, nothing is
    done; nor is what an embedded Placement knows removed.
    """
    units = (unit_path(name) for name in NAMES)
    if any(map(os.path.exists, (SCRIPT, *units))) or find_claim(read_text(FSTAB, "")):
        return
    with suppress(RefusedError), agent_lock(), store_lock(timeout=_LOCK_TIMEOUT):
        shutil.rmtree(RUN_DIR, ignore_errors=True)
    with suppress(OSError):
        os.rmdir(STATE_DIR)
