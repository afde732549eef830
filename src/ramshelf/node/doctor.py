"""Gathering the facts that the doctor judges.

Each fact is gathered by itself; one that cannot be had is Unknown, with the reason.
"""

import enum
import errno
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from ramshelf.core.config import Config
from ramshelf.core.doctor.confinement import Labels, parse_labels
from ramshelf.core.doctor.facts import (
    BadConfig,
    Facts,
    GuestFacts,
    OddGuest,
    StaleDirectory,
    StoreFacts,
)
from ramshelf.core.domain.memory import Guest
from ramshelf.core.domain.numa import parse_tuning
from ramshelf.core.domain.own_backends import own_backends
from ramshelf.core.errors import RamshelfError, ServiceError
from ramshelf.core.files.qemuconf import MemoryDirectory, Value, memory_directory, parse_qemu_conf
from ramshelf.core.hook.status import HookStatus
from ramshelf.core.host import LIBVIRT_DAEMONS, Account, Device, LibvirtHost, Process, Unknown
from ramshelf.core.placement import Comparison
from ramshelf.core.record import replace
from ramshelf.core.store.capacity import StoreUsage
from ramshelf.core.store.clean import stale
from ramshelf.core.store.directory import GuestDirectory, directory_names, guest_directory
from ramshelf.core.store.earlier import EarlierPromise
from ramshelf.core.store.find import NoStore, Store
from ramshelf.core.store.layout import FSTAB, find_claim
from ramshelf.core.store.ledger import Note
from ramshelf.core.store.resize import unfinished
from ramshelf.core.store.write_errors import WriteErrors
from ramshelf.node.guest.look import described
from ramshelf.node.hook import manage as hook
from ramshelf.node.store.clean import list_directories
from ramshelf.node.store.earlier import promises
from ramshelf.node.store.silence import silence
from ramshelf.node.store.write_errors import WriteWatch
from ramshelf.system import hypervisor
from ramshelf.system.backingstore import (
    QEMU_CONF,
    holding,
    observe_store,
    places,
    read_fstab,
)
from ramshelf.system.blockdevice import file_system_size
from ramshelf.system.bootfacts import boot_order, swap_uses
from ramshelf.system.devicefacts import devices_below, file_system_errors
from ramshelf.system.filesystem import read_text
from ramshelf.system.hooklogfollower import recorded
from ramshelf.system.hostfacts import (
    directories_to,
    kernel,
    known,
    kvm_problem,
    machine_slice,
    modified,
    oom_kills,
    qemu_account,
    service_slices,
    sysctl,
)
from ramshelf.system.numanodes import host_numa
from ramshelf.system.processes import processes
from ramshelf.system.procfs import device_number, disk_swaps, meminfo, mounts, swaps
from ramshelf.system.run import run
from ramshelf.system.worker import Patience, Worker

_SYSCTLS = ("page-cluster", "swappiness", "dirty_bytes", "dirty_ratio", "overcommit_memory")
_PID_FILES = ("/run/virtqemud.pid", "/run/libvirtd.pid", "/run/libvirt/libvirtd.pid")
_BROKEN = (errno.EIO, errno.EUCLEAN, errno.ESHUTDOWN)
"""The errors of a file system that is damaged or has shut down."""


Describe = Callable[[hypervisor.Hypervisor, hypervisor.Domain], str]
"""Gives the XML of a running guest, or '' for one that has ended meanwhile."""


class Ask(enum.Enum):
    """When libvirt is asked whether it calls the hook, by a guest that the hook refuses."""

    NEVER = enum.auto()
    WHERE_NOT_KNOWN = enum.auto()
    AGAIN = enum.auto()


def describe(connection: hypervisor.Hypervisor, domain: hypervisor.Domain) -> str:
    """Ask libvirt for the XML of a running guest; return '' if it has ended meanwhile."""
    try:
        return connection.live_xml(domain.name)
    except RamshelfError as error:
        if error.code == "guest.not-found":
            return ""
        raise


def gather(
    config: Config | BadConfig,
    uri: str,
    files: tuple[str, ...] = (),
    directories: tuple[str, ...] = (),
    *,
    patience: Patience,
    describe: Describe = describe,
    ask: Ask = Ask.AGAIN,
    alone: bool = True,
) -> Facts:
    """Gather all facts, in an order that a guest which starts meanwhile does not disturb.

    ``files`` and ``directories`` are the configuration's, where any were named. ``patience`` is how
    long libvirt, Placement and the store may take to answer; ``describe`` gives the XML of a
    running guest. ``ask`` says when libvirt is asked whether it calls the hook. ``alone`` tries
    whether the store answers at all, for which the process must have no other threads.

    Directories are listed before guests are: a directory whose guest is not listed afterwards is
    stale. Processes are listed after libvirt was asked, so that a daemon that the connection
    activated is among them.
    """
    table = mounts()
    conf, conf_problem = _qemu_conf()
    directory = memory_directory(conf)
    silent = silence(directory.path, patience) if alone else None
    present = known(list_directories) if silent is None else silent
    connected, domains = _libvirt(uri, patience, describe)
    answers = not isinstance(connected, Unknown)
    found = processes()
    account = Unknown(conf_problem) if conf_problem else known(qemu_account, conf)
    guests, odd = _guests(domains, directory, found, account, silent)
    return Facts(
        config=config,
        hypervisor=connected,
        kernel=known(kernel),
        kvm=kvm_problem(),
        processes=found,
        daemon=_daemon(found),
        nova_compute=_serving(found, ("nova-compute",)),
        qemu_conf_problem=conf_problem,
        qemu_conf_changed=known(modified, QEMU_CONF),
        nova_changed=_nova_changed(config),
        qemu_user=account,
        store=silent
        or _store(
            directory,
            _stale(present, domains, guests),
            known(_earlier, uri, patience, answers=answers),
        ),
        sysctls={name: known(sysctl, name) for name in _SYSCTLS},
        slices=known(service_slices, table),
        machine_slice=known(machine_slice, table),
        meminfo=known(meminfo),
        oom_kills=known(oom_kills),
        hook=_hook(
            # At the end of any guest libvirt itself waits for the store.
            uri if answers and silent is None and ask is not Ask.NEVER else "",
            files,
            directories,
            patience,
            again=ask is Ask.AGAIN,
        ),
        guests=guests,
        odd_guests=odd,
        placement=_placement(config, uri, patience) if answers and silent is None else None,
        numa=known(host_numa),
        root=os.geteuid() == 0,
    )


def _placement(
    config: Config | BadConfig, uri: str, patience: Patience
) -> Comparison | RamshelfError | None:
    """Return what Placement says of this host, or the error that it gives.

    Return None where Placement is not used, or where libvirt or the store is not known.
    """
    if isinstance(config, Unknown) or config.placement_mode == "none":
        return None
    from ramshelf.node import placement  # noqa: PLC0415 - only where it is used
    from ramshelf.system.placement import connect  # noqa: PLC0415 - likewise

    try:
        with (
            patience.waiting() as seconds,
            hypervisor.Hypervisor(uri, read_only=True, patience=seconds) as connection,
        ):
            host, seen = connection.host_name(), placement.look_at_host(connection, config)
    except (RamshelfError, OSError):
        return None

    def ask() -> Comparison:
        provider = connect(config, host)
        assert provider is not None  # noqa: S101 - it is used
        with provider:
            return placement.compare(provider, lambda: seen)

    worker = Worker()
    try:
        with patience.waiting() as seconds:
            return worker.call(ask, seconds)
    except TimeoutError:
        return ServiceError(
            "placement.timeout",
            f"Placement did not answer within {seconds:.0f} s.",
            hint="See that it runs.",
        )
    except RamshelfError as error:
        return error
    finally:
        worker.end()


def _hook(
    uri: str,
    files: tuple[str, ...],
    directories: tuple[str, ...],
    patience: Patience,
    *,
    again: bool,
) -> HookStatus | Unknown:
    """Return the hook's status.

    Where this is root, libvirt itself is asked whether it calls the hook and may run it, but not
    where ``uri`` is ''.
    """
    status = known(hook.status, hook.wanted_hook(files, directories))
    if isinstance(status, Unknown):
        return status
    with patience.waiting() as seconds:
        return hook.tried(status, uri, again=again, patience=seconds)


def _qemu_conf() -> tuple[dict[str, Value], str]:
    try:
        return parse_qemu_conf(read_text(QEMU_CONF, ""), QEMU_CONF), ""
    except RamshelfError as error:
        return {}, error.sentence.rstrip(".")
    except OSError as error:
        return {}, f"{QEMU_CONF}: {os.strerror(error.errno or 0).lower()}"


def _libvirt(
    uri: str, patience: Patience, describe: Describe
) -> tuple[LibvirtHost | Unknown, Mapping[str, str] | Unknown]:
    """Return the versions, and the XML of every running guest by name.

    A guest that ends meanwhile is left out.
    """
    try:
        with (
            patience.waiting() as seconds,
            hypervisor.Hypervisor(uri, read_only=os.geteuid() != 0, patience=seconds) as connection,
        ):
            versions = LibvirtHost(
                uri=uri,
                libvirt=connection.libvirt_version(),
                qemu=_qemu_version(connection),
                security_models=connection.security_models(),
            )
            documents = {
                domain.name: describe(connection, domain) for domain in connection.active()
            }
    except RamshelfError as error:
        denied = error.code == "libvirt.permission"
        return Unknown(error.sentence.rstrip("."), denied=denied), Unknown(
            "libvirt cannot be reached"
        )
    return versions, {name: xml for name, xml in documents.items() if xml}


def _qemu_version(connection: hypervisor.Hypervisor) -> tuple[int, int, int] | Unknown:
    try:
        return connection.qemu_version()
    except RamshelfError as error:
        return Unknown(error.sentence.rstrip("."))


def _guests(
    domains: Mapping[str, str] | Unknown,
    directory: MemoryDirectory,
    found: tuple[Process, ...] | Unknown,
    account: Account | Unknown,
    silent: Unknown | None,
) -> tuple[tuple[GuestFacts, ...] | Unknown, tuple[OddGuest, ...]]:
    """Return the running guests, and apart from them those whose XML is not understood.

    A guest that is not understood does not hide the others. ``silent`` is the reason not to look at
    the store.
    """
    if isinstance(domains, Unknown):
        return domains, ()
    by_uuid = _by_uuid(found)
    there = known(list_directories) if silent is None else silent
    notes = known(_notes) if silent is None else silent
    running, odd = [], []
    for name, xml in domains.items():
        try:
            guest, labels, own = described(xml, name), parse_labels(xml), own_backends(xml)
            tuning = parse_tuning(xml)
        except RamshelfError as error:
            odd.append(OddGuest(name=name, problem=error.sentence.rstrip(".")))
            continue
        if guest.domain_id is None:
            continue
        note = None if isinstance(notes, Unknown) else notes.get(guest.name)
        place = None if isinstance(there, Unknown) else _directory_of(guest, note, there)
        path = guest_directory(directory.path, guest.domain_id, guest.name)
        running.append(
            GuestFacts(
                guest=guest,
                directory=place.path if place is not None else path,
                memory_files=(
                    there
                    if isinstance(there, Unknown)
                    else place.memory
                    if place is not None
                    else ()
                ),
                promised=(
                    notes
                    if isinstance(notes, Unknown)
                    else note.promised
                    if note is not None
                    else 0
                ),
                pinned=note.pinned if note is not None else None,
                given=frozenset(note.given if note is not None else ()),
                process=_process(by_uuid.get(guest.uuid, []), _users(labels, account)),
                labels=labels,
                tuning=tuning,
                own=own,
                discard_retracted=guest.discard and _retracted(guest),
            )
        )
    return tuple(running), tuple(odd)


def _notes() -> dict[str, Note]:
    return {note.name: note for note in holding(places())}


def _directory_of(
    guest: Guest, note: Note | None, there: tuple[GuestDirectory, ...]
) -> GuestDirectory | None:
    """Return the directory where the note says that the guest's memory is.

    Without that, return one that is named as the guest's directory would be.
    """
    names = directory_names(guest.domain_id or 0, guest.name)
    by_path = {each.path: each for each in there}
    if note is not None and note.directory in by_path:
        return by_path[note.directory]
    return next((each for each in there if each.name in names), None)


def _retracted(guest: Guest) -> bool:
    """Tell whether the hook's log says that this run's discard flag was taken back."""
    return any(
        entry["event"] == "discard-retracted" and entry["id"] == guest.domain_id
        for entry in recorded(guest.name)
    )


def _users(labels: Labels, account: Account | Unknown) -> set[int]:
    """Return the uids that the guest's QEMU may have.

    libvirt starts QEMU as the label says or, where the label names no user, as qemu.conf does; then
    root counts, too.
    """
    if labels.uid is not None:
        return {labels.uid}
    return {0} if isinstance(account, Unknown) else {0, account.uid}


def _process(claiming: list[Process], users: set[int]) -> Process | None:
    """Return the guest's QEMU, among the processes that have its UUID on their command line."""
    return next((process for process in claiming if process.uid in users), None)


def _by_uuid(found: tuple[Process, ...] | Unknown) -> dict[str, list[Process]]:
    """Return the processes that are called as QEMU is, keyed by the guest's UUID.

    libvirt puts the UUID on the command line.
    """
    claiming: dict[str, list[Process]] = {}
    for process in () if isinstance(found, Unknown) else found:
        if process.qemu and "-uuid" in process.argv[:-1]:
            uuid = process.argv[process.argv.index("-uuid") + 1]
            claiming.setdefault(uuid, []).append(process)
    return claiming


def _daemon(found: tuple[Process, ...] | Unknown) -> Process | Unknown | None:
    """Return the daemon that has read qemu.conf; where several run, the one of the pid file."""
    if not isinstance(found, Unknown):
        pids = {read_text(path, "").strip() for path in _PID_FILES}
        for process in found:
            if str(process.pid) in pids and process.service in LIBVIRT_DAEMONS:
                return process
    return _serving(found, LIBVIRT_DAEMONS)


def _serving(
    found: tuple[Process, ...] | Unknown, services: tuple[str, ...]
) -> Process | Unknown | None:
    if isinstance(found, Unknown):
        return found
    matching = [process for process in found if process.service in services]
    # The oldest is the parent of what was forked. Daemons that are restarted one by one cannot be
    # told apart in this way.
    return min(matching, key=lambda process: process.started, default=None)


def _nova_changed(config: Config | BadConfig) -> dict[str, float]:
    if isinstance(config, Unknown):
        return {}
    times = {path: known(modified, path) for path in config.nova_files}
    return {path: time for path, time in times.items() if isinstance(time, float)}


def _stale(
    present: tuple[GuestDirectory, ...] | Unknown,
    domains: Mapping[str, str] | Unknown,
    guests: tuple[GuestFacts, ...] | Unknown,
) -> tuple[StaleDirectory, ...] | Unknown:
    """Return the stale directories that are still there.

    They belong to nobody, and were there before the guests were listed.
    """
    if isinstance(present, Unknown):
        return present
    if isinstance(guests, Unknown) or isinstance(domains, Unknown):
        return Unknown("the running guests are not known")
    known_names = {each.guest.name for each in guests}
    active: list[tuple[int | None, str]] = [
        (each.guest.domain_id, each.guest.name) for each in guests
    ]
    active += [(None, name) for name in domains if name not in known_names]
    left = stale(present, active)
    now = known(list_directories) if left else ()
    if isinstance(now, Unknown):
        return now
    there = {each.path: each for each in now}
    return tuple(
        StaleDirectory(path=each.path, size=there[each.path].allocated)
        for each in left
        if each.path in there
    )


def _earlier(uri: str, patience: Patience, *, answers: bool) -> tuple[EarlierPromise, ...]:
    """Return the promises from before an upgrade; where libvirt does not answer, all on record."""
    if answers:
        with (
            suppress(RamshelfError),
            patience.waiting() as seconds,
            hypervisor.Hypervisor(uri, read_only=True, patience=seconds) as connection,
        ):
            return promises(connection)
    return promises(None)


def _store(
    directory: MemoryDirectory,
    stale: tuple[StaleDirectory, ...] | Unknown,
    earlier: tuple[EarlierPromise, ...] | Unknown,
) -> StoreFacts | Unknown:
    found = known(places, directory.path)
    if isinstance(found, Unknown):
        return found
    place, store = found[0].path, found[0].store
    entries, areas = read_fstab(mounts()), disk_swaps()
    absent = Unknown("there is no store")
    facts = StoreFacts(
        directory=directory,
        store=store,
        usage=absent,
        io_error="",
        path=known(directories_to, place),
        memory_dir_missing=known(_missing, place) is True,
        devices=absent,
        swaps=swap_uses(entries, areas),
        boot=absent,
        file_system_errors=None,
        stale=stale,
        earlier=earlier,
    )
    if isinstance(store, NoStore):
        return facts
    usage, io_error = _usage(store)
    return replace(
        facts,
        usage=usage,
        io_error=io_error,
        devices=known(_devices, store),
        boot=known(boot_order, entries, store.mount_point),
        file_system_errors=file_system_errors(store.mount.fstype, store.mount.device),
        write_errors=_write_errors(store),
        unfinished=_unfinished(store, usage),
    )


def _unfinished(store: Store, usage: StoreUsage | Unknown) -> int:
    claim = find_claim(read_text(FSTAB, ""))
    if claim is None or claim.mount_point != store.mount_point or isinstance(usage, Unknown):
        return 0
    file = known(os.stat, claim.file) if claim.file else None
    left = partial(
        unfinished,
        claim,
        file_size=file.st_size if isinstance(file, os.stat_result) else 0,
        page_size=os.sysconf("SC_PAGE_SIZE"),
    )
    found = left(size=usage.size)
    if found and not claim.file:  # a device: what is to be named is what its file system has
        found = left(size=file_system_size(store.mount, run) or usage.size)
    return found


def _write_errors(store: Store) -> WriteErrors | Unknown | None:
    watch = WriteWatch()
    try:
        return watch.look(store)
    finally:
        watch.close()


def _missing(path: str) -> bool:
    try:
        os.stat(path)
    except FileNotFoundError:
        return True
    return False


def _usage(store: Store) -> tuple[StoreUsage | Unknown, str]:
    """Return the store's figures, and the error with which its file system answers, if it does."""
    try:
        os.listdir(store.mount_point)  # XFS that has shut down still answers statvfs, from memory
        usage = observe_store(store.memory_dir).usage
    except RamshelfError as error:
        return Unknown(error.sentence.rstrip(".")), ""
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        return Unknown(f"{error.filename or store.mount_point}: {reason}"), (
            reason if error.errno in _BROKEN else ""
        )
    return usage or Unknown("the store was unmounted meanwhile"), ""


def _devices(store: Store) -> tuple[Device, ...]:
    """Return the devices below the store.

    Below a tmpfs over swap lie all swap areas, also those in RAM; below a tmpfs alone lies nothing.
    """
    if store.kind.swaps:
        numbers = [device_number(area.path) for area in swaps()]
    elif store.kind.tmpfs:
        numbers = []
    else:
        numbers = [os.makedev(*store.mount.device)]
    below = {number: devices_below(number) for number in numbers}
    for number, found in below.items():
        if not found:  # as on btrfs, which may lie on several devices
            raise LookupError(f"{os.major(number)}:{os.minor(number)} is no block device")
    return tuple({device.name: device for found in below.values() for device in found}.values())
