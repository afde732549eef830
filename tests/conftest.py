"""Options of the test suite."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="Write the golden files anew, to be reviewed with git diff, in place of comparing with them.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Have a worker of pytest-xdist, which may be in a machine of its own, use the $TMPDIR that is there."""
    if hasattr(config, "workerinput"):
        config.option.basetemp = None
