"""Tests on a whole host: systemd, AppArmor, KVM, boots.

Those of one of pytest-xdist's workers share one: it takes long to make.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest

from support.real_host import Boot, RealHost, real_host
from support.tried import facts, record

DEVICES = ("--disk", "700G", "--nvme", "8G", "--nvdimm", "2G")
"""They take room as they are written to."""

_HOST = pytest.StashKey[dict[str, str]]()
_OUTCOMES = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the caller choose the host's distribution, and have what was tried put on record."""
    parser.addoption("--suite", default="trixie", help="the host's release of Debian")
    parser.addoption("--record", action="store_true", help="write what was tried to results/")


def pytest_configure(config: pytest.Config) -> None:
    """Nothing was tried yet."""
    config.stash[_OUTCOMES] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note how a test ended, with what it needs before and leaves behind; put it on record."""
    report = yield
    name = item.nodeid.removeprefix("tests/host/")
    outcomes, config = item.config.stash[_OUTCOMES], item.config
    if report.when == "call" or report.outcome != "passed":
        outcomes[name] = report.outcome
    if report.when == "teardown" and config.getoption("--record") and _HOST in config.stash:
        record(config.getoption("--suite"), config.stash[_HOST], {name: outcomes[name]})
    return report


@pytest.fixture(scope="session")
def boot(pytestconfig: pytest.Config) -> Boot:
    """A way to have a host of the chosen distribution for a while, by its name and options."""

    @contextmanager
    def booted(name: str, *options: str) -> Iterator[RealHost]:
        with real_host(name, "--suite", pytestconfig.getoption("--suite"), *options) as host:
            pytestconfig.stash[_HOST] = facts(host)
            yield host

    return booted


@pytest.fixture(scope="session")
def machine(boot: Boot, worker_id: str) -> Iterator[RealHost]:
    """One host with nothing made yet."""
    with boot(f"test-{worker_id}", *DEVICES) as host:
        yield host


@pytest.fixture(scope="session")
def pmem(machine: RealHost) -> str:
    """Its persistent memory, in a mode that a file system with DAX can use."""
    machine.run("ndctl create-namespace --force --reconfig namespace0.0 --mode fsdax")
    return "/dev/pmem0"
