"""The fixtures of all tests that need libvirt; tests/conftest.py imports them."""

from collections.abc import Iterator

import pytest

from support.cli import ramshelf
from support.libvirtd import Libvirtd
from support.machine import as_shipped, guests_can_run, without_guests


@pytest.fixture(scope="session")
def daemon() -> Iterator[Libvirtd]:
    """Yield the session's libvirtd; use ``libvirtd`` instead, which cleans up."""
    with guests_can_run() as daemon:
        yield daemon


@pytest.fixture
def host() -> Iterator[None]:
    """Provide a host as it was shipped; what the test changed of it is put back at the end."""
    with as_shipped():
        yield


@pytest.fixture
def libvirtd(host: None, daemon: Libvirtd) -> Iterator[Libvirtd]:  # noqa: ARG001
    """Yield a running libvirtd without guests and hooks, on a host as it was shipped.

    The guests end before the host is reset.
    """
    with without_guests(daemon):
        yield daemon


@pytest.fixture
def hooked(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    """Yield the same with ramshelf's hook."""
    ramshelf("hook", "install")
    yield libvirtd
    ramshelf("hook", "remove")
