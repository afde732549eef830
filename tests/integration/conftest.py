"""Integration tests: real libvirt, QEMU, file systems; only inside ``scripts/isolated``."""

from pathlib import Path

import pytest

from support.side_by_side import ByScope, only_isolated

_OF_SWAP = (
    "test_bench",
    "test_doctor",
    "test_environment",
    "test_fill",
    "test_isolated",
    "test_pinned",
    "test_ram",
    "test_store",
)
"""Modules that make swap, look at all that the kernel has, or give guests too little RAM."""


class _Scopes(ByScope):
    def scope(self, module: str, name: str) -> str | None:
        of_swap = "pressure" in name or module.startswith(_OF_SWAP)
        return "swap" if of_swap else super().scope(module, name)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """How tests are spread over machines side by side."""
    return _Scopes(config, log)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to touch the machine itself."""
    only_isolated(session, "make test")


@pytest.fixture(scope="session")
def embedded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of an embedded Placement for all tests: a process can serve only one.

    A test may remove the file.
    """
    return tmp_path_factory.mktemp("embedded") / "placement.sqlite"
