"""What is known of a host: single facts, gathered elsewhere.

A fact that could not be had is Unknown with the reason, never a default. Sizes are in bytes, times
in seconds since the epoch.
"""

import dataclasses

from ramshelf.core.record import dataclass
from ramshelf.core.requirements import Version


@dataclasses.dataclass(frozen=True)
class Unknown:
    """The reason why a fact could not be had: half a sentence, such as ``permission denied``.

    ``denied`` says that only permission was missing, which says nothing about the host.
    """

    reason: str
    denied: bool = False


@dataclass(frozen=True, kw_only=True)
class LibvirtHost:
    """libvirt as it answers at ``uri``, and the QEMU that it would run.

    ``security_models`` are its security drivers, such as ``apparmor`` and ``dac``; None where it
    does not tell.
    """

    uri: str
    libvirt: Version
    qemu: Version | Unknown
    security_models: tuple[str, ...] | None = None


LIBVIRT_DAEMONS = ("libvirtd", "virtqemud")
"""The daemons that call hooks and run guests.

A host has one of the two: virtqemud where libvirt is modular.
"""


SERVICE_USERS = {
    **dict.fromkeys(LIBVIRT_DAEMONS, "root"),
    "nova-compute": "nova",
    "systemd-oomd": "systemd-oom",
}
"""The services that are looked for among the processes, each with the user it may run as.

Any of them may run as root, too.
"""


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process of this host, by /proc.

    ``name`` is for people to read: any user can name a process anything, so nothing follows from
    it. ``uid`` is the real one. ``service`` is one of ``SERVICE_USERS``, where the process's owner
    proves it, else ''. ``argv`` is empty for what is not called as QEMU is. ``anonymous`` is
    RssAnon, ``swapped`` VmSwap, which leaves shared memory out, and ``page_tables`` VmPTE.
    """

    pid: int
    uid: int
    name: str
    service: str = ""
    argv: tuple[str, ...]
    started: float
    anonymous: int
    swapped: int
    page_tables: int
    oom_score_adj: int

    @property
    def qemu(self) -> bool:
        """Whether the process is called as QEMU is.

        Only its owner and libvirt can tell whether it runs a guest.
        """
        return self.name.startswith(("qemu-system", "qemu-kvm"))


@dataclass(frozen=True, kw_only=True)
class Account:
    """The user and group that QEMU runs as."""

    user: str
    uid: int
    gids: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class Device:
    """A block device, or the file behind a loop device or a swap file, somewhere below the store.

    ``network`` names the transport (``nbd``, ``iSCSI``), '' for a local device. ``thin`` says in
    words why space on it is not guaranteed, '' where it is. ``direct_io`` is None for what is no
    loop device. ``errors`` of ``commands`` failed (SCSI's ioerr_cnt and iodone_cnt); both are None
    where the driver counts none.
    """

    name: str
    rotational: bool
    network: str = ""
    thin: str | Unknown = ""
    in_ram: bool = False
    direct_io: bool | None = None
    errors: int | None = None
    commands: int | None = None


@dataclass(frozen=True, kw_only=True)
class SwapUse:
    """An active swap area.

    ``at_boot`` says that fstab or a unit activates it; ``units`` are systemd's names for it.
    """

    path: str
    size: int
    units: frozenset[str]
    at_boot: bool


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A top-level control group and its limits, each None where there is none."""

    name: str
    memory_max: int | None
    swap_max: int | None
