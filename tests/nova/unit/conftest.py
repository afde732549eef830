"""Nova's configuration as its services read it, and what the tests set of it."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

# This comes before all else: it decides between eventlet and threads, as in nova-compute.
import nova.cmd.compute  # noqa: F401
import pytest
from hypothesis import settings
from oslo_log import log as oslo_log

from ramshelf_nova.conf import CONF, GROUP

# A busy machine is no fault.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="session")
def nova_configuration() -> None:
    oslo_log.register_options(CONF)
    CONF([], project="nova", default_config_files=[], default_config_dirs=[])


@pytest.fixture
def option() -> Iterator[Callable[[str, Any], None]]:
    """Sets an option of [filter_scheduler] for the test."""
    names = []

    def set_option(name: str, value: Any) -> None:
        CONF.set_override(name, value, group=GROUP)
        names.append(name)

    yield set_option
    for name in names:
        CONF.clear_override(name, group=GROUP)


@pytest.fixture(autouse=True)
def debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="ramshelf_nova")
