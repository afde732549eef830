"""What the hook knows of its host besides the guest that libvirt calls it for."""

from __future__ import annotations

from ramshelf.core.errors import ConfigError
from ramshelf.core.setting import DEFAULT_HOST_RESERVED_MIB, file_backed_memory_mib, host_reserved_mib
from ramshelf.core.units import MIB
from ramshelf.system.configfiles import existing_files, read_settings
from ramshelf.system.hooklog import record
from ramshelf.system.procfs import meminfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from ramshelf.core.setting import Setting

    Value = TypeVar("Value")


def limit_mib(files: Sequence[str]) -> int | None:
    """file_backed_memory as the files have it now; the store's own size bounds what it can hold."""
    return _configured(files, file_backed_memory_mib, None)


def ram(files: Sequence[str]) -> tuple[int, int]:
    """RAM besides huge pages, and what of it the host needs for itself; bytes."""
    reserved = _configured(files, lambda _, settings: host_reserved_mib(settings), DEFAULT_HOST_RESERVED_MIB)
    host = meminfo()
    return host["MemTotal"] - host.get("Hugetlb", 0), reserved * MIB


def _configured(
    files: Sequence[str], read: Callable[[Sequence[str], Sequence[Setting]], Value], default: Value
) -> Value:
    """What the files say, or the default: a file that cannot be used is for the doctor to tell."""
    try:
        existing = existing_files(files)
        return read(existing, read_settings(existing))
    except ConfigError as error:
        record("configuration", code=error.code, reason=error.sentence)
        return default
