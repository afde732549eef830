"""Making, resizing, removing and showing the store of this host: observe, plan, apply."""

import grp
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from ramshelf.core.config import Config
from ramshelf.core.errors import ConfigError, HostError
from ramshelf.core.files.mounts import covering
from ramshelf.core.files.qemuconf import MemoryDirectory, Value, memory_directory, parse_qemu_conf
from ramshelf.core.plan import Action, EditFile
from ramshelf.core.record import replace
from ramshelf.core.store.boot import SYSCTL_KEYS
from ramshelf.core.store.capacity import Capacity, capacity
from ramshelf.core.store.facts import AreaFile, BlockDevice, Directory, Seen, Spec, checked
from ramshelf.core.store.find import NoStore, Store
from ramshelf.core.store.layout import (
    FSTAB,
    QEMU_CONF,
    Layout,
    MadeStore,
    find_claim,
    lay_out,
    memory_directory_for,
)
from ramshelf.core.store.plan import DROP_INS, WRITTEN, plan_create, plan_remove
from ramshelf.core.store.refusals import store_mount, warnings
from ramshelf.core.store.resize import next_swap_file, plan_resize
from ramshelf.node.apply import Tell, apply
from ramshelf.node.leftovers import leave_nothing
from ramshelf.system.backingstore import (
    directories,
    holding,
    lies_on,
    observe_store,
    places,
    read_fstab,
)
from ramshelf.system.blockdevice import (
    block_device,
    device_of,
    file_system_size,
    find_by_uuid,
    loop_of,
    mount_of,
    signatures,
)
from ramshelf.system.devicefacts import devices_below
from ramshelf.system.earlier import write_promises
from ramshelf.system.filesystem import RUN_DIR, read_text, size_and_used
from ramshelf.system.hostfacts import qemu_account, root_context
from ramshelf.system.livestate import live_guests
from ramshelf.system.locks import store_lock
from ramshelf.system.procfs import disk_swaps, holders_of, meminfo, mounts, swaps
from ramshelf.system.run import SEARCH_PATH, run

STATE_DIR = "/run/libvirt/qemu"
_TOOLS = (
    *("mount", "wipefs", "mkswap", "swapon", "losetup", "fallocate"),
    *("mkfs.ext4", "mkfs.xfs", "resize2fs", "xfs_growfs"),
)
_LOCK_TIMEOUT = 30

Step = Callable[[int], None]


def _no_tell(_number: int, _action: Action, _fraction: float) -> None:
    return


def _no_step(_number: int) -> None:
    return


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A plan and what goes with it; ``capacity`` is known once the plan was carried out."""

    actions: tuple[Action, ...]
    warnings: tuple[str, ...] = ()
    layout: Layout | None = None
    directory_changed: bool = False
    capacity: Capacity | None = None


def prepare_create(spec: Spec, config: Config) -> Planned:
    """Return what ``create`` would do.

    Raises UsageError, RefusedError or HostError.
    """
    spec = checked(spec)
    seen = _see_for_create(spec, config)
    actions = plan_create(spec, seen)
    layout = lay_out(spec, seen, find_claim(seen.files.get(FSTAB, "")))
    return Planned(
        actions=actions,
        warnings=warnings(spec, seen, layout),
        layout=layout,
        directory_changed=layout.mount_point != seen.directory.configured,
    )


def create(
    spec: Spec,
    config: Config,
    *,
    tell: Tell = _no_tell,
    after_step: Step = _no_step,
    announce: Callable[[Planned], None] = lambda _planned: None,
) -> Planned:
    """Make the store, or what is missing of it; return what was done."""
    _require_root()
    with store_lock(f"{RUN_DIR}/store.lock", timeout=_LOCK_TIMEOUT):
        planned = prepare_create(spec, config)
        announce(planned)
        apply(planned.actions, noun="store", tell=tell, after_step=after_step)
        _verify(planned, prepare_create(spec, config))
    return replace(planned, capacity=_capacity(config))


def _capacity(config: Config) -> Capacity | None:
    usage = observe_store().usage
    return capacity(usage, configured_mib=config.limit.mib) if usage else None


def prepare_resize(size: int | None, config: Config) -> Planned:
    """Return what ``resize`` would do.

    Raises UsageError, RefusedError or HostError.
    """
    _require_root()
    seen = _see_made()
    claim = find_claim(seen.files.get(FSTAB, ""))
    mounted = store_mount(seen, claim)
    size_now = 0
    if mounted:
        size_now = file_system_size(mounted, run) or size_and_used(mounted.mount_point)[0]
    seen = replace(
        seen,
        size=size_now,
        page_size=os.sysconf("SC_PAGE_SIZE"),
        memory=meminfo().get("MemTotal", 0),
        host_reserved=config.host_reserved_mib << 20,
    )
    return Planned(actions=plan_resize(size, seen))


def resize(
    size: int | None,
    config: Config,
    *,
    tell: Tell = _no_tell,
    after_step: Step = _no_step,
) -> Planned:
    """Make the store as large as ``size`` bytes, or as all of its device; return what was done."""
    _require_root()
    with store_lock(f"{RUN_DIR}/store.lock", timeout=_LOCK_TIMEOUT):
        planned = prepare_resize(size, config)
        apply(planned.actions, noun="store", tell=tell, after_step=after_step, reversible=False)
        _verify(planned, prepare_resize(size, config))
    return replace(planned, capacity=_capacity(config))


def prepare_remove() -> Planned:
    """Return what ``remove`` would do.

    Raises RefusedError or HostError.
    """
    _require_root()
    actions = plan_remove(_see_made())
    edits = (action for action in actions if isinstance(action, EditFile))
    return Planned(actions=actions, directory_changed=any(edit.path == QEMU_CONF for edit in edits))


def remove(
    *,
    tell: Tell = _no_tell,
    after_step: Step = _no_step,
    announce: Callable[[Planned], None] = lambda _planned: None,
) -> Planned:
    """Undo what ``create`` did; return what was done.

    The store's lock is held from the look at the guests until the end: a guest that starts
    meanwhile waits in the hook, and is then refused because its store is gone.
    """
    _require_root()
    with (
        store_lock(f"{RUN_DIR}/store.lock", timeout=_LOCK_TIMEOUT),
        store_lock(timeout=_LOCK_TIMEOUT),
    ):
        planned = prepare_remove()
        announce(planned)
        apply(planned.actions, noun="store", tell=tell, after_step=after_step)
        _verify(planned, prepare_remove())
        write_promises(())  # they were promises of this store
    leave_nothing()
    return planned


def _verify(planned: Planned, left: Planned) -> None:
    """Raise HostError ``store.incomplete`` if anything is left to do.

    Commands that end well may have done nothing, so what is left is looked at again.
    """
    if planned.actions and left.actions:
        raise HostError(
            "store.incomplete",
            f"All steps succeeded, but this is still to be done: {left.actions[0].why}.",
            hint="Run the same command again with --dry-run to see what is left.",
            facts={"left": [line for action in left.actions for line in action.lines()]},
        )


def _require_root() -> None:
    if os.geteuid() != 0:
        raise HostError(
            "store.needs-root", "Only root can change a store.", hint="Run it with sudo."
        )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The store as ``store show`` describes it; sizes in bytes.

    ``area`` is the device of the swap area or file system, ``file`` the file that it is in; each is
    '' where there is none. ``size`` and ``capacity`` are None where no store is mounted.
    ``drop_ins`` are the services that wait for it at boot. ``in_fstab`` tells whether it is mounted
    at boot.
    """

    directory: MemoryDirectory
    store: Store | NoStore
    claim: MadeStore | None
    area: str
    file: str
    size: int | None
    capacity: Capacity | None
    swap: tuple[tuple[str, int, int], ...]
    in_fstab: bool
    drop_ins: tuple[str, ...]


def show(config: Config) -> Shown:
    """Look at the store; raise ConfigError where qemu.conf cannot be read."""
    observed = observe_store()
    fstab = read_text(FSTAB, "")
    claim = find_claim(fstab)
    store = observed.store
    source = store.mount.source if isinstance(store, Store) else ""
    file = claim.file if claim else ""
    areas = disk_swaps()
    if isinstance(store, Store) and store.kind.tmpfs:
        source = ""
        if claim and not claim.file and claim.uuid and os.geteuid() == 0:
            source = find_by_uuid(claim.uuid, run) or ""
    mount_point = (
        store.mount_point if isinstance(store, Store) else claim.mount_point if claim else ""
    )
    return Shown(
        directory=observed.directory,
        store=store,
        claim=claim,
        area=source,
        file=file,
        size=observed.usage.size if observed.usage else None,
        capacity=(
            capacity(observed.usage, configured_mib=config.limit.mib) if observed.usage else None
        ),
        swap=tuple((area.path, area.size, area.used) for area in areas),
        in_fstab=any(entry.mount_point == mount_point for entry in read_fstab(mounts())),
        drop_ins=tuple(
            os.path.basename(os.path.dirname(path)).removesuffix(".d")
            for path in DROP_INS
            if os.path.exists(path)
        ),
    )


def _see_for_create(spec: Spec, config: Config) -> Seen:
    conf = _qemu_conf()
    directory = memory_directory(conf)
    wished = memory_directory_for(spec, Seen(directory=directory))
    paths = [path for path in (spec.file, wished.configured) if path]
    problem = ""
    area: BlockDevice | AreaFile | None = None
    if spec.device:
        device = block_device(spec.device, run)
        if isinstance(device, str):
            problem = device
        else:
            area = device
    elif spec.file:
        area = _area_file(spec.file)
    figures = meminfo()
    return Seen(
        root=os.geteuid() == 0,
        python=sys.executable,
        machine_id=read_text("/etc/machine-id", "").strip(),
        missing_tools=_missing_tools(),
        systemd=os.path.isdir("/run/systemd/system"),
        root_context=root_context(),
        page_size=os.sysconf("SC_PAGE_SIZE"),
        memory=figures.get("MemTotal", 0),
        host_reserved=config.host_reserved_mib << 20,
        directory=directory,
        owner=_owner(conf),
        files=_files(),
        directories=dict(_directories(wished)),
        sysctls=_sysctls(),
        mounts=mounts(),
        swaps=tuple(area.path for area in swaps()),
        guests=tuple(_live_guests()),
        area=area,
        area_problem=problem,
        links=tuple(path for path in paths if _through_link(path)),
    )


def _missing_tools() -> frozenset[str]:
    return frozenset(tool for tool in _TOOLS if not shutil.which(tool, path=SEARCH_PATH))


def _see_made() -> Seen:
    """Look at the store that fstab says ramshelf made."""
    files = _files()
    claim = find_claim(files.get(FSTAB, ""))
    directory = _lenient_directory(files.get(QEMU_CONF, ""))
    area: BlockDevice | AreaFile | None = None
    if claim and claim.file:
        area = _area_file(claim.file)
    elif claim and claim.uuid and (path := find_by_uuid(claim.uuid, run)):
        device = block_device(path, run)
        area = device if isinstance(device, BlockDevice) else None
    place = claim.mount_point if claim else directory.configured
    table = mounts()
    mounted = claim is not None and any(mount.mount_point == place for mount in table)
    further = (*claim.further, next_swap_file(claim)) if claim and claim.kind.swaps else ()
    return Seen(
        root=os.geteuid() == 0,
        machine_id=read_text("/etc/machine-id", "").strip(),
        missing_tools=_missing_tools(),
        systemd=os.path.isdir("/run/systemd/system"),
        directory=directory,
        files=files,
        directories=dict(
            _directories(MemoryDirectory(configured=place, path=place, explicit=False))
        ),
        sysctls=_sysctls(),
        mounts=table,
        swaps=tuple(area.path for area in swaps()),
        guests=tuple(_guests_on(place)) if mounted else (),
        area=area,
        further={path: _area_file(path) for path in further},
    )


def _qemu_conf() -> dict[str, Value]:
    return parse_qemu_conf(read_text(QEMU_CONF, ""), QEMU_CONF)


def _lenient_directory(text: str) -> MemoryDirectory:
    """Return qemu.conf's memory directory, or the default one where qemu.conf is not understood.

    A store can be removed whatever somebody has done to qemu.conf.
    """
    try:
        return memory_directory(parse_qemu_conf(text, QEMU_CONF))
    except ConfigError:
        return memory_directory({})


def _owner(conf: dict[str, Value]) -> tuple[int, int] | None:
    """Return the ids of QEMU's user and of its group as libvirt has it.

    The group is that of qemu.conf, else the one of the same name as the user.
    """
    try:
        account = qemu_account(conf)
        group = str(conf.get("group", account.user)).removeprefix("+")
        if group.isdecimal():
            return account.uid, int(group)
        with suppress(KeyError):
            return account.uid, grp.getgrnam(group).gr_gid
        return account.uid, min(account.gids)
    except LookupError:
        return None


def _files() -> dict[str, str]:
    found = {}
    for path in WRITTEN:
        with suppress(FileNotFoundError):
            found[path] = read_text(path)
    return found


def _sysctls() -> dict[str, int]:
    values = {}
    for key in SYSCTL_KEYS:
        text = read_text("/proc/sys/" + key.replace(".", "/"), "").strip()
        if text.isdecimal():
            values[key] = int(text)
    return values


def _directories(wished: MemoryDirectory) -> Iterator[tuple[str, Directory]]:
    parent = os.path.dirname(wished.configured)
    way = {wished.configured, f"{wished.configured}/libvirt", wished.path}
    for path in (parent, *sorted(way)):
        if os.path.isdir(path):
            foreign = tuple(_foreign(path, way)) if path != parent else ()
            yield path, _directory(path, foreign)
    for path in map(os.path.dirname, DROP_INS):
        if os.path.isdir(path):
            yield path, _directory(path, tuple(set(os.listdir(path)) - {"ramshelf.conf"}))


def _directory(path: str, foreign: tuple[str, ...]) -> Directory:
    status = os.stat(path)
    return Directory(
        uid=status.st_uid, gid=status.st_gid, mode=status.st_mode & 0o7777, foreign=foreign
    )


def _foreign(top: str, way: set[str]) -> Iterator[str]:
    """Yield what lies below ``top`` beside the way to the memory directory."""
    for name in sorted(os.listdir(top)):
        path = os.path.join(top, name)
        if path in way and os.path.isdir(path):
            yield from _foreign(path, way)
        else:
            yield path


def _through_link(path: str) -> bool:
    """Tell whether the path, as far as it is there, leads through a symbolic link."""
    return os.path.realpath(path) != path


def _area_file(path: str) -> AreaFile:
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        return AreaFile(path=path, exists=False)
    mount = mount_of(directory)
    figures = os.statvfs(directory)
    loop = loop_of(path)
    attached = block_device(loop, run) if loop else None
    status = os.stat(path) if os.path.lexists(path) else None
    if status is not None and not stat.S_ISREG(status.st_mode):
        return AreaFile(path=path, exists=True, other=_sort(status.st_mode))
    return AreaFile(
        path=path,
        exists=status is not None,
        size=status.st_size if status else 0,
        allocated=status.st_blocks * 512 if status else 0,
        file_system=mount.fstype if mount else "unknown",
        file_system_size=figures.f_blocks * figures.f_frsize,
        free=figures.f_bavail * figures.f_frsize,
        loop=attached if isinstance(attached, BlockDevice) else None,
        signatures=signatures(loop or path, run),
        below=devices_below(device_of(directory)),
    )


def _sort(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a block device" if stat.S_ISBLK(mode) else "no ordinary file"


def _live_guests() -> Iterator[str]:
    """Yield the running guests that have memory in files, by libvirt's own records.

    Guests whose record is not understood are among them.
    """
    for live in live_guests():
        if live.guest is None or live.guest.file_backed:
            yield live.name


def _guests_on(mount_point: str) -> Iterator[str]:
    """Yield the guests that use files on the store; where there are none, the processes that do."""
    found, mount = places(), covering(mounts(), mount_point)
    if mount is None or mount.mount_point != mount_point:
        return
    names = [note.name for note in holding(found) if lies_on(note.directory, mount)]
    yield from names
    if not names:
        on_it = (each for each in directories(found) if lies_on(each.path, mount))
        identities = {(*each.device, file.inode) for each in on_it for file in each.files}
        yield from (f"process {pid}" for pid in holders_of(identities))
