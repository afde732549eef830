"""The configuration: frozen, built once at the edge, with the place that each value came from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ramshelf.core.setting import DEFAULT_HOST_RESERVED_MIB, Limit, Setting, limit


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nova's options under Nova's names (with the unit added), and ramshelf's own.

    ``file_backed_memory_mib`` 0 is off, None means what the store holds. ``ram_allocation_ratio``
    is None where it is unset (or 0.0, which Nova takes for unset). ``placement`` is the section of
    that name as it stands, with Nova's password; ``placement_mode`` is none, remote or embedded.
    ``settings`` holds the winning place of each ``section.key`` that is set (with Nova's secrets:
    not shown), ``contradictions`` the places of ramshelf's options that are set differently, the
    winner last. ``metrics_port`` 0 means no metrics. The intervals are the agent's, in seconds.
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
    host_reserved_mib: int = DEFAULT_HOST_RESERVED_MIB
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
    def limit(self) -> Limit:
        """The most that may be promised on the store."""
        return limit(self.file_backed_memory_mib)

    @property
    def off(self) -> bool:
        """Whether guests are not to be backed by files on this host."""
        return self.limit.off


def contradictions(
    settings: Iterable[Setting], names: Iterable[str]
) -> tuple[tuple[Setting, ...], ...]:
    """Return the options ``names`` that are set more than once with different values.

    Each is given by all its places.
    """
    places: dict[str, list[Setting]] = {}
    for setting in settings:
        places.setdefault(setting.name, []).append(setting)
    return tuple(
        tuple(places[name])
        for name in names
        if len({setting.value.strip() for setting in places.get(name, ())}) > 1
    )
