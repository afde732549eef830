"""Checks of what the store is made of, and of the kernel's settings for it.

It is made of devices, swap or a disk file system.
"""

from collections.abc import Iterator

from ramshelf.core.catalog import finding, unknown
from ramshelf.core.config import Config
from ramshelf.core.doctor.facts import Facts, StoreFacts
from ramshelf.core.findings import Finding
from ramshelf.core.host import Device, Process, Unknown
from ramshelf.core.requirements import punch_writes_back
from ramshelf.core.store.find import Store
from ramshelf.core.units import MIB, to_mib

_SWAPPINESS_FLOOR = 60
"""The kernel's default; below it reclaim takes the page cache before cold guest memory."""

_DIRTY_FLOOR = 40
"""The least per cent of RAM that should be dirty before writers are throttled.

The kernel's default is 20.
"""

_SWAP_USE_FLOOR = 16 * MIB
"""The bytes of other processes in the swap above which they are worth a word."""

_ERROR_SHARE = 10_000
"""The commands of a device among which more than one error is reported.

SCSI counts commands that a device does not know as errors, so a few in a device's life are normal.
"""


def check_medium(facts: Facts) -> Iterator[Finding]:
    """Check the store's medium; where there is no store, check_store says so."""
    if not isinstance(facts.store, StoreFacts) or not isinstance(facts.store.store, Store):
        return
    store = facts.store.store
    yield from _devices(facts.store, store)
    if store.kind.swaps:
        yield from _swap_size(facts.store, store)
        yield from _swap_settings(facts)
        yield from _swap_users(facts)
    if store.kind.tmpfs:
        yield from _against_memory(facts, facts.store, store)
    else:
        yield from _disk(facts, store)


def _devices(seen: StoreFacts, store: Store) -> Iterator[Finding]:
    if isinstance(seen.devices, Unknown):
        yield unknown(
            "store.device-unknown", "The devices below the store are not known", seen.devices
        )
        return
    for device in seen.devices:
        yield from _device(device, store)


def _device(device: Device, store: Store) -> Iterator[Finding]:
    if device.network:
        yield finding(
            "store.network",
            f"{device.name} below the store is a network device ({device.network}).",
        )
    elif device.rotational:
        yield finding("store.rotational", f"{device.name} below the store is a rotating disk.")
    if isinstance(device.thin, Unknown):
        yield unknown(
            "store.thin-unknown", f"Whether {device.name} is thin is not known", device.thin
        )
    elif device.thin:
        yield finding(
            "store.thin", f"{device.name} below the store is {device.thin}.", device=device.name
        )
    if device.in_ram:
        yield finding("store.in-ram", f"{device.name} below the store is RAM.", device=device.name)
    if device.direct_io is not None and store.kind.swaps:
        yield finding(
            "store.swap-on-loop", f"The store's swap goes through the loop device {device.name}."
        )
    elif device.direct_io is False:
        yield finding(
            "store.buffered-loop", f"The loop device {device.name} does not use direct I/O."
        )
    if device.errors and device.errors * _ERROR_SHARE > (device.commands or 0):
        yield finding(
            "store.device-errors",
            f"{device.name} below the store has counted {device.errors} failed commands.",
            device=device.name,
            errors=device.errors,
        )


def _swap_size(seen: StoreFacts, store: Store) -> Iterator[Finding]:
    if not seen.swaps:
        yield finding(
            "store.no-swap", "The store is a tmpfs over swap, and no swap on a disk is active."
        )
        return
    if isinstance(seen.usage, Unknown) or seen.usage.size <= seen.usage.swap:
        return
    size, swap = to_mib(seen.usage.size), to_mib(seen.usage.swap)
    code = "store.beyond-swap" if store.beyond_swap else "store.larger-than-swap"
    yield finding(
        code,
        f"The store's tmpfs has {size} MiB, and the swap behind it {swap} MiB.",
        size_mib=size,
        swap_mib=swap,
    )


def _against_memory(facts: Facts, seen: StoreFacts, store: Store) -> Iterator[Finding]:
    """Compare a tmpfs with the swap and RAM that there are for it.

    A missing swap is reported by itself, and RAM that cannot be read is reported by check_ram.
    """
    if isinstance(seen.usage, Unknown) or isinstance(facts.meminfo, Unknown):
        return
    config = facts.config if isinstance(facts.config, Config) else Config()
    ram = max(0, facts.meminfo["MemTotal"] - config.host_reserved_mib * MIB)
    behind = ram + (seen.usage.swap if store.kind.swaps else 0)
    if seen.usage.size > behind:
        yield finding(
            "store.exceeds-memory",
            f"The store's tmpfs has {to_mib(seen.usage.size)} MiB, and there are {to_mib(behind)} "
            "MiB of swap and RAM for it.",
            size_mib=to_mib(seen.usage.size),
            memory_mib=to_mib(behind),
        )


def _sysctls(facts: Facts, *names: str) -> tuple[dict[str, int], list[Finding]]:
    known, unread = {}, []
    for name in names:
        value = facts.sysctls[name]
        if isinstance(value, Unknown):
            unread.append(unknown("store.sysctl-unknown", f"vm.{name} could not be read", value))
        else:
            known[name] = value
    return known, unread


def _swap_settings(facts: Facts) -> Iterator[Finding]:
    known, unread = _sysctls(facts, "page-cluster", "swappiness")
    yield from unread
    if cluster := known.get("page-cluster"):
        yield finding(
            "store.page-cluster",
            f"vm.page-cluster is {cluster}: each miss reads up to {1 << cluster} pages from swap.",
            page_cluster=cluster,
        )
    swappiness = known.get("swappiness", _SWAPPINESS_FLOOR)
    if swappiness < _SWAPPINESS_FLOOR:
        yield finding(
            "store.swappiness",
            f"vm.swappiness is {swappiness}, below {_SWAPPINESS_FLOOR}.",
            swappiness=swappiness,
        )


def _runs_a_guest(process: Process, facts: Facts) -> bool:
    """Tell whether a process runs a guest; where the guests are not known, its name decides."""
    if isinstance(facts.guests, Unknown):
        return process.qemu
    return any(
        each.process is not None and each.process.pid == process.pid for each in facts.guests
    )


def _swap_users(facts: Facts) -> Iterator[Finding]:
    """Check who else uses the swap, or may be swapped out to it.

    VmSwap leaves tmpfs pages out, so what another process has swapped there is a stranger's.
    """
    if isinstance(facts.processes, Unknown):
        yield unknown(
            "store.swap-shared-unknown", "Who else uses the swap is not known", facts.processes
        )
    else:
        strangers = sorted(
            (
                process
                for process in facts.processes
                if process.swapped and not _runs_a_guest(process, facts)
            ),
            key=lambda process: -process.swapped,
        )
        total = sum(process.swapped for process in strangers)
        if total > _SWAP_USE_FLOOR:
            names = ", ".join(
                f"{process.name} {to_mib(process.swapped)} MiB" for process in strangers[:3]
            )
            yield finding(
                "store.swap-shared",
                f"{to_mib(total)} MiB of the store's swap are used by others: {names}.",
                others_mib=to_mib(total),
            )
    if isinstance(facts.slices, Unknown):
        yield finding(
            "store.services-unlimited",
            f"Host services may be swapped into the guests' place: {facts.slices.reason}.",
        )
        return
    free = [each.name for each in facts.slices if each.swap_max != 0]
    if free:
        yield finding(
            "store.services-may-swap",
            f"Processes in {', '.join(free)} may be swapped out into the guests' place.",
            slices=free,
        )


def _disk(facts: Facts, store: Store) -> Iterator[Finding]:
    kernel = (0, 0, 0) if isinstance(facts.kernel, Unknown) else facts.kernel
    if punch_writes_back(store.mount.fstype, kernel):
        yield finding(
            "store.punch-flushes",
            f"{store.mount.fstype} on this kernel writes memory back before it discards it; "
            "ramshelf leaves discard out.",
        )
    if store.kind.dax:
        return
    known, unread = _sysctls(facts, "dirty_bytes", "dirty_ratio")
    yield from unread
    limit = known.get("dirty_ratio")
    if (limit_bytes := known.get("dirty_bytes")) and not isinstance(facts.meminfo, Unknown):
        limit = 100 * limit_bytes // facts.meminfo["MemTotal"]
    if limit is not None and limit < _DIRTY_FLOOR:
        yield finding(
            "store.dirty-throttling",
            f"Guests are throttled to the disk's speed once {limit} % of RAM is dirty.",
            dirty_per_cent=limit,
        )
