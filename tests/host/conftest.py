"""Tests on a whole host: systemd, AppArmor, KVM, boots. They share one: it takes long to make."""

from collections.abc import Iterator

import pytest

from support.real_host import RealHost, real_host

DEVICES = ("--disk", "700G", "--nvme", "8G", "--nvdimm", "2G")
"""They take room as they are written to."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the caller choose the host's distribution."""
    parser.addoption("--suite", default="trixie", help="the host's release of Debian")


@pytest.fixture(scope="session")
def suite(pytestconfig: pytest.Config) -> str:
    """The host's release of Debian."""
    chosen: str = pytestconfig.getoption("--suite")
    return chosen


@pytest.fixture(scope="session")
def machine(suite: str) -> Iterator[RealHost]:
    """One host with nothing made yet."""
    with real_host("test", "--suite", suite, *DEVICES) as host:
        yield host
