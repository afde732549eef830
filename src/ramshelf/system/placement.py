"""Placement, by its own API: over the network, or inside this process."""

from ramshelf.core.config import Config


class Placement:
    """A connection, made at the first request and kept; it is for one thread."""

    def close(self) -> None:
        """Let it go."""


def connect(config: Config) -> Placement | None:
    """Placement as ``[ramshelf] placement`` says; None where it is not used. Asks nothing yet."""
    raise NotImplementedError
