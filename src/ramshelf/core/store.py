"""The store: the one mounted file system that holds guest memory, and how to recognise it."""

from __future__ import annotations

from ramshelf.core.fstab import KIND_OPTION, Entry
from ramshelf.core.kind import Kind
from ramshelf.core.mounts import Mount, covering, is_below
from ramshelf.core.record import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DISK_FILE_SYSTEMS = ("ext4", "xfs")
BEYOND_SWAP_OPTION = "x-ramshelf.beyond-swap"
"""fstab mark of a ``swap`` store that the operator made larger than its swap on purpose."""

NO_SWAP = "noswap"
"""tmpfs' option that keeps all of it in RAM (Linux 6.4, shmem_show_options); it cannot be remounted away."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store that is mounted. ``marked``: its fstab entry is ramshelf's own."""

    kind: Kind
    mount: Mount
    memory_dir: str
    marked: bool
    beyond_swap: bool = False

    @property
    def mount_point(self) -> str:
        """Where it is mounted."""
        return self.mount.mount_point


@dataclass(frozen=True, kw_only=True)
class NoStore:
    """Why the memory backing directory does not lie on a store.

    ``code`` is one of ``store.not-mounted`` (fstab names a mount that is not there, or another file
    system or device is in its place, or a tmpfs that cannot swap), ``store.root-file-system`` (a plain
    directory of a file system that is not a store), ``store.unsupported`` (mounted, but a file system that
    cannot be a store).
    """

    code: str
    sentence: str
    hint: str
    mount: Mount | None = None
    expected: Entry | None = None


def find_store(
    mounts: tuple[Mount, ...],
    fstab: tuple[Entry, ...],
    memory_dir: str,
    *,
    devices: Mapping[str, tuple[int, int]],
    swap_active: bool,
) -> Store | NoStore:
    """The store at ``memory_dir``, by the mount table, held against what fstab expects there.

    ``devices``: major and minor number of the block devices that fstab names, by its first field, as far as
    they are there.
    """
    mount = covering(mounts, memory_dir)
    expected = _expected(fstab, memory_dir)
    if expected is not None and not (mount is not None and _is(mount, expected, devices)):
        return NoStore(
            code="store.not-mounted",
            sentence=f"The store at {expected.mount_point} is not mounted.",
            hint=f"Mount it: mount {expected.mount_point}. Until then guests are not started there.",
            mount=mount,
            expected=expected,
        )
    if mount is None or mount.mount_point in {"/", "/var", "/var/lib", "/var/lib/libvirt"}:
        return NoStore(
            code="store.root-file-system",
            sentence=f"{memory_dir} is a plain directory of the system's own file system, not a store.",
            hint="Make a store: ramshelf store create --help.",
            mount=mount,
        )
    kind = _kind(mount, expected, swap_active=swap_active)
    if kind is Kind.SWAP and NO_SWAP in mount.super_options:
        return NoStore(
            code="store.not-mounted",
            sentence=f"The tmpfs at {mount.mount_point} is mounted with noswap, but fstab has kind swap.",
            hint=f"Mount it again without noswap: umount {mount.mount_point} and mount {mount.mount_point}.",
            mount=mount,
            expected=expected,
        )
    if kind is None:
        return NoStore(
            code="store.unsupported",
            sentence=f"{mount.mount_point} is {mount.fstype}, which cannot be a store.",
            hint="btrfs writes guest memory back when a guest ends; use tmpfs over swap, xfs or ext4.",
            mount=mount,
            expected=expected,
        )
    marked = expected is not None and expected.option(KIND_OPTION) is not None
    return Store(
        kind=kind,
        mount=mount,
        memory_dir=memory_dir,
        marked=marked,
        # The size of a tmpfs that ramshelf did not make is its operator's own choice.
        beyond_swap=not marked or (expected is not None and expected.option(BEYOND_SWAP_OPTION) is not None),
    )


def _is(mount: Mount, expected: Entry, devices: Mapping[str, tuple[int, int]]) -> bool:
    """Whether the mount is the one that fstab means: place, file system and, where known, device."""
    return (
        mount.mount_point == expected.mount_point
        and expected.fstype in {mount.fstype, "auto"}
        and devices.get(expected.spec, mount.device) == mount.device
    )


def _expected(fstab: tuple[Entry, ...], memory_dir: str) -> Entry | None:
    """The fstab entry of the store: marked as ramshelf's, else the deepest above the directory."""
    candidates = [
        entry
        for entry in fstab
        if is_below(memory_dir, entry.mount_point)
        and (
            entry.option(KIND_OPTION) is not None
            or entry.mount_point not in {"/", "/var", "/var/lib", "/var/lib/libvirt"}
        )
    ]
    return max(candidates, key=lambda entry: len(entry.mount_point), default=None)


def _kind(mount: Mount, expected: Entry | None, *, swap_active: bool) -> Kind | None:
    if mount.fstype == "tmpfs":
        mark = expected.option(KIND_OPTION) if expected is not None else None
        if mark in {"swap", "ram"}:
            return Kind(mark)
        return Kind.SWAP if swap_active and NO_SWAP not in mount.super_options else Kind.RAM
    if mount.fstype in DISK_FILE_SYSTEMS:
        dax = {"dax", "dax=always"} & {*mount.options, *mount.super_options}
        return Kind.DAX if dax else Kind.DISK
    return None
