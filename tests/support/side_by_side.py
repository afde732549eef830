"""Integration tests in several machines side by side.

Each worker of pytest-xdist runs inside a ``scripts/isolated`` of its own.
"""

from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling


class ByScope(LoadScopeScheduling):  # type: ignore[misc] # the base has no types
    """One worker of pytest-xdist has all tests of a scope.

    Swap is the kernel's, shared by all machines side by side: all tests that use it are one scope.
    """

    def _split_scope(self, nodeid: str) -> str:
        path, _, name = nodeid.partition("::")
        return self.scope(Path(path).stem, name) or nodeid

    def scope(self, module: str, name: str) -> str | None:  # noqa: ARG002 - subclasses use it
        """Return the scope of a test by its module and its name; None for a scope of its own."""
        return "swap" if "swap" in name else None


def only_isolated(session: pytest.Session, target: str) -> None:
    """Refuse to touch the machine itself; with pytest-xdist it is the workers that run tests."""
    distributes = session.config.getoption("tx", None) and not hasattr(
        session.config, "workerinput"
    )
    if not distributes and not Path("/run/isolated").exists():
        raise pytest.UsageError(f"integration tests run inside scripts/isolated: use `{target}`")


def own_temporary_directory(config: pytest.Config) -> None:
    """Have a worker, which may be in a machine of its own, use the $TMPDIR that is there."""
    if hasattr(config, "workerinput"):
        config.option.basetemp = None
