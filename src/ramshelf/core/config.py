"""The configuration: frozen, built once at the edge, with the place that each value came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_FILES = (
    "/etc/nova/nova.conf",
    "/etc/nova/nova-compute.conf",
    "/etc/ramshelf/ramshelf.conf",
)
"""What nova-compute would read, then ramshelf's own file; the later file wins."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where a value stands: as an operator would look for it."""

    path: str
    section: str
    key: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nova's options under Nova's names (with the unit added), and ramshelf's own.

    ``file_backed_memory_mib``: 0 is off; None means what the store holds. ``ram_allocation_ratio`` None: unset.
    ``settings`` holds the winning place of each ``section.key`` that is set; ``contradictions`` the places of
    keys that two files set differently.
    """

    file_backed_memory_mib: int | None = None
    virt_type: str = "kvm"
    connection_uri: str = "qemu:///system"
    ram_allocation_ratio: float | None = None
    reserved_host_memory_mib: int = 512
    placement: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    host_reserved_mib: int = 1024
    files: tuple[str, ...] = ()
    nova_files: tuple[str, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)
    contradictions: tuple[tuple[Setting, ...], ...] = ()

    @property
    def off(self) -> bool:
        """Whether guests are not to be backed by files on this host."""
        return self.file_backed_memory_mib == 0
