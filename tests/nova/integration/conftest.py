"""Real Nova through its API; only inside ``scripts/isolated``: use ``make test-nova``.

A Nova is started for each module (and each kind of store in it): it takes seconds.
"""

import re
from collections.abc import Iterator

import pytest

from support.libvirtd import Libvirtd
from support.machine import as_shipped, guests_can_run, without_guests
from support.side_by_side import ByScope, only_isolated, own_temporary_directory

_OF_SWAP = ("test_live_migration",)
"""Modules with a store of swap, besides the tests that have it in their names."""


class _Scopes(ByScope):
    """A Nova is started for each module and kind of store in it: those tests stay together."""

    def scope(self, module: str, name: str) -> str:
        if module in _OF_SWAP:
            return "swap"
        return super().scope(module, name) or " ".join([module, *re.findall("ext4|xfs", name)])


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """How tests are spread over machines side by side."""
    return _Scopes(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Workers of pytest-xdist use the $TMPDIR that is there."""
    own_temporary_directory(config)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to touch the machine itself."""
    only_isolated(session, "make test-nova")


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
