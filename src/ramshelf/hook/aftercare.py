"""The way to leave a process that does what libvirt cannot be asked for from its own hook."""

from __future__ import annotations

import os
import sys

from ramshelf.core.hook.call import AFTERCARE
from ramshelf.system.filesystem import read_text
from ramshelf.system.heldnotes import orphaned
from ramshelf.system.hooklog import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def leave_aftercare(guest: str, uuid: str, domain_id: int, tasks: Sequence[str]) -> None:
    """Leave a process that does these tasks once libvirt has done with the start.

    It runs node/guest/aftercare.py. libvirt waits for its hook's outputs to be closed, so the
    process has none.
    """
    python = _interpreter()
    devnull = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    carer = os.path.join(os.path.dirname(os.path.abspath(__file__)), "carer.py")
    argv = (python, "-I", carer, guest, str(domain_id), *tasks)
    try:
        os.posix_spawn(python, argv, os.environ, file_actions=devnull, setsid=True)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        record("no-aftercare", guest=guest, uuid=uuid, tasks=list(tasks), reason=reason)


def let_go() -> None:
    """Have guests resumed that somebody has paused for a moment and did not live to let go."""
    for name in orphaned():
        leave_aftercare(name, "", 0, ("resume",))


def _interpreter() -> str:
    """Return the Python that has libvirt-python.

    The copy of the hook's modules names it (core/hook/copy.py). Where these modules are no copy, it
    is the one that runs.
    """
    place = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return read_text(f"{place}/{AFTERCARE}", "").strip() or sys.executable
