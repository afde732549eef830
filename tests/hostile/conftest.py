"""Attacks by QEMU's user on a real host; only inside ``scripts/isolated``."""

import pytest

from support.side_by_side import only_isolated


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to touch the machine itself."""
    only_isolated(session, "make test")
