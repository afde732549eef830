"""What the hook knows of its host besides the guest that libvirt calls it for."""

from __future__ import annotations

from ramshelf.core.errors import ConfigError
from ramshelf.core.setting import (
    DEFAULT_HOST_RESERVED_MIB,
    Limit,
    file_backed_memory_mib,
    host_reserved_mib,
    limit,
)
from ramshelf.core.units import MIB
from ramshelf.system.configfiles import existing_files, read_settings
from ramshelf.system.hooklog import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    Value = TypeVar("Value")


def limit_of(files: Sequence[str]) -> Limit:
    """Return the most that may be promised on the store, as the files have it now."""
    return bounds(files)[0]


def bounds(files: Sequence[str]) -> tuple[Limit, int]:
    """Return the same, and the bytes of RAM that the host needs for itself."""
    try:
        existing = existing_files(files)
        settings = read_settings(existing)
    except ConfigError as error:
        _tell(error)
        return limit(None), DEFAULT_HOST_RESERVED_MIB * MIB
    most = limit(_read(lambda: file_backed_memory_mib(existing, settings), None))
    return most, _read(lambda: host_reserved_mib(settings), DEFAULT_HOST_RESERVED_MIB) * MIB


def _read(read: Callable[[], Value], default: Value) -> Value:
    try:
        return read()
    except ConfigError as error:
        _tell(error)
        return default


def _tell(error: ConfigError) -> None:
    """Record that a file cannot be used, which is for the doctor to tell."""
    record("configuration", code=error.code, reason=error.sentence)
