"""The store on this host, observed: qemu.conf, fstab, the mount table, swap and the files on it."""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from ramshelf.core.capacity import StoreUsage
from ramshelf.core.errors import ConfigError
from ramshelf.core.fstab import KIND_OPTION, Entry, parse_fstab
from ramshelf.core.guest import directory_names
from ramshelf.core.mounts import covering, outermost
from ramshelf.core.qemuconf import (
    DEFAULT_MEMORY_BACKING_DIR,
    MemoryDirectory,
    memory_directory,
    parse_qemu_conf,
)
from ramshelf.core.store import NoStore, Store, find_store
from ramshelf.system.filesystem import file_usages, read_text, size_and_used
from ramshelf.system.procfs import mounts, swaps

QEMU_CONF = "/etc/libvirt/qemu.conf"
FSTAB = "/etc/fstab"
_QUOTES = "\"'"


@dataclass(frozen=True, kw_only=True)
class ObservedStore:
    """``usage`` is None where there is no store."""

    directory: MemoryDirectory
    store: Store | NoStore
    usage: StoreUsage | None


def observe_store(path: str | None = None) -> ObservedStore:
    """Look at the store that libvirt's effective memory backing directory lies on.

    ``path`` looks at another directory instead. Raises ConfigError where qemu.conf cannot be parsed, OSError
    where it cannot be read.
    """
    directory = memory_directory(parse_qemu_conf(read_text(QEMU_CONF, ""), QEMU_CONF))
    store, usage = observe_at(path or directory.path, (directory.configured,))
    return ObservedStore(directory=directory, store=store, usage=usage)


def observe_at(memory_dir: str, also: Iterable[str] = ()) -> tuple[Store | NoStore, StoreUsage | None]:
    """The store that ``memory_dir`` lies on, and its figures.

    Guests' files are counted below ``memory_dir`` and those of the directories ``also`` that lie on the same
    mount: a libvirtd whose qemu.conf was changed while it ran has guests below both.
    """
    table, areas = mounts(), swaps()
    entries = parse_fstab(read_text(FSTAB, ""))
    store = find_store(table, entries, memory_dir, devices=named_devices(entries), swap_active=bool(areas))
    if isinstance(store, NoStore):
        return store, None
    size, used = size_and_used(store.mount_point)
    roots = outermost((memory_dir, *(path for path in also if covering(table, path) == store.mount)))
    usage = StoreUsage(
        kind=store.kind,
        size=size,
        used=used,
        swap=sum(area.size for area in areas),
        beyond_swap=store.beyond_swap,
        files=tuple(usage for root in roots for usage in file_usages(root)),
    )
    return store, usage


def named_devices(entries: Iterable[Entry]) -> dict[str, tuple[int, int]]:
    """The block devices that fstab names, by its first field; udev's links stand for UUID= and the like."""
    devices = {}
    for entry in entries:
        tag, separator, value = entry.spec.partition("=")
        path = f"/dev/disk/by-{tag.lower()}/{value.strip(_QUOTES)}" if separator else entry.spec
        with suppress(OSError, ValueError):
            status = os.stat(path)
            if stat.S_ISBLK(status.st_mode):
                devices[entry.spec] = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return devices


def memory_directories() -> tuple[str, ...]:
    """All places where libvirt may have put a guest's directory, the likeliest first.

    What counts for libvirt is the qemu.conf that it read when it started. So also the other layout of the
    same directory, libvirt's default, and the stores in fstab.
    """
    try:
        conf = parse_qemu_conf(read_text(QEMU_CONF, ""), QEMU_CONF)
    except ConfigError:
        conf = {}
    directory = memory_directory(conf)
    stores = (entry.mount_point for entry in parse_fstab(read_text(FSTAB, "")) if entry.option(KIND_OPTION))
    places = (directory.configured, DEFAULT_MEMORY_BACKING_DIR, *stores)
    layouts = ((place, memory_directory({"memory_backing_dir": place}).path) for place in places)
    return tuple(dict.fromkeys((directory.path, *(path for layout in layouts for path in layout))))


def guest_directories(domain_id: int, name: str) -> tuple[str, ...]:
    """The directories that are there under this guest's id and name, in all places where one may be."""
    return tuple(
        path
        for parent in memory_directories()
        for path in (os.path.join(parent, entry) for entry in directory_names(domain_id, name))
        if os.path.isdir(path) and not os.path.islink(path)
    )
