"""What is done to the host, step by step, for whoever asks to see it (``--verbose``).

The steps go to Python's own logging at the level INFO, which nobody listens to otherwise.
"""

from __future__ import annotations

import logging

from ramshelf.core.text import printable

LOGGER = "ramshelf.steps"

_LOG = logging.getLogger(LOGGER)


def log_step(what: str) -> None:
    """Log a step as it begins: the command that is run, or the one that would do the same.

    Names of guests and files are in it, which others have chosen.
    """
    if _LOG.isEnabledFor(logging.INFO):
        _LOG.info("%s", printable(what))
