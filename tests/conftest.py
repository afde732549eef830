"""Options of the test suite, and the fixtures of all tests that need libvirt.

Each is here once, for all folders.
"""

import pytest
from hypothesis import settings

from support.fixtures import daemon, hooked, host, libvirtd
from support.side_by_side import own_temporary_directory

__all__ = ["daemon", "hooked", "host", "libvirtd"]

# A busy machine is no fault.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate",
        action="store_true",
        help=(
            "Write the golden files anew, to be reviewed with git diff, in place of comparing with "
            "them."
        ),
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let workers of pytest-xdist use the $TMPDIR that is there."""
    own_temporary_directory(config)
