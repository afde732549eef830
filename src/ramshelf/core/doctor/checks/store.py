"""Checks that the store is in the right place, mounted, and usable by QEMU only.

It must also be large enough, and be back after a boot.
"""

import stat
from collections.abc import Iterable, Iterator, Sequence

from ramshelf.core.catalog import finding, unknown
from ramshelf.core.doctor.checks.config import configured_bytes
from ramshelf.core.doctor.facts import Facts, PathDirectory, StoreFacts
from ramshelf.core.findings import Finding
from ramshelf.core.host import Account, Device, Process, Unknown
from ramshelf.core.store.boot import NEEDING
from ramshelf.core.store.capacity import (
    StoreUsage,
    capacity,
    crowded,
    excesses,
    extents_run_out,
    inodes_run_out,
    set_aside,
    spare,
)
from ramshelf.core.store.directory import GuestDirectory
from ramshelf.core.store.earlier import refused_anew
from ramshelf.core.store.find import NoStore, Store
from ramshelf.core.store.ledger import Note
from ramshelf.core.store.write_errors import WriteErrors, who_lost_memory
from ramshelf.core.units import MIB, align_up, format_size, to_mib

_NAMED = 10
"""The number of guests that a sentence names; the finding's facts have all of them."""


def check_store(facts: Facts) -> Iterator[Finding]:
    """Check everything about the store that does not depend on how it is built."""
    yield from _daemon(facts)
    if isinstance(facts.store, Unknown):
        yield unknown("store.mount-unknown", "The store could not be looked at", facts.store)
        return
    seen = facts.store
    if seen.directory.explicit:
        yield finding(
            "store.layout",
            f"qemu.conf sets memory_backing_dir = {seen.directory.configured}, so guests' memory "
            f"lies in {seen.directory.path}.",
            path=seen.directory.path,
        )
    if isinstance(seen.store, NoStore):
        hint = seen.store.hint
        yield finding(seen.store.code, seen.store.sentence, hint=hint, path=seen.directory.path)
        return
    yield from _mounted(seen, seen.store, facts)
    yield from _access(seen, seen.store, facts.qemu_user)
    yield from _boot(seen, seen.store)
    yield from _stale(seen)


def _daemon(facts: Facts) -> Iterator[Finding]:
    if facts.qemu_conf_problem:
        yield finding(
            "store.qemu-conf-unknown",
            f"libvirt's default directory was looked at: {facts.qemu_conf_problem}.",
            reason=facts.qemu_conf_problem,
        )
    changed, daemon = facts.qemu_conf_changed, facts.daemon
    for fact in (changed, daemon):
        if isinstance(fact, Unknown):
            yield unknown(
                "store.daemon-unknown",
                "Whether qemu.conf is newer than libvirt's daemon is not known",
                fact,
            )
            return
    if changed is not None and daemon is None and not isinstance(facts.hypervisor, Unknown):
        yield finding(
            "store.daemon-unknown",
            "libvirt answers and its process is not seen, as when it runs in a container: whether "
            "qemu.conf is newer is not known.",
        )
    if isinstance(changed, float) and isinstance(daemon, Process) and changed > daemon.started:
        yield finding(
            "store.qemu-conf-changed",
            f"qemu.conf was changed after {daemon.name} (process {daemon.pid}) had started.",
            pid=daemon.pid,
        )


def _mounted(seen: StoreFacts, store: Store, facts: Facts) -> Iterator[Finding]:
    if store.mount.read_only:
        yield finding("store.read-only", f"The store at {store.mount_point} is mounted read-only.")
    if seen.io_error:
        yield finding(
            "store.error",
            f"The store at {store.mount_point} answers with an error: {seen.io_error}.",
        )
    elif isinstance(seen.usage, Unknown):
        yield unknown("store.usage-unknown", "What the store has promised is not known", seen.usage)
    if seen.file_system_errors:
        yield finding(
            "store.file-system-errors",
            f"{store.mount.fstype} has counted {seen.file_system_errors} errors on the store "
            f"({store.mount.source}).",
            errors=seen.file_system_errors,
        )
    notes = () if isinstance(seen.usage, Unknown) else seen.usage.notes
    yield from failed_writes(store, seen.write_errors, notes)
    if isinstance(seen.usage, Unknown):
        return
    yield from overgrown(seen.usage)
    yield from overpromised(seen.usage)
    if seen.unfinished:
        size = to_mib(seen.unfinished)
        yield finding(
            "store.resize-unfinished",
            f"Making the store at {store.mount_point} larger was not finished: it is to have "
            f"{format_size(seen.unfinished)}.",
            hint=f"Finish it: ramshelf store resize --size {size}MiB",
            size_mib=size,
        )
    yield from _after_a_reboot(seen, seen.usage, facts)
    room = capacity(seen.usage, configured_mib=None)
    damaged = seen.file_system_errors or _failed(seen.write_errors)
    if room.promised <= room.total and not (store.mount.read_only or damaged):
        wish = configured_bytes(facts)
        configured = "" if wish is None else f", {to_mib(wish)} MiB configured"
        yield finding(
            "store.ok",
            f"{store.kind.value} store at {store.mount_point}: {to_mib(room.total)} "
            f"MiB{configured}, {to_mib(room.promised)} MiB promised.",
            kind=store.kind.value,
            mount_point=store.mount_point,
            capacity_mib=to_mib(room.total),
            promised_mib=to_mib(room.promised),
        )


def overpromised(usage: StoreUsage) -> Iterator[Finding]:
    """Yield a finding for what is promised above the store's capacity."""
    room = capacity(usage, configured_mib=None)
    if room.promised > room.total:
        above = to_mib(align_up(room.promised - room.total, MIB))
        yield finding(
            "store.overpromised",
            f"The store holds {to_mib(room.total)} MiB, and {to_mib(room.promised)} MiB are "
            f"promised: {above} MiB too much.",
            capacity_mib=to_mib(room.total),
            promised_mib=to_mib(room.promised),
            above_mib=above,
        )


def _after_a_reboot(seen: StoreFacts, usage: StoreUsage, facts: Facts) -> Iterator[Finding]:
    """Yield who would start again after a reboot although it does not fit, and who would not."""
    if isinstance(seen.earlier, Unknown):
        yield unknown(
            "store.usage-unknown", "What was promised before an upgrade is not known", seen.earlier
        )
        return
    wish = configured_bytes(facts)
    configured_mib = None if wish is None else to_mib(wish)
    total = capacity(usage, configured_mib=configured_mib).total
    if seen.earlier:
        names = [
            f"{each.name} ({to_mib(align_up(each.promised, MIB))} MiB)" for each in seen.earlier
        ]
        yield finding(
            "store.promised-before",
            f"Before an upgrade more was promised than the store's capacity of {to_mib(total)} MiB,"
            f" to {_some(names)}.",
            capacity_mib=to_mib(total),
            guests=[each.name for each in seen.earlier],
        )
    refused = refused_anew(usage, seen.earlier, configured_mib=configured_mib)
    if refused:
        yield finding(
            "store.not-again",
            f"After a reboot the store, of {to_mib(total)} MiB, would have no room for "
            f"{_some(refused)}.",
            capacity_mib=to_mib(total),
            guests=list(refused),
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _failed(errors: WriteErrors | Unknown | None) -> bool:
    return isinstance(errors, WriteErrors) and errors.messages > 0


def failed_writes(
    store: Store, errors: WriteErrors | Unknown | None, notes: Iterable[Note]
) -> Iterator[Finding]:
    """Yield what the kernel could not write to the store, and whose memory it was.

    ``notes`` are those of the guests on the store.
    """
    if isinstance(errors, Unknown):
        what = "Whether writes to the store have failed is not known"
        yield unknown("store.write-errors-unknown", what, errors)
    if not isinstance(errors, WriteErrors):
        return
    if not errors.messages:
        if errors.cut:
            what = (
                "Whether writes to the store have failed is not known for all the time since it was"
                " mounted"
            )
            reason = Unknown("the kernel's log does not reach back so far")
            yield unknown("store.write-errors-unknown", what, reason)
        return
    device = store.mount.source
    yield finding(
        "store.write-errors",
        f"The kernel could not write guests' memory to the store ({device}). The last of its "
        f"messages, {errors.messages} since the store was mounted: {errors.last!r}.",
        device=device,
        messages=errors.messages,
        last=errors.last,
    )
    for name in who_lost_memory(errors, notes):
        yield finding(
            "store.memory-lost",
            f"The kernel could not write memory of guest {name} to the store ({device}).",
            guest=name,
            device=device,
        )


def overgrown(usage: StoreUsage) -> Iterator[Finding]:
    """Yield the guests whose directories hold more than is promised.

    Then come the extents and inodes, where the store runs out of them.
    """
    for excess in excesses(usage):
        size = to_mib(align_up(excess.beyond, MIB))
        yield finding(
            "store.beyond-promise",
            f"The directory of guest {excess.guest} holds {size} MiB more than the guest is "
            f"promised ({excess.directory}).",
            guest=excess.guest,
            directory=excess.directory,
            beyond_mib=size,
        )
    if extents_run_out(usage):
        left, aside = max(0, to_mib(spare(usage))), to_mib(set_aside(usage))
        yield finding(
            "store.extents",
            f"{left} MiB of the {aside} MiB that are set aside for the records of guests' memory "
            "are left.",
            left_mib=left,
            set_aside_mib=aside,
        )
    if inodes_run_out(usage):
        fullest = crowded(usage)
        yield finding(
            "store.inodes",
            f"{usage.inodes_free} of the store's {usage.inodes} inodes are left{_crowd(fullest)}.",
            directory=fullest.path if fullest else "",
            inodes=usage.inodes,
            inodes_free=usage.inodes_free,
        )


def _crowd(directory: GuestDirectory | None) -> str:
    """Return what to add to a sentence about the directory that takes the inodes."""
    if directory is None:
        return "; no guest's directory has many entries"
    more = " or more" if directory.cut else ""
    deeper = (
        ", and what lies in those that are directories was not counted" if directory.others else ""
    )
    return f"; {directory.path} has {directory.entries}{more} entries{deeper}"


def _access(seen: StoreFacts, store: Store, account: Account | Unknown) -> Iterator[Finding]:
    if seen.memory_dir_missing:
        yield finding(
            "store.no-directory", f"{store.memory_dir} does not exist.", path=store.memory_dir
        )
        return
    for what, fact in (("The directory's owner and mode", seen.path), ("QEMU's user", account)):
        if isinstance(fact, Unknown):
            yield unknown("store.owner-unknown", f"{what} could not be found out", fact)
            return
    if isinstance(seen.path, Unknown) or isinstance(account, Unknown):
        return
    for directory in seen.path:
        if not _may_search(directory, account):
            yield finding(
                "store.owner",
                f"QEMU's user {account.user} cannot enter {directory.path} (owner {directory.uid}:"
                f"{directory.gid}, mode {stat.S_IMODE(directory.mode):04o}).",
                path=directory.path,
                user=account.user,
            )
    last = seen.path[-1]
    if last.mode & (stat.S_IROTH | stat.S_IWOTH):
        yield finding(
            "store.readable",
            f"Other users can list {last.path} (mode {stat.S_IMODE(last.mode):04o}).",
            path=last.path,
        )


def _may_search(directory: PathDirectory, account: Account) -> bool:
    if account.uid == 0:
        return True
    if directory.uid == account.uid:
        return bool(directory.mode & stat.S_IXUSR)
    if directory.gid in account.gids:
        return bool(directory.mode & stat.S_IXGRP)
    return bool(directory.mode & stat.S_IXOTH)


def _boot(seen: StoreFacts, store: Store) -> Iterator[Finding]:
    if isinstance(seen.boot, Unknown):
        yield unknown("store.boot-unknown", "What mounts the store at boot is not known", seen.boot)
        return
    boot = seen.boot
    if not boot.mounted_by:
        yield finding(
            "store.no-boot", f"Neither fstab nor a mount unit mounts {store.mount_point} at boot."
        )
    if store.kind.swaps:
        for area in seen.swaps:
            if not area.at_boot:
                yield finding(
                    "store.swap-no-boot",
                    f"Nothing activates the swap {area.path} at boot.",
                    swap=area.path,
                )
        if boot.mounted_by and not any(area.units & boot.requires for area in seen.swaps):
            names = (
                ", ".join(sorted(unit for area in seen.swaps for unit in area.units)) or "no swap"
            )
            yield finding(
                "store.swap-order",
                f"{boot.mounted_by} mounts {store.mount_point} without requiring its swap "
                f"({names}).",
                mounted_by=boot.mounted_by,
            )
    loops = [each.name for each in _devices(seen) if each.direct_io is not None]
    if not store.kind.tmpfs and loops and boot.mounted_by and not boot.requires:
        yield finding(
            "store.loop-order",
            f"{boot.mounted_by} mounts {store.mount_point} without requiring what attaches "
            f"{loops[0]}.",
            device=loops[0],
        )
    for service, order in boot.services.items():
        if not order.waits:
            yield finding(
                "store.libvirt-order",
                f"{service} does not wait for {store.mount_point} at boot.",
                service=service,
                mount_point=store.mount_point,
            )
        elif order.requires and service not in NEEDING:
            yield finding(
                "store.libvirt-requires",
                f"{service} does not start where {store.mount_point} cannot be mounted: without "
                "the store guests that need none do not start either.",
                service=service,
                mount_point=store.mount_point,
            )


def _devices(seen: StoreFacts) -> tuple[Device, ...]:
    return () if isinstance(seen.devices, Unknown) else seen.devices


def _stale(seen: StoreFacts) -> Iterator[Finding]:
    if isinstance(seen.stale, Unknown):
        yield unknown(
            "store.stale-unknown", "Directories of past guests could not be looked for", seen.stale
        )
    elif seen.stale:
        total = sum(directory.size for directory in seen.stale)
        names = ", ".join(directory.path for directory in seen.stale[:3])
        more = "" if len(seen.stale) <= 3 else f" and {len(seen.stale) - 3} more"
        yield finding(
            "store.stale",
            f"{len(seen.stale)} directories of past guests hold {format_size(total)}: "
            f"{names}{more}.",
            directories=[directory.path for directory in seen.stale],
            size_mib=total // MIB,
        )
