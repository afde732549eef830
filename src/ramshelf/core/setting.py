"""What a configuration file says, and the few options that the hook reads.

It is kept lean for the hook's sake. ``core/config.py`` has the whole configuration, which
oslo.config reads and checks.
"""

from __future__ import annotations

import posixpath

from ramshelf.core.errors import ConfigError
from ramshelf.core.record import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DEFAULT_FILES = (
    "/etc/nova/nova.conf",
    "/etc/nova/nova-compute.conf",
    "/etc/nova/nova.conf.d",
    "/etc/nova/nova-compute.conf.d",
    "/etc/ramshelf/ramshelf.conf",
    "/etc/ramshelf/ramshelf.conf.d",
)
"""The files that are read: those that nova-compute would read, then ramshelf's own.

nova-compute's are those of oslo.config's find_config_files and find_config_dirs for project nova.
The later wins. Of a directory the ``*.conf`` files are read; what is not there is passed over.
"""

DEFAULT_HOST_RESERVED_MIB = 1024
"""The value of ``[ramshelf] host_reserved_memory_mb`` where no file sets it."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What ``[libvirt] file_backed_memory`` lets the store promise at most, in MiB.

    ``mib`` None means that the store's own size alone counts. So it does where the option is
    ``off`` (0): then no guest is to be backed by files, but others' guests may be on the store.
    """

    mib: int | None
    off: bool


def limit(file_backed_memory_mib: int | None) -> Limit:
    """Return the limit by the option's value; None where it is not set."""
    return Limit(mib=file_backed_memory_mib or None, off=file_backed_memory_mib == 0)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value and the place where it stands, as an operator would look for it."""

    path: str
    section: str
    key: str
    value: str
    line: int = 0

    @property
    def name(self) -> str:
        """The setting's name, ``section.key``."""
        return f"{self.section}.{self.key}"

    def __str__(self) -> str:
        place = f"{self.path} line {self.line}" if self.line else self.path
        return f"{place}: [{self.section}] {self.key} = {self.value}"


def winning(settings: Iterable[Setting]) -> dict[str, Setting]:
    """Return the setting that counts for each ``section.key``: the last one."""
    return {setting.name: setting for setting in settings}


def nova_files(files: Iterable[str], settings: Iterable[Setting]) -> tuple[str, ...]:
    """Return those of ``files`` that are Nova's; the others are ramshelf's own.

    A file is Nova's when its name, or that of its directory, begins with nova. Of the others those
    are ramshelf's that are called ramshelf.conf, lie in ramshelf.conf.d, or set a key in
    [ramshelf].
    """
    own = {setting.path for setting in settings if setting.section == "ramshelf"}
    return tuple(path for path in files if not _is_own(path, own))


def _is_own(path: str, with_own_keys: set[str]) -> bool:
    directory, name = posixpath.split(path)
    parent = posixpath.basename(directory)
    if name.startswith("nova") or parent.startswith("nova"):
        return False
    return name == "ramshelf.conf" or parent == "ramshelf.conf.d" or path in with_own_keys


def unset_file_backed_memory(nova: Sequence[str]) -> int | None:
    """Return what ``file_backed_memory`` is where no file sets it.

    It is off for Nova (its default is 0), else unset. ``nova`` are the Nova files that were read.
    None means what the store holds.
    """
    return 0 if nova else None


def unset_placement_mode(placement: Mapping[str, str]) -> str:
    """Return which Placement is used where ``[ramshelf] placement`` does not say.

    It is the one that Nova would use.
    """
    named = any(placement.get(key, "").strip() for key in ("auth_type", "auth_section"))
    return "remote" if named else "none"


def file_backed_memory_mib(files: Sequence[str], settings: Sequence[Setting]) -> int | None:
    """Return ``[libvirt] file_backed_memory`` in MiB by these files, for the hook.

    0 is off, None means what the store holds. The hook cannot afford oslo.config. Raises
    ConfigError ``config.value``.
    """
    mib = _whole_mib(settings, "libvirt.file_backed_memory")
    return unset_file_backed_memory(nova_files(files, settings)) if mib is None else mib


def host_reserved_mib(settings: Sequence[Setting]) -> int:
    """Return ``[ramshelf] host_reserved_memory_mb`` in MiB, for the hook.

    Raises ConfigError ``config.value``.
    """
    mib = _whole_mib(settings, "ramshelf.host_reserved_memory_mb")
    return DEFAULT_HOST_RESERVED_MIB if mib is None else mib


def _whole_mib(settings: Sequence[Setting], name: str) -> int | None:
    """Return the number that counts; None where it is not set.

    Raises ConfigError ``config.value``.
    """
    setting = winning(settings).get(name)
    if setting is None or not setting.value.strip():
        return None
    try:
        mib = int(setting.value)
    except ValueError:
        mib = -1
    if mib < 0:
        raise ConfigError(
            "config.value",
            f"{setting} is not a whole number of MiB from 0.",
            facts={"path": setting.path, "section": setting.section, "key": setting.key},
        )
    return mib
