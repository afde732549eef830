"""What the store's planner is given: the operator's wish, and the host as it was seen.

Sizes are in bytes.
"""

import re
from collections.abc import Mapping
from dataclasses import field

from ramshelf.core.errors import UsageError
from ramshelf.core.files.mounts import Mount
from ramshelf.core.files.qemuconf import MemoryDirectory
from ramshelf.core.host import Device
from ramshelf.core.record import dataclass, replace
from ramshelf.core.store.find import DISK_FILE_SYSTEMS
from ramshelf.core.store.kind import Kind
from ramshelf.core.units import MIB

_PATH = re.compile(r"/[A-Za-z0-9/._+@:-]*[A-Za-z0-9._+@:-]")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The store that is asked for.

    ``size`` None means all of the device. ``file_system`` is None for tmpfs kinds. ``wipe`` names
    the device again whose content may be lost. ``directory`` is a memory backing directory other
    than libvirt's, ``tmpfs_size`` a size beyond the swap.
    """

    kind: Kind
    size: int | None = None
    device: str | None = None
    file: str | None = None
    file_system: str | None = None
    wipe: str | None = None
    directory: str | None = None
    tmpfs_size: int | None = None


def checked(spec: Spec) -> Spec:
    """Return the wish with its defaults filled in and its sizes cut to whole MiB.

    Raises UsageError ``store.usage`` or ``store.path`` where it makes no sense.
    """
    if complaint := _complaint(spec):
        sentence, hint = complaint
        raise UsageError("store.usage", sentence, hint=hint)
    for path in (spec.device, spec.file, spec.wipe, spec.directory):
        if path is not None:
            _check_path(path)
    return replace(
        spec,
        size=spec.size and spec.size // MIB * MIB,
        tmpfs_size=spec.tmpfs_size and spec.tmpfs_size // MIB * MIB,
        file_system=None if spec.kind.tmpfs else spec.file_system or DISK_FILE_SYSTEMS[0],
    )


def _complaint(spec: Spec) -> tuple[str, str] | None:
    """Return a sentence about options that do not go together, and a hint."""
    kind = spec.kind.value
    area = "--device" if spec.kind.dax else "--device or --file"
    named = "--device" if spec.device else "--file"
    rules = (
        (
            spec.kind.bare and bool(spec.device or spec.file),
            f"A store of kind ram lies in RAM: it has no use for {named}.",
            f"Leave {named} away, or choose --kind swap, which uses it when RAM is full.",
        ),
        (
            spec.kind.dax and spec.file is not None,
            "A store of kind dax needs a device, not a file.",
            "Name a persistent memory device: --device /dev/pmem0.",
        ),
        (
            spec.device is not None and spec.file is not None,
            f"A store of kind {kind} lies on a device or in a file, not on both.",
            "Give --device or --file.",
        ),
        (
            not spec.kind.bare and spec.device is None and spec.file is None,
            f"A store of kind {kind} needs {area}.",
            "Such as --device /dev/pmem0."
            if spec.kind.dax
            else "Such as --device /dev/nvme1n1, or --size 64G --file /srv/ramshelf.img.",
        ),
        (
            spec.size is None and spec.device is None,
            f"A store {'in a file' if spec.file else 'of kind ram'} needs --size.",
            "Say how large it is to be: --size 64G.",
        ),
        (
            spec.kind.tmpfs and spec.file_system is not None,
            f"A store of kind {kind} is a tmpfs: --fs is for kinds disk and dax.",
            "Leave --fs away.",
        ),
        (
            spec.wipe is not None and spec.wipe != spec.device,
            "--wipe has to name the device again, exactly as --device does.",
            f"Write --wipe {spec.device}." if spec.device else "It is for --device.",
        ),
        (
            spec.tmpfs_size is not None and not spec.kind.swaps,
            f"--tmpfs-size is for kind swap, not for kind {kind}.",
            "Leave it away: --size says how large the store is.",
        ),
        (
            spec.tmpfs_size is not None and spec.size is not None and spec.tmpfs_size <= spec.size,
            "--tmpfs-size is for a store larger than its swap, which --size gives.",
            "Leave it away: the store is as large as its swap then.",
        ),
    )
    return next(((sentence, hint) for broken, sentence, hint in rules if broken), None)


def is_plain(path: str) -> bool:
    """Tell whether an absolute path can stand anywhere without quoting."""
    return bool(_PATH.fullmatch(path)) and not {"", ".", ".."} & set(path.split("/")[1:])


def _check_path(path: str) -> None:
    """Raise UsageError ``store.path`` unless the path can stand anywhere without quoting.

    Paths go into fstab, units and qemu.conf, each of which has its own quoting.
    """
    if is_plain(path):
        return
    raise UsageError(
        "store.path",
        f"The path {path!r} cannot be used.",
        hint="Give an absolute path of letters, digits and . _ + @ : - without '..' or '//'.",
        facts={"path": path},
    )


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What wipefs(8) finds on a device: a file system, swap, RAID member or partition table.

    ``complete`` is False for a file system whose making was interrupted.
    """

    type: str
    uuid: str = ""
    complete: bool = True


@dataclass(frozen=True, kw_only=True)
class BlockDevice:
    """A block device of the host.

    ``path`` is its name below /dev, ``number`` its major and minor number. ``users`` says in words
    what uses it or a partition of it. ``below`` are all the devices that it lies on, itself first.
    """

    path: str
    number: tuple[int, int]
    size: int
    read_only: bool = False
    dax: bool = False
    users: tuple[str, ...] = ()
    signatures: tuple[Signature, ...] = ()
    below: tuple[Device, ...] = ()

    @property
    def loop(self) -> bool:
        """Whether it is a loop device."""
        return self.path.startswith("/dev/loop")


@dataclass(frozen=True, kw_only=True)
class AreaFile:
    """The file that is to hold the store, or the place for it.

    ``file_system`` is what its directory lies on, '' where there is no such directory. ``free`` is
    the room there for a file that root owns. ``loop`` is the loop device that the file is attached
    to; ``signatures`` are those that this device shows. ``other`` says in words what lies at the
    path where that is no file.
    """

    path: str
    exists: bool
    other: str = ""
    size: int = 0
    allocated: int = 0
    file_system: str = ""
    file_system_size: int = 0
    free: int = 0
    loop: BlockDevice | None = None
    signatures: tuple[Signature, ...] = ()
    below: tuple[Device, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Directory:
    """A directory's owner and mode, and what lies below it.

    ``foreign`` is what lies below it that is no part of the way to guest memory.
    """

    uid: int
    gid: int
    mode: int
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The host, as far as it matters to a store.

    ``files`` holds the text of those files that ramshelf may write. ``directories`` holds those
    that are there of the mount point, its parent, the memory directory and its parents below the
    mount point, and drop-in directories. ``swaps`` are the active areas' paths. ``owner`` is QEMU's
    (uid, gid). ``guests`` are running with memory in files. ``area`` is the device or file that the
    wish names, or None where there is no such thing or it is no block device; ``area_problem`` then
    says which. ``links`` are those of the paths in the wish, and of the mount point, that lead
    through a symbolic link. ``size`` is what the mounted store's file system has, 0 where there is
    none. ``further`` are the swap files beside the first, and the next to be added, by their path.
    ``python`` is the interpreter that runs ramshelf here.
    ``root_context`` is the SELinux context for the store's root, '' without SELinux.
    """

    root: bool = True
    python: str = "/usr/bin/python3"
    machine_id: str = ""
    missing_tools: frozenset[str] = frozenset()
    systemd: bool = False
    root_context: str = ""
    page_size: int = 4096
    memory: int = 0
    host_reserved: int = 0
    directory: MemoryDirectory
    owner: tuple[int, int] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    directories: Mapping[str, Directory] = field(default_factory=dict)
    sysctls: Mapping[str, int] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    swaps: tuple[str, ...] = ()
    guests: tuple[str, ...] = ()
    area: BlockDevice | AreaFile | None = None
    area_problem: str = ""
    links: tuple[str, ...] = ()
    size: int = 0
    further: Mapping[str, AreaFile] = field(default_factory=dict)

    def mounted_at(self, path: str) -> Mount | None:
        """Return the topmost mount at exactly this path."""
        return next((mount for mount in reversed(self.mounts) if mount.mount_point == path), None)
