"""The measurements behind the README's figures, which ``make bench`` takes.

There is one module per table, listed in ``__main__``.
"""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

# tests/support has real guests and a libvirtd of one's own.
sys.path.insert(0, str(CHECKOUT / "tests"))
