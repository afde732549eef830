"""Integration tests: real libvirt, QEMU, file systems; only inside ``scripts/isolated``."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.libvirtd import Libvirtd
from support.machine import as_shipped, guests_can_run, without_guests

_OF_SWAP = (
    "test_bench",
    "test_doctor",
    "test_environment",
    "test_fill",
    "test_isolated",
    "test_pinned",
    "test_store",
)
"""Modules that make swap, look at all that the kernel has, or hold guests to less RAM than they use."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Swap is the kernel's, of all machines side by side: one worker of pytest-xdist has the tests of it."""
    for item in items:
        if "swap" in item.name or "pressure" in item.name or item.path.stem.startswith(_OF_SWAP):
            item.add_marker(pytest.mark.xdist_group("swap"))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to touch the machine itself; with pytest-xdist it is the workers that run tests."""
    distributes = session.config.getoption("tx", None) and not hasattr(session.config, "workerinput")
    if not distributes and not Path("/run/isolated").exists():
        raise pytest.UsageError("integration tests run inside scripts/isolated: use `make test`")


@pytest.fixture(scope="session")
def daemon() -> Iterator[Libvirtd]:
    """The session's libvirtd; take ``libvirtd`` instead, which cleans up."""
    with guests_can_run() as daemon:
        yield daemon


@pytest.fixture
def host() -> Iterator[None]:
    """A host as it was shipped; what the test changed of it is put back at the end."""
    with as_shipped():
        yield


@pytest.fixture
def libvirtd(host: None, daemon: Libvirtd) -> Iterator[Libvirtd]:  # noqa: ARG001 - guests end before the host is reset
    """A running libvirtd without guests and hooks, on a host as it was shipped."""
    with without_guests(daemon):
        yield daemon
