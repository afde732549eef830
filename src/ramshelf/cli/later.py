"""What only a running command needs is loaded by it: help and refused options pay for none of it.

A module of ``cli`` imports what it declares its commands with, and names the rest with ``later``:

    if TYPE_CHECKING:
        from ramshelf.node.store import manage as node
    else:
        node = later("ramshelf.node.store.manage")
"""

from importlib import import_module
from typing import Any


def later(name: str) -> Any:
    """Return what stands for the module ``name`` until one of its names is used."""
    return _Later(name)


class _Later:
    """A module that is not imported yet."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)
