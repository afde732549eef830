"""Real Nova through its API; only inside ``scripts/isolated``: use ``make test-nova``.

A Nova is started for each module (and each kind of store in it): it takes seconds.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.libvirtd import Libvirtd
from support.machine import as_shipped, guests_can_run, without_guests


def pytest_sessionstart() -> None:
    """Refuse to touch the machine itself."""
    if not Path("/run/isolated").exists():
        raise pytest.UsageError("integration tests run inside scripts/isolated: use `make test-nova`")


@pytest.fixture(scope="session")
def daemon() -> Iterator[Libvirtd]:
    """The session's libvirtd; take ``libvirtd`` instead, which cleans up."""
    with guests_can_run() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def libvirtd(daemon: Libvirtd) -> Iterator[Libvirtd]:
    """A running libvirtd without guests and hooks, on a host as it was shipped."""
    with as_shipped(), without_guests(daemon):
        yield daemon
