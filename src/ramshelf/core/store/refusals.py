"""Why a store cannot be made: every refusal, before anything is changed; and what to warn of."""

from collections.abc import Iterator

from ramshelf.core.errors import HostError, RamshelfError, RefusedError
from ramshelf.core.files.mounts import Mount
from ramshelf.core.files.qemuconf import (
    Value,
    memory_directory,
    parse_qemu_conf,
    set_memory_directory,
)
from ramshelf.core.host import Device, Unknown
from ramshelf.core.store.facts import AreaFile, BlockDevice, Seen, Spec, is_plain
from ramshelf.core.store.layout import QEMU_CONF, Layout, MadeStore, memory_directory_for, signed
from ramshelf.core.units import GIB, MIB, format_size, to_mib

_SMALLEST = {"ext4": 64 * MIB, "xfs": 300 * MIB}
"""The smallest size of each file system; mkfs.xfs refuses less than 300 MiB since xfsprogs 5.19."""
_SMALLEST_TMPFS = 64 * MIB
_FILE_SYSTEMS_FOR_SWAP = ("ext4", "xfs", "btrfs")
_FILE_SYSTEMS_FOR_LOOP = ("ext4", "xfs")


def refusals(
    spec: Spec, seen: Seen, layout: Layout, claim: MadeStore | None
) -> tuple[RamshelfError, ...]:
    """Return every reason not to make this store; those that hide others stand alone."""
    if not seen.root:
        return (
            HostError("store.needs-root", "Only root can make a store.", hint="Run it with sudo."),
        )
    if claim and claim.entries != layout.entries:
        return (_exists(claim, layout),)
    return (*_host(spec, seen), *_place(seen, layout, claim), *_area(spec, seen, layout, claim))


def _exists(claim: MadeStore, layout: Layout) -> RamshelfError:
    return RefusedError(
        "store.exists",
        f"There is a store of kind {claim.kind.value} at {claim.mount_point} already, with other "
        "parameters.",
        hint=(
            "To make it larger: ramshelf store resize. For anything else remove it first: ramshelf "
            "store remove. 'ramshelf store show' tells what it is."
        ),
        facts={
            "present": [entry.line().strip() for entry in claim.entries],
            "wanted": [entry.line().strip() for entry in layout.entries],
        },
    )


def _host(spec: Spec, seen: Seen) -> Iterator[RamshelfError]:
    parent = memory_directory_for(spec, seen).configured.rpartition("/")[0] or "/"
    if parent not in seen.directories:
        yield HostError(
            "store.parent-missing",
            f"{parent}, in which the store would be mounted, is not a directory.",
            hint=(
                "Install libvirt's QEMU driver (libvirt-daemon-system, libvirt-daemon-driver-qemu),"
                " or name another place with --directory."
            ),
        )
    if not is_plain(place := memory_directory_for(spec, seen).configured):
        yield RefusedError(
            "store.path",
            f"{QEMU_CONF} has memory_backing_dir = {place!r}, which cannot be used.",
            hint="Name a place with --directory, of letters, digits and . _ + @ : - alone.",
            facts={"path": place},
        )
    for path in seen.links:
        yield RefusedError(
            "store.symbolic-link",
            f"{path} leads through a symbolic link, which the mount table does not know.",
            hint="Name the real place: --file or --directory with the path that 'realpath' prints.",
            facts={"path": path},
        )
    if seen.owner is None:
        yield HostError(
            "store.no-qemu-user",
            "The user that libvirt runs QEMU as does not exist.",
            hint="Install libvirt's QEMU driver, or set user and group in qemu.conf.",
        )
    if missing := seen.missing_tools & _tools(spec):
        yield HostError(
            "store.tool-missing",
            f"The store needs programs that are not installed: {', '.join(sorted(missing))}.",
            hint="Packages: util-linux, e2fsprogs, xfsprogs, mount.",
        )


def _tools(spec: Spec) -> frozenset[str]:
    tools = {"mount", "wipefs"}
    if spec.kind.swaps:
        tools |= {"mkswap", "swapon"}
    if spec.file_system:
        tools |= {f"mkfs.{spec.file_system}"}
    if spec.file_system and spec.file:
        tools |= {"losetup", "fallocate"}
    return frozenset(tools)


def _place(seen: Seen, layout: Layout, claim: MadeStore | None) -> Iterator[RamshelfError]:
    """Yield what speaks against the place where the store is to be mounted."""
    mount = seen.mounted_at(layout.mount_point)
    mounted = store_mount(seen, claim) is not None
    if mount is not None and not mounted:
        yield RefusedError(
            "store.mount-point-busy",
            f"{mount.source} ({mount.fstype}) is mounted at {layout.mount_point}; ramshelf did not "
            "make it.",
            hint=(
                "Unmount it and take it out of /etc/fstab, or use it as it is: ramshelf doctor "
                "checks it."
            ),
        )
    there = seen.directories.get(layout.mount_point)
    if mount is None and there is not None and there.foreign:
        yield RefusedError(
            "store.mount-point-not-empty",
            f"{layout.mount_point} is not empty: {', '.join(there.foreign[:3])}; "
            "the store would hide what is there.",
            hint="Stop the guests whose memory it is, or remove what they left.",
            facts={"entries": list(there.foreign)},
        )
    moved = layout.mount_point != seen.directory.configured
    if moved and memory_directory(_changed_conf(seen, layout)).configured != layout.mount_point:
        yield RefusedError(
            "store.qemu-conf",
            "qemu.conf sets memory_backing_dir in a way that ramshelf cannot edit.",
            hint="Put it on a line of its own, or set it yourself and restart libvirtd.",
        )
    if seen.guests and (moved or not mounted):
        yield RefusedError(
            "store.guests-running",
            f"Guests run with memory in files: {', '.join(seen.guests)}.",
            hint="Stop them first; their memory cannot move to the store while they run.",
            facts={"guests": list(seen.guests)},
        )


def _changed_conf(seen: Seen, layout: Layout) -> dict[str, Value]:
    return parse_qemu_conf(
        set_memory_directory(seen.files.get(QEMU_CONF, ""), layout.mount_point), QEMU_CONF
    )


def store_mount(seen: Seen, claim: MadeStore | None) -> Mount | None:
    """Return the store's own mount; None where it is not mounted."""
    mount = seen.mounted_at(claim.mount_point) if claim else None
    if mount is None or claim is None or mount.fstype != claim.file_system:
        return None
    if mount.fstype == "tmpfs":
        return mount
    device = seen.area.loop if isinstance(seen.area, AreaFile) else seen.area
    return mount if device is not None and device.number == mount.device else None


def _area(
    spec: Spec, seen: Seen, layout: Layout, claim: MadeStore | None
) -> Iterator[RamshelfError]:
    """Yield what speaks against the device, file or RAM that the store is to lie on."""
    if seen.area_problem:
        yield RefusedError(
            "store.not-a-block-device",
            f"{spec.device} {seen.area_problem}.",
            hint="lsblk lists the block devices of this host.",
            facts={"device": spec.device},
        )
        return
    smallest = _SMALLEST[spec.file_system] if spec.file_system else _SMALLEST_TMPFS
    if layout.size < smallest:
        yield RefusedError(
            "store.too-small",
            f"{format_size(layout.size)} is too small for a store of kind {spec.kind.value}: "
            f"it takes at least {format_size(smallest)}.",
        )
    if isinstance(seen.area, BlockDevice):
        yield from _device(spec, seen.area, layout)
    elif isinstance(seen.area, AreaFile):
        yield from _file(spec, seen.area, layout, claim)
    else:
        yield from exceeds_memory(seen, layout.size)


def _device(spec: Spec, device: BlockDevice, layout: Layout) -> Iterator[RamshelfError]:
    facts = {"device": device.path}
    own = signed(device, layout.uuid)
    if device.users and not own:
        yield RefusedError(
            "store.device-in-use",
            f"{device.path} {device.users[0]}.",
            hint="Name a device that nothing uses.",
            facts={**facts, "users": list(device.users)},
        )
    if device.signatures and not own and not _remade(device, layout.uuid) and spec.wipe is None:
        found = ", ".join(dict.fromkeys(signature.type for signature in device.signatures))
        yield RefusedError(
            "store.device-not-empty",
            f"{device.path} carries data: {found}.",
            hint=f"If all of it may be lost, name the device again: --wipe {spec.device}",
            facts={**facts, "signatures": [signature.type for signature in device.signatures]},
        )
    if device.read_only:
        yield RefusedError("store.device-read-only", f"{device.path} is read-only.", facts=facts)
    if device.size < layout.size:
        yield too_small(device, layout.size)
    if spec.kind.dax and not device.dax:
        yield RefusedError(
            "store.no-dax",
            f"{device.path} has no direct access (DAX): it is not persistent memory.",
            hint="Use --kind swap or --kind disk.",
            facts=facts,
        )
    yield from thin(device.path, device.below)


def too_small(device: BlockDevice, size: int, *, hint: str = "") -> RamshelfError:
    """Return the refusal of a device that has fewer bytes than the store is to have."""
    return RefusedError(
        "store.device-too-small",
        f"{device.path} has {format_size(device.size)}, not the {format_size(size)} asked for.",
        hint=hint,
        facts={
            "device": device.path,
            "device_mib": to_mib(device.size),
            "size_mib": to_mib(size),
        },
    )


def _remade(device: BlockDevice, identity: str) -> bool:
    """Tell whether all that the device carries is our own work, interrupted."""
    return all(signature.uuid == identity for signature in device.signatures)


def thin(path: str, below: tuple[Device, ...]) -> Iterator[RamshelfError]:
    """Yield a refusal where a device below is thin or in RAM.

    A thin device that fills up loses guest memory without an error.
    """
    for device in below:
        reason = device.thin
        if isinstance(reason, Unknown):
            reason = f"perhaps thin ({reason.reason})"
        if device.in_ram:
            reason = reason or "in RAM"
        if reason:
            name = path if path == f"/dev/{device.name}" else f"{path} lies on {device.name}, which"
            yield RefusedError(
                "store.thin",
                f"{name} is {reason}: guest memory there would be lost when it fills up.",
                hint="Use a fully allocated partition, volume or file on a disk.",
                facts={"device": device.name},
            )
            return


def _file(
    spec: Spec, file: AreaFile, layout: Layout, claim: MadeStore | None
) -> Iterator[RamshelfError]:
    facts = {"file": file.path}
    if file.other:
        yield _not_a_file(spec, file)
        return
    if file.exists and claim is None:
        yield RefusedError(
            "store.file-exists",
            f"{file.path} exists already.",
            hint="ramshelf makes the file itself: name another, or remove this one.",
            facts=facts,
        )
        return
    if not file.file_system:
        yield RefusedError(
            "store.file-directory-missing",
            f"The directory of {file.path} does not exist.",
            hint="Make it first.",
            facts=facts,
        )
        return
    good = _FILE_SYSTEMS_FOR_SWAP if spec.kind.swaps else _FILE_SYSTEMS_FOR_LOOP
    if file.file_system not in good:
        yield RefusedError(
            "store.file-system",
            f"{file.path} would lie on {file.file_system}; a file for a store of kind "
            f"{spec.kind.value} needs {' or '.join(good)}.",
            hint="Other file systems do not keep the blocks of a file allocated.",
            facts={**facts, "file_system": file.file_system},
        )
    yield from no_room(file, layout.size, hint="Name a smaller --size or another --file.")
    yield from thin(file.path, file.below)


def no_room(file: AreaFile, size: int, *, hint: str) -> Iterator[RamshelfError]:
    """Yield a refusal where the file's file system has no room for a file of ``size`` bytes.

    A twentieth of it, at most 1 GiB, is left free.
    """
    spare = min(GIB, file.file_system_size // 20)
    more = size - file.allocated
    if more > 0 and more + spare > file.free:
        yield RefusedError(
            "store.no-room",
            f"The file system of {file.path} has {format_size(file.free)} free; "
            f"{format_size(more)} and {format_size(spare)} to spare are needed.",
            hint=hint,
            facts={
                "file": file.path,
                "free_mib": to_mib(file.free),
                "missing_mib": to_mib(more + spare - file.free),
            },
        )


def _not_a_file(spec: Spec, file: AreaFile) -> RamshelfError:
    hint = "Name a file that is not there yet."
    if file.other == "a directory":
        hint = (
            f"Name a file in it: --file {file.path}/ramshelf.{'swap' if spec.kind.swaps else 'img'}"
        )
    if file.other == "a block device":
        hint = f"Name it as a device: --device {file.path}"
    return RefusedError(
        "store.not-a-file",
        f"{file.path} is {file.other}; --file makes a file.",
        hint=hint,
        facts={"file": file.path},
    )


def exceeds_memory(seen: Seen, size: int) -> Iterator[RamshelfError]:
    """Yield a refusal where a store of kind ram is to have more than the host can spare."""
    most = max(0, seen.memory - seen.host_reserved)
    if size > most:
        yield RefusedError(
            "store.exceeds-memory",
            f"{format_size(size)} is more than this host's RAM without what the host itself "
            f"needs: {format_size(most)}.",
            hint=(
                "Use --kind swap for more guest memory than RAM; "
                "[ramshelf] host_reserved_memory_mb says what the host needs."
            ),
            facts={
                "memory_mib": to_mib(seen.memory),
                "host_reserved_mib": to_mib(seen.host_reserved),
            },
        )


def warnings(spec: Spec, seen: Seen, layout: Layout) -> tuple[str, ...]:
    """Return what the operator should know although it is done as asked."""
    said = []
    for device in seen.area.below if seen.area else ():
        if device.network:
            said.append(
                f"{device.name} is reached over the network ({device.network}): guests wait for it."
            )
        elif device.rotational:
            said.append(
                f"{device.name} is a rotating disk: a store works best with very fast block "
                "devices."
            )
    if isinstance(seen.area, BlockDevice) and seen.area.loop:
        said.append(
            f"{seen.area.path} is a loop device, which nothing attaches after a reboot: --file does"
            " that."
        )
    if spec.tmpfs_size:
        said.append(
            f"The store is {format_size(spec.tmpfs_size)} over {format_size(layout.size)} of swap: "
            "when guests use more than swap and free RAM hold, the kernel kills them."
        )
    return tuple(said)
