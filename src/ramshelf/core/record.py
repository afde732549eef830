"""Frozen, keyword-only records without the price of ``dataclasses``.

Importing ``dataclasses`` costs some ten milliseconds, and each class that it makes is compiled from
text: too much for the hook, which libvirt runs at every start. Type checkers are shown the standard
dataclass and its ``replace``, and so check as they do everywhere else. What takes real dataclasses
by their fields (``dataclasses.asdict``, ``fields``, ``replace``) does not take records; ``replace``
here takes both. A default may be a ``dataclasses.field`` with a factory, and with nothing else.
"""

from __future__ import annotations

__all__ = ["dataclass", "replace"]

TYPE_CHECKING = False  # Importing typing costs milliseconds; type checkers know the name.
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    T = TypeVar("T")


def _record(*, frozen: bool, kw_only: bool) -> Callable[[type[T]], type[T]]:
    """Return a class decorator that stands for ``dataclasses.dataclass``.

    It takes ``frozen=True, kw_only=True``, and nothing else.
    """
    if not (frozen and kw_only):
        raise TypeError("a record is frozen and its fields are keywords")
    return _made


def _made(cls: type[T]) -> type[T]:
    # The fields of the base come first. A class without fields of its own has those of its base.
    names = tuple(
        dict.fromkeys(
            [*getattr(cls, "__record_fields__", ()), *getattr(cls, "__annotations__", ())]
        )
    )
    defaults = {name: getattr(cls, name) for name in names if hasattr(cls, name)}
    for name, value in {
        "__record_fields__": names,
        "__init__": _init(names, defaults),
        "__eq__": _eq,
        "__hash__": _hash,
        "__repr__": _repr,
        "__setattr__": _frozen,
        "__delattr__": _frozen,
    }.items():
        setattr(cls, name, value)
    return cls


def _init(names: tuple[str, ...], defaults: Mapping[str, Any]) -> Callable[..., None]:
    known = frozenset(names)
    factories = {
        name: default.default_factory
        for name, default in defaults.items()
        if hasattr(default, "default_factory")
    }

    def __init__(self: object, **values: object) -> None:  # noqa: N807 - becomes the class's own
        if values.keys() != known:
            if unknown := values.keys() - known:
                raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
            made = {name: make() for name, make in factories.items() if name not in values}
            values = {**defaults, **made, **values}
            if missing := known - values.keys():
                raise TypeError(f"{type(self).__name__} lacks {', '.join(sorted(missing))}")
        self.__dict__.update(values)

    return __init__


def _values(record: Any) -> tuple[object, ...]:
    values = record.__dict__
    return tuple([values[name] for name in record.__record_fields__])


def _eq(self: object, other: object) -> bool:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: object) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:
    values = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self.__record_fields__)
    return f"{type(self).__qualname__}({values})"


def _frozen(self: object, name: str, _value: object = None) -> None:
    raise AttributeError(f"{type(self).__name__} is frozen: {name} stays as it is")


def _replaced(record: T, **changes: object) -> T:
    """Return the same record, or keyword-only dataclass, with other values for these fields."""
    return type(record)(**{**vars(record), **changes})


if TYPE_CHECKING:
    from dataclasses import dataclass, replace
else:
    dataclass, replace = _record, _replaced
