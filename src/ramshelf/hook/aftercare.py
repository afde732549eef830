"""Which Python does what the hook leaves to be done: the installation's own, which has libvirt-python."""

from __future__ import annotations

import os
import sys

from ramshelf.system.filesystem import read_text

_PLACE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def interpreter() -> str:
    """The one that the copy of these modules names; where they are no copy, the one that runs."""
    return read_text(f"{_PLACE}/aftercare", "").strip() or sys.executable
