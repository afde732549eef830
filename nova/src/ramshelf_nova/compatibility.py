"""Whether the driver fits a Nova, whose private parts change without notice."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

TESTED = ("31", "34")
"""The versions of Nova that the driver was tested with: 2025.1 and 2026.2."""


def misfits(derived: type, base: type) -> Iterator[str]:
    """Yield the methods of ``derived`` that override none of ``base`` with the same parameters.

    Each is told with what has become of it. ``derived`` must define no method of its own.
    Annotations do not count.
    """
    for name, method in vars(derived).items():
        if not inspect.isfunction(method):
            continue
        theirs = getattr(base, name, None)
        if theirs is None:
            yield f"{name} is gone"
        elif _parameters(theirs) != _parameters(method):
            yield f"{name} is now {name}{inspect.signature(theirs)}"


def missing(thing: object, *attributes: str) -> Iterator[str]:
    """Yield those of the attributes that ``thing`` does not have."""
    for attribute in attributes:
        if not hasattr(thing, attribute):
            yield f"{type(thing).__name__}.{attribute} is gone"


def _parameters(method: Callable[..., Any]) -> list[tuple[object, ...]]:
    return [
        (each.name, each.kind, each.default)
        for each in inspect.signature(method).parameters.values()
    ]
