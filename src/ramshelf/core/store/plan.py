"""The plans that make and remove a store.

A plan is the difference between what is wished and what is seen, so it is empty where nothing is to
be done, and goes on where an earlier one was interrupted. The entries in fstab come first and go
last: they tell which area is ours (see ``MadeStore`` in core/store/layout.py).
"""

from ramshelf.core.errors import RamshelfError, RefusedError
from ramshelf.core.files.fstab import OwnEntries, remove_own
from ramshelf.core.files.qemuconf import OwnDirectory, restore_memory_directory
from ramshelf.core.plan import (
    Action,
    AllocateFile,
    Edit,
    EditFile,
    MakeDirectory,
    RemoveDirectory,
    RemoveFile,
    Run,
    SetValue,
    WriteFile,
)
from ramshelf.core.store.boot import (
    CLEAN_UNIT_PATH,
    DAEMONS,
    LOOP_UNIT_PATH,
    SERVICES,
    SYSCTL_PATH,
    attach_command,
    clean_unit,
    drop_in,
    drop_in_path,
    loop_command,
    loop_unit,
    parse_sysctl_text,
    sysctl_text,
    sysctls,
)
from ramshelf.core.store.facts import AreaFile, BlockDevice, Seen, Spec
from ramshelf.core.store.layout import (
    FSTAB,
    QEMU_CONF,
    Layout,
    MadeStore,
    find_claim,
    lay_out,
    signed,
)
from ramshelf.core.store.refusals import refusals, store_mount
from ramshelf.core.units import KIB

DROP_INS = tuple(drop_in_path(service) for service in SERVICES)
LONG = 24 * 3600
"""Seconds for what takes as long as the device is large, or swap is full."""
_PATIENCE = 5
_LIBVIRTS_MODE = 0o711
"""The mode that libvirtd gives its memory backing directory each time it starts."""


def backup_path(path: str) -> str:
    """Return where an existing file is kept as it was before ramshelf edited it."""
    return f"{path}.ramshelf-backup"


EDITED = (FSTAB, QEMU_CONF)
WRITTEN = (
    *EDITED,
    *map(backup_path, EDITED),
    *DROP_INS,
    LOOP_UNIT_PATH,
    CLEAN_UNIT_PATH,
    SYSCTL_PATH,
)
"""The files that a store's plans read or write, besides the area."""


def plan_create(spec: Spec, seen: Seen) -> tuple[Action, ...]:
    """Return the actions that make the store; none where it is there as wished.

    Raises what ``refusals`` finds: the first error, with the others among its facts.
    """
    claim = find_claim(seen.files.get(FSTAB, ""))
    layout = lay_out(spec, seen, claim)
    refused = refusals(spec, seen, layout, claim)
    if refused:
        raise together(refused)
    mounted = store_mount(seen, claim) is not None
    settings = _boot_files(spec, seen, layout)
    return (
        *_claim(seen, layout, claim),
        *_prepare_area(spec, seen, layout),
        *settings,
        *reload(seen, needed=bool(settings) or not mounted),
        *_activate(spec, seen, layout, mounted=mounted),
        *_directories(spec, seen, layout, mounted=mounted),
        *_qemu_conf(seen, layout),
        *_apply_sysctls(spec, seen),
    )


def together(refused: tuple[RamshelfError, ...]) -> RamshelfError:
    """Return the first refusal, with the others in its hint and among its facts."""
    first, *others = refused
    if not others:
        return first
    return type(first)(
        first.code,
        first.sentence,
        hint=" ".join(filter(None, [first.hint, "Also:", *(error.sentence for error in others)])),
        facts={
            **first.facts,
            "also": [{"code": error.code, "message": error.sentence} for error in others],
        },
    )


def _edit(seen: Seen, path: str, edit: Edit, why: str) -> tuple[Action, ...]:
    """Edit a file that others edit too; first keep a copy if ramshelf has not touched it yet."""
    before = seen.files.get(path)
    action = EditFile(why=why, path=path, edit=edit, before=before)
    if action.changed(before) == before:
        return ()
    if before is None or seen.files.get(backup_path(path)) == before:
        return (action,)
    keep = Run(
        why=f"Keep a copy of {path} as it is now", argv=("cp", "--archive", path, backup_path(path))
    )
    return (keep, action)


def _claim(seen: Seen, layout: Layout, claim: MadeStore | None) -> tuple[Action, ...]:
    if claim:
        return ()
    return _edit(seen, FSTAB, OwnEntries(entries=layout.entries), "Mount the store at boot")


def _prepare_area(spec: Spec, seen: Seen, layout: Layout) -> tuple[Action, ...]:
    """Return the actions that give the area our signature and no other.

    A file that has it already is only filled up.
    """
    area = seen.area
    if area is None or area.path in seen.swaps:
        return ()
    actions: list[Action] = []
    if isinstance(area, AreaFile) and (area.size < layout.size or area.allocated < layout.size):
        actions.append(
            AllocateFile(
                why="Allocate every block of the file",
                path=area.path,
                size=layout.size,
                no_copy_on_write=area.file_system == "btrfs",
            )
        )
    if not signed(area, layout.uuid):
        path = _writable(area)
        if area.signatures:
            actions.append(_wipe(path))
        actions.append(_make(spec, area, path, layout))
    return tuple(actions)


def _wipe(path: str) -> Run:
    return Run(why="Wipe what is on it", argv=("wipefs", "--all", path), patience=_PATIENCE)


def _writable(area: BlockDevice | AreaFile) -> str:
    """Return where to write: to the loop device, where the area is a file that is attached to one.

    If the file were written past its loop device, the device's cache would go on showing what was
    there.
    """
    return area.loop.path if isinstance(area, AreaFile) and area.loop else area.path


def _make(spec: Spec, area: BlockDevice | AreaFile, path: str, layout: Layout) -> Run:
    """Return the command that makes the swap area or file system, exactly as large as asked for.

    Nothing is discarded on a file or a loop device: that would punch holes. ext4 gets few inodes
    and no reserved blocks, XFS no reflinks (DAX needs that before Linux 6.1): the store holds a few
    large files.
    """
    if spec.kind.swaps:
        return make_swap(path, layout.uuid, layout.size)
    kib = str(layout.size // KIB)
    keep = isinstance(area, AreaFile) or area.loop
    if spec.file_system == "ext4":
        extended = "lazy_itable_init=0,lazy_journal_init=0" + (",nodiscard" if keep else "")
        argv = [
            "mkfs.ext4",
            "-q",
            "-F",
            "-U",
            layout.uuid,
            "-m",
            "0",
            "-T",
            "largefile4",
            "-b",
            "4096",
        ]
        argv += ["-E", extended, path, f"{kib}k"]
    else:
        argv = ["mkfs.xfs", "-q", "-m", f"reflink=0,uuid={layout.uuid}", "-s", "size=4096"]
        argv += ["-d", f"size={layout.size}", *(["-K"] if keep else []), path]
    return Run(why="Make the file system", argv=tuple(argv), timeout=LONG)


def make_swap(path: str, identity: str, size: int) -> Run:
    """Return the command that makes a swap area with this UUID, of ``size`` bytes."""
    argv = ("mkswap", "--quiet", "--uuid", identity, path, str(size // KIB))
    return Run(why="Make the swap area", argv=argv, timeout=LONG)


def use_swap(path: str, priority: str) -> Run:
    """Return the command that switches a swap area on."""
    return Run(why="Use the swap area", argv=("swapon", "--priority", priority, path))


def _boot_files(spec: Spec, seen: Seen, layout: Layout) -> tuple[Action, ...]:
    lasting = not spec.kind.tmpfs
    wanted = {
        drop_in_path(service): drop_in(
            service, layout.mount_point, clean=lasting and service in DAEMONS
        )
        for service in SERVICES
    }
    reasons = {drop_in_path(service): f"Start {service} after the store" for service in SERVICES}
    if lasting:
        wanted[CLEAN_UNIT_PATH] = clean_unit(layout.mount_point, seen.python)
        reasons[CLEAN_UNIT_PATH] = "Remove what a power cut leaves before libvirt starts"
    if spec.file and lasting:
        wanted[LOOP_UNIT_PATH] = loop_unit(spec.file, layout.size)
        reasons[LOOP_UNIT_PATH] = "Attach the file at boot"
    settings = sysctls(spec.kind, dict(seen.sysctls))
    if settings and SYSCTL_PATH not in seen.files:
        wanted[SYSCTL_PATH] = sysctl_text(settings)
        reasons[SYSCTL_PATH] = "Set the kernel up for the store"
    return tuple(
        WriteFile(why=reasons[path], path=path, text=text, before=seen.files.get(path))
        for path, text in wanted.items()
        if seen.files.get(path) != text
    )


def reload(seen: Seen, *, needed: bool) -> tuple[Action, ...]:
    """Return what has systemd read fstab and its units again, where it runs."""
    if not (needed and seen.systemd):
        return ()
    return (Run(why="Let systemd see the changes", argv=("systemctl", "daemon-reload")),)


def _activate(spec: Spec, seen: Seen, layout: Layout, *, mounted: bool) -> tuple[Action, ...]:
    actions: list[Action] = []
    area = seen.area
    if spec.kind.swaps and area is not None and area.path not in seen.swaps:
        actions.append(use_swap(area.path, layout.entries[0].option("pri") or ""))
    if spec.file and not spec.kind.tmpfs and not (isinstance(area, AreaFile) and area.loop):
        attach = ("sh", "-c", attach_command(spec.file, layout.size))
        actions.append(Run(why="Attach the file to a loop device", argv=attach))
    if not mounted:
        if layout.mount_point not in seen.directories and seen.owner:
            uid, gid = seen.owner  # libvirtd makes it like this, too.
            actions.append(
                MakeDirectory(
                    why="Make the mount point",
                    path=layout.mount_point,
                    uid=uid,
                    gid=gid,
                    mode=0o755,
                )
            )
        actions.append(Run(why="Mount the store", argv=_mount(spec, seen, layout)))
    return tuple(actions)


def _mount(spec: Spec, seen: Seen, layout: Layout) -> tuple[str, ...]:
    """Return the command that mounts the store.

    A disk store is mounted by its device: a new UUID is not known at once, and with nofail that
    would be no error.
    """
    entry = layout.entries[-1]
    if spec.kind.tmpfs or seen.area is None:
        return ("mount", layout.mount_point)
    options = ",".join(
        option for option in entry.options if option != "nofail" and not option.startswith("x-")
    )
    command = ("mount", "--types", entry.fstype, "--options", options)
    if isinstance(seen.area, BlockDevice):
        return (*command, seen.area.path, layout.mount_point)
    device = f'"$({loop_command(seen.area.path)})"'
    return ("sh", "-c", f"{' '.join(command)} {device} {layout.mount_point}")


def _directories(spec: Spec, seen: Seen, layout: Layout, *, mounted: bool) -> tuple[Action, ...]:
    """Let only QEMU's user into the store.

    That user owns the store's root and all down to the memory directory; nobody else reads there.
    """
    if seen.owner is None:
        return ()
    uid, gid = seen.owner
    good = {(uid, gid, mode) for mode in (0o700, _LIBVIRTS_MODE)}
    root = () if spec.kind.tmpfs else (layout.mount_point,)
    actions = []
    for path in (*root, *layout.directories):
        there = seen.directories.get(path) if mounted else None
        if there is None or (there.uid, there.gid, there.mode) not in good:
            actions.append(
                MakeDirectory(
                    why="Let only QEMU's user in", path=path, uid=uid, gid=gid, mode=0o700
                )
            )
    return tuple(actions)


def _qemu_conf(seen: Seen, layout: Layout) -> tuple[Action, ...]:
    if layout.mount_point == seen.directory.configured:
        return ()
    edit = OwnDirectory(directory=layout.mount_point)
    return _edit(seen, QEMU_CONF, edit, "Make libvirt put guest memory there")


def _apply_sysctls(spec: Spec, seen: Seen) -> tuple[Action, ...]:
    """Set now what the file sets at boot; the file's own record of the values before counts."""
    text = seen.files.get(SYSCTL_PATH)
    settings = (
        parse_sysctl_text(text) if text is not None else sysctls(spec.kind, dict(seen.sysctls))
    )
    return tuple(
        SetValue(
            why=f"Set {setting.key} now",
            path=setting.path,
            value=str(setting.value),
            before=str(seen.sysctls.get(setting.key, "")),
        )
        for setting in settings
        if seen.sysctls.get(setting.key) != setting.value
    )


def plan_remove(seen: Seen) -> tuple[Action, ...]:
    """Return the actions that undo create, and nothing else; none where ramshelf made no store.

    ``seen.area`` is the claimed device or file, ``seen.guests`` those that run on the store. Raises
    RefusedError ``store.guests-running`` or ``store.mount-point-busy``.
    """
    fstab = seen.files.get(FSTAB, "")
    claim = find_claim(fstab)
    if claim:
        _may_remove(seen, claim)
    undone = (
        *(_deactivate(seen, claim) if claim else ()),
        *_undo_sysctls(seen),
        *_restore(seen, QEMU_CONF, OwnDirectory()),
        *(_remove_area(seen, claim) if claim else ()),
        *_remove_boot_files(seen, claim),
        *_restore(seen, FSTAB, OwnEntries()),
    )
    backups = _remove_backups(seen)
    return (*undone, *reload(seen, needed=bool(undone or backups)), *backups)


def _may_remove(seen: Seen, claim: MadeStore) -> None:
    if seen.guests:
        raise RefusedError(
            "store.guests-running",
            f"Guests run on the store: {', '.join(seen.guests)}.",
            hint="Stop them first.",
            facts={"guests": list(seen.guests)},
        )
    mount = seen.mounted_at(claim.mount_point)
    area = seen.area.loop if isinstance(seen.area, AreaFile) else seen.area
    if mount is not None and (
        mount.fstype != claim.file_system
        or (mount.fstype != "tmpfs" and (area is None or area.number != mount.device))
    ):
        raise RefusedError(
            "store.mount-point-busy",
            f"{mount.source} ({mount.fstype}) is mounted over the store at {claim.mount_point}.",
            hint="Unmount it first.",
        )


def _deactivate(seen: Seen, claim: MadeStore) -> tuple[Action, ...]:
    actions: list[Action] = []
    if seen.mounted_at(claim.mount_point):
        actions.append(
            Run(why="Unmount the store", argv=("umount", claim.mount_point), patience=_PATIENCE)
        )
    area = seen.area
    actions += [
        Run(why="Stop using the swap area", argv=("swapoff", path), timeout=LONG)
        for path in (*([area.path] if area is not None else []), *claim.further)
        if path in seen.swaps
    ]
    if isinstance(area, AreaFile) and area.loop:
        # A device that somebody looks at is detached late, and must not be found by its UUID until
        # then.
        actions += [_wipe(area.loop.path)] if area.signatures else []
        actions.append(Run(why="Detach the file", argv=("losetup", "--detach", area.loop.path)))
    return tuple(actions)


def _undo_sysctls(seen: Seen) -> tuple[Action, ...]:
    """Put back the value before, unless somebody has set another one since."""
    return tuple(
        SetValue(
            why=f"Put {setting.key} back",
            path=setting.path,
            value=str(setting.before),
            before=str(setting.value),
        )
        for setting in parse_sysctl_text(seen.files.get(SYSCTL_PATH, ""))
        if seen.sysctls.get(setting.key) == setting.value != setting.before
    )


def _restore(seen: Seen, path: str, edit: Edit) -> tuple[Action, ...]:
    """Take ramshelf's lines out; a file that was not there before, and would be empty, goes."""
    before, backup = seen.files.get(path), seen.files.get(backup_path(path))
    action = EditFile(
        why=f"Take ramshelf's lines out of {path}",
        path=path,
        edit=edit,
        before=before,
        original=backup,
        or_gone=backup is None,
    )
    return () if action.edit(before or "") == (before or "") else (action,)


def _remove_area(seen: Seen, claim: MadeStore) -> tuple[Action, ...]:
    actions: list[Action] = []
    area = seen.area
    if isinstance(area, AreaFile) and area.exists:
        actions.append(RemoveFile(why=f"Remove {area.path}", path=area.path))
    elif isinstance(area, BlockDevice) and _ours(area, claim):
        actions.append(_wipe(area.path))
    actions += [
        RemoveFile(why=f"Remove {path}", path=path)
        for path in claim.further
        if seen.further[path].exists
    ]
    if claim.made_mount_point and claim.mount_point in seen.directories:
        actions.append(RemoveDirectory(why="Remove the mount point", path=claim.mount_point))
    return tuple(actions)


def _ours(area: BlockDevice, claim: MadeStore) -> bool:
    """Tell whether the device carries what create put there, and nothing else."""
    return bool(area.signatures) and all(
        signature.uuid == claim.uuid for signature in area.signatures
    )


def _remove_boot_files(seen: Seen, claim: MadeStore | None) -> tuple[Action, ...]:
    actions: list[Action] = [
        RemoveFile(why=f"Remove {path}", path=path, before=seen.files[path])
        for path in (SYSCTL_PATH, LOOP_UNIT_PATH, *DROP_INS, CLEAN_UNIT_PATH)
        if path in seen.files
    ]
    for path in DROP_INS:
        there = seen.directories.get(directory := path.rpartition("/")[0])
        if there is not None and not there.foreign and (claim or path in seen.files):
            actions.append(RemoveDirectory(why=f"Remove {directory}", path=directory))
    return tuple(actions)


def _remove_backups(seen: Seen) -> tuple[Action, ...]:
    """Remove the back-ups of files that are as they were.

    A back-up that differs is left for the operator to look at.
    """
    actions: list[Action] = []
    for path in EDITED:
        backup = seen.files.get(backup_path(path))
        text = seen.files.get(path)
        if backup is None or text is None:
            continue
        restored = remove_own(text) if path == FSTAB else restore_memory_directory(text)
        if restored.rstrip("\n") == backup.rstrip("\n"):
            actions.append(
                RemoveFile(
                    why=f"Remove the back-up: {path} is as it was",
                    path=backup_path(path),
                    before=backup,
                    copy_of=path,
                )
            )
    return tuple(actions)
