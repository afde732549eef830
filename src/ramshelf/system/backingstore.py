"""The store on this host, observed: qemu.conf, fstab, the mount table, swap and the files on it."""

from dataclasses import dataclass

from ramshelf.core.capacity import StoreUsage
from ramshelf.core.fstab import parse_fstab
from ramshelf.core.qemuconf import MemoryDirectory, memory_directory, parse_qemu_conf
from ramshelf.core.store import NoStore, Store, find_store
from ramshelf.system.filesystem import file_usages, read_text, size_and_used
from ramshelf.system.procfs import mounts, swaps

QEMU_CONF = "/etc/libvirt/qemu.conf"
FSTAB = "/etc/fstab"


@dataclass(frozen=True, kw_only=True)
class ObservedStore:
    """``usage`` is None where there is no store."""

    directory: MemoryDirectory
    store: Store | NoStore
    usage: StoreUsage | None


def observe_store(path: str | None = None) -> ObservedStore:
    """Look at the store that libvirt's effective memory backing directory lies on.

    ``path`` overrides the directory that qemu.conf gives (the hook knows it from the guest's own
    directory). Raises ConfigError where qemu.conf cannot be parsed, OSError where it cannot be read.
    """
    directory = memory_directory(parse_qemu_conf(read_text(QEMU_CONF, ""), QEMU_CONF))
    memory_dir = path or directory.path
    areas = swaps()
    store = find_store(mounts(), parse_fstab(read_text(FSTAB, "")), memory_dir, swap_active=bool(areas))
    if isinstance(store, NoStore):
        return ObservedStore(directory=directory, store=store, usage=None)
    size, used = size_and_used(store.mount_point)
    usage = StoreUsage(
        kind=store.kind,
        size=size,
        used=used,
        swap=sum(area.size for area in areas),
        beyond_swap=store.beyond_swap,
        files=file_usages(memory_dir),
    )
    return ObservedStore(directory=directory, store=store, usage=usage)
