"""Attacks by QEMU's user on a real host; only inside ``scripts/isolated``."""

import pytest

from support.fixtures import daemon, host, libvirtd
from support.side_by_side import only_isolated

__all__ = ["daemon", "host", "libvirtd"]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to touch the machine itself."""
    only_isolated(session, "make test")
