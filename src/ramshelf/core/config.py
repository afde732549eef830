"""The configuration: frozen, built once at the edge, with the place that each value came from."""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ramshelf.core.errors import ConfigError

DEFAULT_FILES = (
    "/etc/nova/nova.conf",
    "/etc/nova/nova-compute.conf",
    "/etc/nova/nova.conf.d",
    "/etc/nova/nova-compute.conf.d",
    "/etc/ramshelf/ramshelf.conf",
    "/etc/ramshelf/ramshelf.conf.d",
)
"""What nova-compute would read (oslo.config's find_config_files and find_config_dirs for project nova), then
ramshelf's own; the later wins. Of a directory the ``*.conf`` files; what is not there is passed over."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where a value stands: as an operator would look for it."""

    path: str
    section: str
    key: str
    value: str
    line: int = 0

    @property
    def name(self) -> str:
        """``section.key``."""
        return f"{self.section}.{self.key}"

    def __str__(self) -> str:
        place = f"{self.path} line {self.line}" if self.line else self.path
        return f"{place}: [{self.section}] {self.key} = {self.value}"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nova's options under Nova's names (with the unit added), and ramshelf's own.

    ``file_backed_memory_mib``: 0 is off; None means what the store holds. ``ram_allocation_ratio`` None:
    unset (or 0.0, which Nova takes for unset). ``placement`` is the section of that name as it stands, with
    Nova's password; ``placement_mode`` is none, remote or embedded. ``settings`` holds the winning place of
    each ``section.key`` that is set (with Nova's secrets: not shown); ``contradictions`` the places of
    ramshelf's options that are set differently, the winner last. ``metrics_port`` 0: no metrics; the
    intervals are the agent's, in seconds.
    """

    file_backed_memory_mib: int | None = None
    virt_type: str = "kvm"
    connection_uri: str = "qemu:///system"
    ram_allocation_ratio: float | None = None
    reserved_host_memory_mib: int = 512
    placement: Mapping[str, str] = field(default_factory=dict, repr=False)
    placement_mode: str = "none"
    placement_database: str = "/var/lib/ramshelf/placement.sqlite"
    placement_owner: bool = False
    placement_required: bool = False
    strict: bool = False
    host_reserved_mib: int = 1024
    metrics_address: str = "127.0.0.1"
    metrics_port: int = 10177
    look_interval: int = 10
    check_interval: int = 300
    report_interval: int = 60
    files: tuple[str, ...] = ()
    nova_files: tuple[str, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict, repr=False)
    contradictions: tuple[tuple[Setting, ...], ...] = ()

    @property
    def off(self) -> bool:
        """Whether guests are not to be backed by files on this host."""
        return self.file_backed_memory_mib == 0


def winning(settings: Iterable[Setting]) -> dict[str, Setting]:
    """The setting that counts for each ``section.key``: the last one."""
    return {setting.name: setting for setting in settings}


def contradictions(settings: Iterable[Setting], names: Iterable[str]) -> tuple[tuple[Setting, ...], ...]:
    """Of the options ``names`` those that are set more than once with different values, all their places."""
    places: dict[str, list[Setting]] = {}
    for setting in settings:
        places.setdefault(setting.name, []).append(setting)
    return tuple(
        tuple(places[name])
        for name in names
        if len({setting.value.strip() for setting in places.get(name, ())}) > 1
    )


def nova_files(files: Iterable[str], settings: Iterable[Setting]) -> tuple[str, ...]:
    """Those of ``files`` that are Nova's; the others are ramshelf's own.

    A file is Nova's when it, or its directory, is called nova something; of the others those are ramshelf's
    that are called ramshelf.conf, lie in ramshelf.conf.d, or set a key in [ramshelf].
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
    """What ``file_backed_memory`` is where no file sets it: off for Nova (its default is 0), else unset.

    ``nova``: the Nova files that were read. None means what the store holds.
    """
    return 0 if nova else None


def unset_placement_mode(placement: Mapping[str, str]) -> str:
    """Which Placement is used where ``[ramshelf] placement`` does not say: the one that Nova would use."""
    named = any(placement.get(key, "").strip() for key in ("auth_type", "auth_section"))
    return "remote" if named else "none"


def file_backed_memory_mib(files: Sequence[str], settings: Sequence[Setting]) -> int | None:
    """``[libvirt] file_backed_memory`` in MiB by these files; 0 is off, None what the store holds.

    For the hook, which cannot afford oslo.config. Raises ConfigError ``config.value``.
    """
    mib = _whole_mib(settings, "libvirt.file_backed_memory")
    return unset_file_backed_memory(nova_files(files, settings)) if mib is None else mib


def host_reserved_mib(settings: Sequence[Setting]) -> int:
    """``[ramshelf] host_reserved_memory_mb``, for the hook. Raises ConfigError ``config.value``."""
    mib = _whole_mib(settings, "ramshelf.host_reserved_memory_mb")
    return Config.host_reserved_mib if mib is None else mib


def _whole_mib(settings: Sequence[Setting], name: str) -> int | None:
    """The number that counts; None where it is not set."""
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
