"""What a store's parts are called, and what fstab says about the store that is there."""

import uuid

from ramshelf.core.files.fstab import AREA_OPTION, FILE_OPTION, KIND_OPTION, Entry, parse_fstab
from ramshelf.core.files.qemuconf import MemoryDirectory
from ramshelf.core.record import dataclass, replace
from ramshelf.core.store.boot import LOOP_UNIT, escape_path
from ramshelf.core.store.facts import AreaFile, BlockDevice, Seen, Spec
from ramshelf.core.store.find import BEYOND_SWAP_OPTION
from ramshelf.core.store.kind import Kind
from ramshelf.core.units import KIB, MIB, parse_size

FSTAB = "/etc/fstab"
QEMU_CONF = "/etc/libvirt/qemu.conf"

_NAMESPACE = uuid.UUID("9e6d3f0c-5b0f-4b8e-9a55-6f2d0c1f7a10")
_SWAP_PRIORITY = 100
_MADE_MOUNT_POINT = "x-mount.mkdir"


@dataclass(frozen=True, kw_only=True)
class MadeStore:
    """The store that fstab says ramshelf made.

    fstab is written first and cleared last, so that an interrupted create or remove finds what it
    began. ``uuid`` is that of the device's swap area or file system, ``file`` the swap file or the
    file on a loop device. ``further`` are the swap files that resize added. ``made_mount_point``
    says that create made the mount point. ``size`` is that of all its areas together, or of the
    tmpfs where it has none, in bytes; None where fstab does not say it.
    """

    kind: Kind
    mount_point: str
    file_system: str
    uuid: str
    file: str
    made_mount_point: bool
    size: int | None
    entries: tuple[Entry, ...]
    further: tuple[str, ...] = ()


def find_claim(fstab: str) -> MadeStore | None:
    """Return the store that this fstab says ramshelf made; None where it names none."""
    own = tuple(entry for entry in parse_fstab(fstab) if entry.own)
    store = next((entry for entry in own if entry.option(KIND_OPTION) is not None), None)
    if store is None:
        return None
    areas = [entry for entry in own if entry.option(AREA_OPTION) is not None]
    spec = areas[0].spec if areas else store.spec
    sizes = [entry.option(AREA_OPTION) for entry in areas] or [store.option("size")]
    return MadeStore(
        kind=Kind(store.option(KIND_OPTION)),
        mount_point=store.mount_point,
        file_system=store.fstype,
        uuid=spec.removeprefix("UUID=") if spec.startswith("UUID=") else "",
        file=store.option(FILE_OPTION) or (spec if spec.startswith("/") else ""),
        made_mount_point=store.option(_MADE_MOUNT_POINT) is not None,
        size=_together(sizes),
        entries=own,
        further=tuple(entry.spec for entry in areas[1:]),
    )


def _together(sizes: list[str | None]) -> int | None:
    try:
        return sum(parse_size(size or "") for size in sizes)
    except ValueError:  # a share of RAM, or none
        return None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A wish turned into names and sizes; ``size`` is that of the area, ``uuid`` its identity."""

    mount_point: str
    memory_dir: str
    explicit: bool
    size: int
    uuid: str
    entries: tuple[Entry, ...] = ()

    @property
    def directories(self) -> tuple[str, ...]:
        """The directories to make on the store, from its root down.

        libvirtd makes ``libvirt/qemu`` at its own start only, and for a guest it makes missing
        parents that QEMU's user cannot enter.
        """
        if not self.explicit:
            return ()
        return (f"{self.mount_point}/libvirt", self.memory_dir)


def memory_directory_for(spec: Spec, seen: Seen) -> MemoryDirectory:
    """Return the memory backing directory after the store is made."""
    if spec.directory is None or spec.directory == seen.directory.configured:
        return seen.directory
    return MemoryDirectory(
        configured=spec.directory, path=f"{spec.directory}/libvirt/qemu", explicit=True
    )


def area_uuid(kind: Kind, seen: Seen, path: str, size: int) -> str:
    """Return the UUID of an area at this path: the same for the same wish on the same host.

    So a dry run shows what will be done, and an interrupted create knows its own work again.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{seen.machine_id} {kind.value} {path} {size}"))


def signed(area: BlockDevice | AreaFile | None, identity: str) -> bool:
    """Tell whether the area carries the signature with this UUID, whole, and no other."""
    return (
        area is not None
        and bool(area.signatures)
        and all(signature.uuid == identity and signature.complete for signature in area.signatures)
    )


def lay_out(spec: Spec, seen: Seen, claim: MadeStore | None) -> Layout:
    """Return the names and sizes of the store that is wished for."""
    directory = memory_directory_for(spec, seen)
    size = spec.size or (seen.area.size // MIB * MIB if seen.area else 0)
    resized = claim is not None and claim.further and size == claim.size
    if claim and resized:
        size = parse_size(claim.entries[0].option(AREA_OPTION) or "")
    identity = area_uuid(spec.kind, seen, seen.area.path if seen.area else "", size)
    if claim and signed(seen.area, claim.uuid):
        identity = claim.uuid
    made = claim.made_mount_point if claim else _makes_directory(seen, directory.configured)
    marks = [f"{KIND_OPTION}={spec.kind.value}"]
    if made:
        marks.append(_MADE_MOUNT_POINT)
    if seen.root_context:  # QEMU may not use a new file system's root as it is
        marks.append(f"rootcontext={seen.root_context}")
    layout = Layout(
        mount_point=directory.configured,
        memory_dir=directory.path,
        explicit=directory.explicit,
        size=size,
        uuid=identity,
    )
    if spec.kind.tmpfs:
        entries = _tmpfs_entries(spec, seen, layout, tuple(marks))
        if claim and resized and entries == _as_created(claim, seen.page_size):
            entries = claim.entries
        return replace(layout, entries=entries)
    return replace(layout, entries=(_disk_entry(spec, layout, tuple(marks)),))


def _as_created(claim: MadeStore, page_size: int) -> tuple[Entry, ...]:
    """Return the entries that a tmpfs over swap had before resize added swap files."""
    area, *_, store = claim.entries
    added = {needed_swap(path) for path in claim.further}
    options = tuple(option for option in store.options if option not in added)
    size = parse_size(area.option(AREA_OPTION) or "") - page_size
    return (area, replace(store, options=with_size(options, size)))


def with_size(options: tuple[str, ...], size: int) -> tuple[str, ...]:
    """Return the options of a tmpfs with this size in them."""
    return tuple(
        f"size={size // KIB}k" if option.startswith("size=") else option for option in options
    )


def _makes_directory(seen: Seen, mount_point: str) -> bool:
    """Tell whether ramshelf makes the mount point, and so removes it with the store.

    libvirt's own directory stays, as libvirtd makes it when it starts.
    """
    return mount_point != seen.directory.configured and mount_point not in seen.directories


def area_mark(size: int) -> str:
    """Return the option of fstab that says how large an area is."""
    return f"{AREA_OPTION}={size // MIB}M"


def swap_entry(spec: str, size: int) -> Entry:
    """Return the entry of a swap area, a file or a UUID."""
    options = ("nofail", f"pri={_SWAP_PRIORITY}", area_mark(size))
    return Entry(spec=spec, mount_point="none", fstype="swap", options=options)


def needed_swap(path: str) -> str:
    """Return the option that keeps a tmpfs from being mounted without its swap area."""
    return f"x-systemd.requires={escape_path(path, 'swap')}"


def _tmpfs_entries(
    spec: Spec, seen: Seen, layout: Layout, marks: tuple[str, ...]
) -> tuple[Entry, ...]:
    """Return the entries of a tmpfs, preceded by the swap area below it if there is one.

    A tmpfs over swap is as large as the swap area holds, whose first page is a header, unless a
    larger size is asked for.
    """
    uid, gid = seen.owner or (0, 0)
    size = layout.size
    area: tuple[Entry, ...] = ()
    if spec.kind.swaps:
        size = spec.tmpfs_size or size - seen.page_size
        if spec.tmpfs_size:
            marks = (*marks, BEYOND_SWAP_OPTION)
        marks = (needed_swap(spec.file or f"/dev/disk/by-uuid/{layout.uuid}"), *marks)
        area = (swap_entry(spec.file or f"UUID={layout.uuid}", layout.size),)
    options = (
        f"size={size // KIB}k",
        "mode=0700",
        f"uid={uid}",
        f"gid={gid}",
        "noatime",
        "nofail",
        *marks,
    )
    return (
        *area,
        Entry(spec="ramshelf", mount_point=layout.mount_point, fstype="tmpfs", options=options),
    )


def _disk_entry(spec: Spec, layout: Layout, marks: tuple[str, ...]) -> Entry:
    options = ["noatime", "nofail"]
    if spec.kind.dax:
        options.append("dax")
    if spec.file:
        options.append(f"x-systemd.requires={LOOP_UNIT}")
        marks = (*marks, f"{FILE_OPTION}={spec.file}")
    return Entry(
        spec=f"UUID={layout.uuid}",
        mount_point=layout.mount_point,
        fstype=spec.file_system or "",
        options=(*options, *marks, area_mark(layout.size)),
    )
