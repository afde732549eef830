"""What runs the tests' guests. Nova's own processes import this: it needs nothing."""

import os


def accelerator() -> str:
    """Return what runs the guests: QEMU's own emulation, unless $GUESTS says ``kvm``."""
    return os.environ.get("GUESTS", "qemu")
