"""What the hook tells another host about this one when a guest may come."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ramshelf.core.files.qemuconf import parse_qemu_conf
from ramshelf.core.migration.answer import HostAnswer
from ramshelf.core.ram import balance
from ramshelf.core.store.capacity import capacity
from ramshelf.core.store.find import NoStore, Store
from ramshelf.core.store.ledger import note_of
from ramshelf.core.units import to_mib
from ramshelf.hook.thishost import bounds
from ramshelf.system.backingstore import QEMU_CONF, observe_store
from ramshelf.system.filesystem import read_text
from ramshelf.system.livestate import live_guests, qemu_pid
from ramshelf.system.procfs import host_ram

if TYPE_CHECKING:
    from collections.abc import Sequence


def answer(files: Sequence[str]) -> HostAnswer:
    """Return what this host answers to a guest that may come.

    Nothing is held for the guest; it is admitted when it comes.
    """
    limit, reserved = bounds(files)
    observed = observe_store()
    store = observed.store if isinstance(observed.store, Store) else None
    room = (
        capacity(observed.usage, configured_mib=limit.mib) if observed.usage is not None else None
    )
    host = host_ram(store, reserved=reserved)
    guests = [live.guest for live in live_guests() if live.guest is not None]
    return HostAnswer(
        kernel=os.uname().release,
        kind=store.kind if store else None,
        fstype=store.mount.fstype if store else None,
        problem=observed.store.code if isinstance(observed.store, NoStore) else None,
        configured=limit.mib is not None,
        off=limit.off,
        capacity_mib=to_mib(room.total) if room else 0,
        promised_mib=to_mib(room.promised) if room else 0,
        free_mib=to_mib(room.free) if room else 0,
        ram_mib=to_mib(host.size - host.huge_pages - reserved),
        resident_mib=to_mib(sum(_resident(guest.name) for guest in guests if guest.file_backed)),
        pinnable_mib=to_mib(balance(map(note_of, guests), host).free),
        userfault=_userfault(),
        device="{}:{}".format(*store.mount.device) if store else None,
        reserved_mib=to_mib(reserved),
    )


def _resident(name: str) -> int:
    """Return the bytes that a guest's QEMU maps of files and that are in RAM.

    They are its memory, and some MiB of programs. The kernel keeps the figure (proc_pid_statm(5),
    shared), so that nothing is counted here.
    """
    try:
        return int(read_text(f"/proc/{qemu_pid(name)}/statm").split()[2]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except (OSError, ValueError, IndexError):  # it has ended already
        return 0


def _userfault() -> bool:
    """Tell whether QEMU may handle page faults itself.

    It may as root, or where the kernel lets everybody (Linux 5.2).
    """
    user = parse_qemu_conf(read_text(QEMU_CONF, ""), QEMU_CONF).get("user")
    return (
        user in {"root", "+0", "0"}
        or read_text("/proc/sys/vm/unprivileged_userfaultfd", "1").strip() != "0"
    )
