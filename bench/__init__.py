"""Where the README's figures come from: ``make bench``. One module per table, listed in ``__main__``."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

sys.path.insert(
    0, str(CHECKOUT / "tests")
)  # real guests and a libvirtd of one's own: tests/support
