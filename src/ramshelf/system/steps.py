"""What is done to the host, step by step, for whoever asks to see it (``--verbose``).

The steps go to Python's own logging at the level INFO, which nobody listens to otherwise.
"""

from __future__ import annotations

import logging

LOGGER = "ramshelf.steps"

_LOG = logging.getLogger(LOGGER)


def log_step(what: str) -> None:
    """Log a step as it begins: the command that is run, or the one that would do the same."""
    _LOG.info("%s", what)
