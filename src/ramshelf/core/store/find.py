"""The store: the one mounted file system that holds guest memory, and how to recognise it."""

from __future__ import annotations

from ramshelf.core.files.fstab import KIND_OPTION, Entry
from ramshelf.core.files.mounts import Mount, covering, is_below, normal, shown
from ramshelf.core.record import dataclass, replace
from ramshelf.core.store.kind import Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_SYSTEMS_OWN = frozenset({"/", "/var", "/var/lib", "/var/lib/libvirt"})
"""The mount points of file systems that are more than a store."""

DISK_FILE_SYSTEMS = ("ext4", "xfs")
BEYOND_SWAP_OPTION = "x-ramshelf.beyond-swap"
"""The fstab mark of a ``swap`` store that the operator made larger than its swap on purpose."""

NO_SWAP = "noswap"
"""The option of tmpfs that keeps all of it in RAM (Linux 6.4, shmem_show_options).

Remounting cannot take it away.
"""


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store that is mounted; ``marked`` says that its fstab entry is ramshelf's own."""

    kind: Kind
    mount: Mount
    memory_dir: str
    marked: bool
    beyond_swap: bool = False

    @property
    def mount_point(self) -> str:
        """The path at which the store is mounted."""
        return self.mount.mount_point


@dataclass(frozen=True, kw_only=True)
class NoStore:
    """The reason why the memory backing directory does not lie on a store.

    ``code`` is one of ``store.not-mounted`` (fstab names a mount that is not there, or another file
    system or device is in its place, or a tmpfs that cannot swap), ``store.root-file-system`` (a
    plain directory of a file system that is not a store), ``store.unsupported`` (mounted, but a
    file system that cannot be a store), ``store.symbolic-link`` (behind a link that is not
    followed).
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
    """Return the store at ``memory_dir`` by the mount table, or why there is none.

    The mount is compared with what fstab expects there. ``devices`` gives the major and minor
    number of the block devices that fstab names, by its first field, as far as they are there.
    """
    mount = covering(mounts, memory_dir)
    expected = _expected(fstab, memory_dir, mount)
    if expected is not None and not (mount is not None and _is(mount, expected, mounts, devices)):
        return NoStore(
            code="store.not-mounted",
            sentence=f"The store at {expected.mount_point} is not mounted.",
            hint=(
                f"Mount it: mount {expected.mount_point}. Until then guests are not started there."
            ),
            mount=mount,
            expected=expected,
        )
    if mount is None or _is_systems_own(mount, mounts):
        return NoStore(
            code="store.root-file-system",
            sentence=(
                f"{memory_dir} is a plain directory of the system's own file system, not a store."
            ),
            hint="Make a store: ramshelf store create --help.",
            mount=mount,
        )
    marks = _marking(fstab, expected, mounts)
    kind = _kind(mount, marks, swap_active=swap_active)
    if kind is not None and kind.swaps and NO_SWAP in mount.super_options:
        return NoStore(
            code="store.not-mounted",
            sentence=(
                f"The tmpfs at {mount.mount_point} is mounted with noswap, but fstab has kind swap."
            ),
            hint=(
                f"Mount it again without noswap: umount {mount.mount_point} and mount "
                f"{mount.mount_point}."
            ),
            mount=mount,
            expected=expected,
        )
    if kind is None:
        return NoStore(
            code="store.unsupported",
            sentence=f"{mount.mount_point} is {mount.fstype}, which cannot be a store.",
            hint=(
                "btrfs writes guest memory back when a guest ends; use tmpfs over swap, xfs or "
                "ext4."
            ),
            mount=mount,
            expected=expected,
        )
    marked = marks is not None and marks.option(KIND_OPTION) is not None
    return Store(
        kind=kind,
        mount=mount,
        memory_dir=memory_dir,
        marked=marked,
        # The size of a tmpfs that ramshelf did not make is its operator's own choice.
        beyond_swap=not marked
        or (marks is not None and marks.option(BEYOND_SWAP_OPTION) is not None),
    )


def not_followed(link: str, instead: NoStore) -> NoStore:
    """Return what to say of a directory behind a link that others than root could have made.

    Such a symbolic link is not followed.
    """
    return replace(
        instead,
        code="store.symbolic-link",
        sentence=(
            f"{link} is a symbolic link where others than root can make one, and is not followed."
        ),
        hint=(
            "Make it a directory and mount the store there, or have memory_backing_dir in qemu.conf"
            " name what the link leads to."
        ),
    )


def _is(
    mount: Mount,
    expected: Entry,
    mounts: tuple[Mount, ...],
    devices: Mapping[str, tuple[int, int]],
) -> bool:
    """Tell whether the mount is the one that fstab means, by place, file system and device.

    The device counts where it is known. A bind mount is the one where it shows the very directory
    that fstab names, as that lies there now: not a directory of the file system below, which it
    shows if it was made before something was mounted there.
    """
    if mount.mount_point != expected.mount_point:
        return False
    if expected.bind:
        return shown(mounts, normal(expected.spec)) == (mount.device, mount.root)
    return (
        bool({mount.fstype, "auto"} & {*expected.fstype.split(",")})
        and devices.get(expected.spec, mount.device) == mount.device
    )


def _is_systems_own(mount: Mount, mounts: tuple[Mount, ...]) -> bool:
    """Tell whether this is the system's own file system, or shows a directory of it elsewhere."""
    return mount.mount_point in _SYSTEMS_OWN or any(
        other.device == mount.device
        and (other.mount_point == "/" or (other.mount_point in _SYSTEMS_OWN and other.root == "/"))
        for other in mounts
    )


def _expected(fstab: tuple[Entry, ...], memory_dir: str, mount: Mount | None) -> Entry | None:
    """Return the fstab entry of the store: the deepest above the directory.

    An entry that is not marked as ramshelf's says nothing of what is mounted below it, as by a
    mount unit.
    """
    candidates = [
        entry
        for entry in fstab
        if is_below(memory_dir, entry.mount_point)
        and (
            entry.option(KIND_OPTION) is not None
            or not (entry.mount_point in _SYSTEMS_OWN or _lies_above(entry.mount_point, mount))
        )
    ]
    return max(candidates, key=lambda entry: len(entry.mount_point), default=None)


def _lies_above(path: str, mount: Mount | None) -> bool:
    return mount is not None and mount.mount_point != path and is_below(mount.mount_point, path)


def _marking(
    fstab: tuple[Entry, ...], expected: Entry | None, mounts: tuple[Mount, ...]
) -> Entry | None:
    """Return the entry whose marks say how the store is built.

    For a bind mount that is the entry of the file system of which it shows a part.
    """
    if expected is None or not expected.bind or expected.option(KIND_OPTION) is not None:
        return expected
    source = covering(mounts, normal(expected.spec))
    place = source.mount_point if source is not None else ""
    return next(
        (entry for entry in fstab if entry.mount_point == place and not entry.bind), expected
    )


def _kind(mount: Mount, marks: Entry | None, *, swap_active: bool) -> Kind | None:
    if mount.fstype == "tmpfs":
        mark = marks.option(KIND_OPTION) if marks is not None else None
        if mark in {"swap", "ram"}:
            return Kind(mark)
        return Kind.SWAP if swap_active and NO_SWAP not in mount.super_options else Kind.RAM
    if mount.fstype in DISK_FILE_SYSTEMS:
        dax = {"dax", "dax=always"} & {*mount.options, *mount.super_options}
        return Kind.DAX if dax else Kind.DISK
    return None
