"""What the doctor knows of a host, beside what is in core/host.py.

It is gathered elsewhere and judged by ``core/doctor/checks``.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import field

from ramshelf.core.config import Config
from ramshelf.core.doctor.confinement import Labels
from ramshelf.core.domain.memory import Guest
from ramshelf.core.domain.numa import HostNuma, Tuning
from ramshelf.core.domain.own_backends import OwnBackend
from ramshelf.core.errors import RamshelfError
from ramshelf.core.files.qemuconf import MemoryDirectory
from ramshelf.core.hook.status import HookStatus
from ramshelf.core.host import Account, Device, LibvirtHost, Process, Slice, SwapUse, Unknown
from ramshelf.core.placement import Comparison
from ramshelf.core.record import dataclass
from ramshelf.core.requirements import Version
from ramshelf.core.store.capacity import StoreUsage
from ramshelf.core.store.directory import FileUsage
from ramshelf.core.store.earlier import EarlierPromise
from ramshelf.core.store.find import NoStore, Store
from ramshelf.core.store.write_errors import WriteErrors


@dataclasses.dataclass(frozen=True, kw_only=True)
class BadConfig(Unknown):
    """Why the configuration cannot be used: what the error says with which a command refuses."""

    code: str
    hint: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GuestFacts:
    """A running guest and its QEMU process, which is None where it cannot be found.

    ``directory`` is where its memory files are, or should be; ``memory_files`` is what lies there.
    ``promised`` are the bytes that it was promised; ``pinned`` are those that it was admitted to
    keep in RAM, None where that is not known. ``given`` are the inodes of the files that had all
    their extents once, on a disk. ``own`` is what its qemu:commandline has QEMU map besides.
    ``discard_retracted``: its discard flag was taken back after it started. ``labels`` say what
    confines it. ``tuning`` says to which of the host's NUMA nodes its memory is bound.
    """

    guest: Guest
    directory: str
    memory_files: tuple[FileUsage, ...] | Unknown
    promised: int | Unknown
    process: Process | None
    pinned: int | None = None
    given: frozenset[int] = frozenset()
    own: tuple[OwnBackend, ...] = ()
    discard_retracted: bool = False
    labels: Labels = field(default_factory=Labels)
    tuning: Tuning = field(default_factory=Tuning)


@dataclass(frozen=True, kw_only=True)
class OddGuest:
    """A running guest whose XML is not understood, and why."""

    name: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class StaleDirectory:
    """A directory below the memory backing directory that no running guest owns."""

    path: str
    size: int


@dataclass(frozen=True, kw_only=True)
class PathDirectory:
    """One directory on the way to the memory backing directory, from the root down."""

    path: str
    uid: int
    gid: int
    mode: int


@dataclass(frozen=True, kw_only=True)
class ServiceOrder:
    """Whether a service starts after the store is mounted, and whether it starts without it."""

    waits: bool
    requires: bool


@dataclass(frozen=True, kw_only=True)
class BootOrder:
    """How the store comes back after a boot.

    ``mounted_by`` names /etc/fstab or the mount unit, '' where nothing mounts it. ``requires`` are
    the units without which it is not mounted. ``services`` are the services that read or start
    guests and are installed here.
    """

    mounted_by: str
    requires: frozenset[str]
    services: Mapping[str, ServiceOrder]


@dataclass(frozen=True, kw_only=True)
class StoreFacts:
    """What lies at libvirt's memory backing directory, and below it.

    ``io_error`` is what the file system answered, '' where it works. ``file_system_errors`` is
    ext4's count, None where the file system keeps none. ``write_errors`` is None where no guest's
    memory is written by way of a file system, as on a tmpfs. ``path`` ends with the memory backing
    directory. ``swaps`` are those on disks; below a tmpfs over swap ``devices`` are those of all
    swap. ``unfinished`` are the bytes that a resize which was cut off wanted, 0 where none was.
    ``earlier`` are the promises from before an upgrade, to guests that libvirt still knows.
    """

    directory: MemoryDirectory
    store: Store | NoStore
    usage: StoreUsage | Unknown
    io_error: str
    path: tuple[PathDirectory, ...] | Unknown
    memory_dir_missing: bool
    devices: tuple[Device, ...] | Unknown
    swaps: tuple[SwapUse, ...]
    boot: BootOrder | Unknown
    file_system_errors: int | None
    stale: tuple[StaleDirectory, ...] | Unknown
    earlier: tuple[EarlierPromise, ...] | Unknown = ()
    write_errors: WriteErrors | Unknown | None = None
    unfinished: int = 0


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One host at one moment.

    ``kvm`` says why /dev/kvm cannot be used, '' where it can. ``qemu_conf_problem`` says why
    qemu.conf could not be read (``store`` then tells of libvirt's default directory), '' where it
    could. ``qemu_conf_changed`` and ``nova_changed`` are modification times; where there is no such
    file, the former is None and the latter lacks it. ``daemon`` reads qemu.conf, ``nova_compute``
    reads nova.conf; each is None where it does not run. ``sysctls`` are those of ``vm.``.
    ``slices`` hold the services (cgroup v2), ``machine_slice`` holds the guests, None where libvirt
    made none. ``placement`` is an error where Placement does not serve, None where it is not used.
    ``root``: it was root who looked.
    """

    config: Config | BadConfig
    hypervisor: LibvirtHost | Unknown
    kernel: Version | Unknown
    kvm: str | Unknown
    processes: tuple[Process, ...] | Unknown
    daemon: Process | Unknown | None
    nova_compute: Process | Unknown | None
    qemu_conf_problem: str
    qemu_conf_changed: float | Unknown | None
    nova_changed: Mapping[str, float]
    qemu_user: Account | Unknown
    store: StoreFacts | Unknown
    sysctls: Mapping[str, int | Unknown]
    slices: tuple[Slice, ...] | Unknown
    machine_slice: Slice | Unknown | None
    meminfo: Mapping[str, int] | Unknown
    oom_kills: int | Unknown
    hook: HookStatus | Unknown
    guests: tuple[GuestFacts, ...] | Unknown
    odd_guests: tuple[OddGuest, ...] = ()
    placement: Comparison | RamshelfError | None = None
    numa: HostNuma | Unknown = field(default_factory=HostNuma)
    root: bool = False
