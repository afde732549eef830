"""What the hook knows of its host besides the guest that libvirt calls it for; and what it tells others."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

from ramshelf.core.capacity import capacity
from ramshelf.core.errors import ConfigError
from ramshelf.core.guest import Guest, parse_guest
from ramshelf.core.hostanswer import HostAnswer
from ramshelf.core.pinning import ram_left
from ramshelf.core.qemuconf import parse_qemu_conf
from ramshelf.core.setting import (
    DEFAULT_HOST_RESERVED_MIB,
    Setting,
    file_backed_memory_mib,
    host_reserved_mib,
)
from ramshelf.core.store import NoStore, Store
from ramshelf.core.units import MIB, to_mib
from ramshelf.system.backingstore import QEMU_CONF, observe_store
from ramshelf.system.configfiles import existing_files, read_settings
from ramshelf.system.filesystem import read_text
from ramshelf.system.hooklog import record
from ramshelf.system.procfs import meminfo

STATE_DIR = "/run/libvirt/qemu"

_Value = TypeVar("_Value")


def limit_mib(files: Sequence[str]) -> int | None:
    """file_backed_memory as the files have it now; the store's own size bounds what it can hold."""
    return _configured(files, file_backed_memory_mib, None)


def ram(files: Sequence[str]) -> tuple[int, int]:
    """RAM besides huge pages, and what of it the host needs for itself; bytes."""
    reserved = _configured(files, lambda _, settings: host_reserved_mib(settings), DEFAULT_HOST_RESERVED_MIB)
    host = meminfo()
    return host["MemTotal"] - host.get("Hugetlb", 0), reserved * MIB


def state_files(besides: str | None = None) -> Iterator[tuple[str, bytes]]:
    """Names and live XML of the guests by libvirt's state files: they run, or are just starting."""
    with suppress(FileNotFoundError):
        for entry in os.scandir(STATE_DIR):
            name = entry.name.removesuffix(".xml")
            if name in {entry.name, besides}:
                continue
            with suppress(FileNotFoundError), open(entry.path, "rb") as file:
                yield name, file.read()


def guests(besides: str | None = None) -> Iterator[Guest]:
    """The same, as what is known of them."""
    return (parse_guest(xml, page_size=_page_size()) for _, xml in state_files(besides))


def answer(files: Sequence[str]) -> HostAnswer:
    """This host to a guest that may come; nothing is held for it, it is admitted when it comes."""
    limit = limit_mib(files)
    observed = observe_store()
    store = observed.store if isinstance(observed.store, Store) else None
    room = capacity(observed.usage, configured_mib=limit or None) if observed.usage is not None else None
    size, reserved = ram(files)
    running = {name: parse_guest(xml, page_size=_page_size()) for name, xml in state_files()}
    return HostAnswer(
        kernel=os.uname().release,
        kind=store.kind if store else None,
        fstype=store.mount.fstype if store else None,
        problem=observed.store.code if isinstance(observed.store, NoStore) else None,
        configured=bool(limit),
        off=limit == 0,
        capacity_mib=to_mib(room.total) if room else 0,
        promised_mib=to_mib(room.promised) if room else 0,
        free_mib=to_mib(room.free) if room else 0,
        ram_mib=to_mib(size - reserved),
        resident_mib=to_mib(sum(_resident(name) for name, guest in running.items() if guest.file_backed)),
        pinnable_mib=to_mib(max(0, ram_left(running.values(), ram=size - reserved))),
        userfault=_userfault(),
    )


def _resident(name: str) -> int:
    """What a guest's QEMU maps of files that is in RAM, bytes: its memory, and some MiB of programs.

    The kernel keeps the figure (proc_pid_statm(5), shared), so that nothing is counted here.
    """
    with suppress(OSError, ValueError, IndexError):  # it has ended already
        pid = int(read_text(f"{STATE_DIR}/{name}.pid"))
        return int(read_text(f"/proc/{pid}/statm").split()[2]) * _page_size()
    return 0


def _page_size() -> int:
    return os.sysconf("SC_PAGE_SIZE")


def _userfault() -> bool:
    """Whether QEMU may handle page faults itself: as root, or where the kernel lets everybody (Linux 5.2)."""
    user = parse_qemu_conf(read_text(QEMU_CONF, ""), QEMU_CONF).get("user")
    return (
        user in {"root", "+0", "0"} or read_text("/proc/sys/vm/unprivileged_userfaultfd", "1").strip() != "0"
    )


def _configured(
    files: Sequence[str], read: Callable[[Sequence[str], Sequence[Setting]], _Value], default: _Value
) -> _Value:
    """What the files say, or the default: a file that cannot be used is for the doctor to tell."""
    try:
        existing = existing_files(files)
        return read(existing, read_settings(existing))
    except ConfigError as error:
        record("configuration", code=error.code, reason=error.sentence)
        return default
