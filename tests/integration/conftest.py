"""Integration tests: real libvirt, QEMU, file systems; only inside ``scripts/isolated``."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

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


class _OneForSwap(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """Swap is the kernel's, of all machines side by side: one worker of pytest-xdist has the tests of it."""

    def _split_scope(self, nodeid: str) -> str:
        path, _, name = nodeid.partition("::")
        of_swap = "swap" in name or "pressure" in name or Path(path).stem.startswith(_OF_SWAP)
        return "swap" if of_swap else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """How tests are spread over machines side by side."""
    return _OneForSwap(config, log)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to touch the machine itself; with pytest-xdist it is the workers that run tests."""
    distributes = session.config.getoption("tx", None) and not hasattr(session.config, "workerinput")
    if not distributes and not Path("/run/isolated").exists():
        raise pytest.UsageError("integration tests run inside scripts/isolated: use `make test`")


@pytest.fixture(scope="session")
def embedded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded Placement's database for all tests: a process can serve one, which may be removed."""
    return tmp_path_factory.mktemp("embedded") / "placement.sqlite"


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
