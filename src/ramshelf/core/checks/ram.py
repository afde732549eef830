"""The RAM budget: what can never be on the store must fit in RAM, or the OOM killer comes."""

from collections.abc import Iterator
from dataclasses import dataclass

from ramshelf.core.capacity import capacity
from ramshelf.core.checks.catalog import finding, unknown
from ramshelf.core.config import Config
from ramshelf.core.findings import Finding
from ramshelf.core.host import Facts, RunningGuest, StoreFacts, Unknown
from ramshelf.core.kind import Kind
from ramshelf.core.store import Store
from ramshelf.core.units import MIB, to_mib

_PAGE_TABLE_SHARE = 512
"""A page table entry takes 8 bytes for 4096: what a guest's QEMU needs once all its memory is mapped."""


def check_ram(facts: Facts) -> Iterator[Finding]:
    """The budget, and what would act before it is used up."""
    yield from _budget(facts)
    yield from _killers(facts)
    yield from _slice(facts)


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Bytes of RAM that nothing can move to the store; ``unmeasured``: guests whose QEMU is not seen."""

    overhead: int
    page_tables: int
    pinned: int
    anonymous: int
    huge_pages: int
    store: int
    host: int
    unmeasured: tuple[str, ...]

    @property
    def total(self) -> int:
        """All of it together."""
        return (
            self.overhead
            + self.page_tables
            + self.pinned
            + self.anonymous
            + self.huge_pages
            + self.store
            + self.host
        )


def ram_demand(guests: tuple[RunningGuest, ...], *, huge_pages: int, store: int, host: int) -> Demand:
    """What guests, huge pages, a store that is RAM itself, and the host need of RAM.

    QEMU's overhead is measured (RssAnon and VmSwap), less the anonymous memory of the guest, which counts in
    full; page tables count for the whole guest.
    """
    overhead = page_tables = pinned = anonymous = 0
    unmeasured = []
    for running in guests:
        guest = running.guest
        in_ram = 0 if guest.hugepages else max(0, guest.memory - guest.file_bytes)
        pinned += guest.pinned
        anonymous += 0 if guest.pinned else in_ram
        page_tables += guest.memory // _PAGE_TABLE_SHARE
        if running.process is None:
            unmeasured.append(guest.name)
            continue
        overhead += max(0, running.process.anonymous + running.process.swapped - in_ram)
        page_tables += max(0, running.process.page_tables - guest.memory // _PAGE_TABLE_SHARE)
    return Demand(
        overhead=overhead,
        page_tables=page_tables,
        pinned=pinned,
        anonymous=anonymous,
        huge_pages=huge_pages,
        store=store,
        host=host,
        unmeasured=tuple(unmeasured),
    )


def _budget(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.meminfo, Unknown):
        yield unknown("ram.memory-unknown", "The host's RAM could not be read", facts.meminfo)
        return
    if isinstance(facts.guests, Unknown):
        yield unknown("ram.guests-unknown", "What QEMU needs could not be measured", facts.guests)
        return
    ram = facts.meminfo["MemTotal"]
    config = facts.config if isinstance(facts.config, Config) else Config()
    demand = ram_demand(
        facts.guests,
        huge_pages=facts.meminfo.get("Hugetlb", 0),
        store=_store_in_ram(facts),
        host=config.host_reserved_mib * MIB,
    )
    if demand.unmeasured:
        yield finding(
            "ram.guests-unknown",
            f"What QEMU needs could not be measured for {', '.join(demand.unmeasured)}.",
            hint="Run the doctor as root, where it sees the guests' QEMU processes.",
            guests=list(demand.unmeasured),
        )
    parts = {
        "overhead": demand.overhead,
        "page tables": demand.page_tables,
        "pinned": demand.pinned,
        "anonymous": demand.anonymous,
        "huge pages": demand.huge_pages,
        "store": demand.store,
        "host": demand.host,
    }
    text = ", ".join(f"{name} {to_mib(size)}" for name, size in parts.items() if size)
    figures = {f"{name.replace(' ', '_')}_mib": to_mib(size) for name, size in parts.items()}
    if demand.total > ram:
        code = "ram.exceeded"
    elif demand.total > 0.9 * ram:
        code = "ram.tight"
    elif demand.unmeasured:
        return
    else:
        code = "ram.ok"
    yield finding(
        code,
        f"{to_mib(demand.total)} of {to_mib(ram)} MiB RAM are for what cannot be on the store ({text}).",
        ram_mib=to_mib(ram),
        demand_mib=to_mib(demand.total),
        parts=figures,
    )


def _store_in_ram(facts: Facts) -> int:
    """What a tmpfs has promised that no swap stands behind."""
    if not isinstance(facts.store, StoreFacts) or isinstance(facts.store.usage, Unknown):
        return 0
    usage = facts.store.usage
    if not usage.kind.tmpfs:
        return 0
    promised = capacity(usage, configured_mib=None).promised
    return promised if usage.kind is Kind.RAM else max(0, promised - usage.swap)


def _killers(facts: Facts) -> Iterator[Finding]:
    store = facts.store.store if isinstance(facts.store, StoreFacts) else None
    tmpfs = isinstance(store, Store) and store.kind.tmpfs
    if isinstance(facts.processes, Unknown):
        yield unknown("ram.oomd-unknown", "Whether systemd-oomd runs is not known", facts.processes)
    elif any(process.service == "systemd-oomd" for process in facts.processes):
        yield finding("ram.oomd", "systemd-oomd runs: it may kill guests before RAM and swap are full.")
    overcommit = facts.sysctls["overcommit_memory"]
    if isinstance(overcommit, Unknown):
        yield unknown("ram.overcommit-unknown", "vm.overcommit_memory could not be read", overcommit)
    elif overcommit == 2:
        yield finding(
            "ram.strict-overcommit",
            "vm.overcommit_memory is 2: memory is refused beyond the commit limit.",
            milder=not tmpfs,
        )
    if isinstance(facts.oom_kills, Unknown):
        yield unknown("ram.oom-kills-unknown", "OOM kills could not be counted", facts.oom_kills)
    elif facts.oom_kills:
        yield finding(
            "ram.oom-kills",
            f"Processes that the kernel has killed since boot because memory was short: {facts.oom_kills}.",
            oom_kills=facts.oom_kills,
        )
    daemon = facts.daemon
    if tmpfs and daemon is not None and not isinstance(daemon, Unknown) and daemon.oom_score_adj >= 0:
        yield finding(
            "ram.daemon-unprotected",
            f"{daemon.name} has OOM score adjustment {daemon.oom_score_adj}.",
            oom_score_adj=daemon.oom_score_adj,
        )


def _slice(facts: Facts) -> Iterator[Finding]:
    limits = facts.machine_slice
    if isinstance(limits, Unknown):
        yield unknown("ram.slice-unknown", "The limits of machine.slice are not known", limits)
        return
    if limits is None:
        return
    if (
        limits.memory_max is not None
        and not isinstance(facts.meminfo, Unknown)
        and limits.memory_max < facts.meminfo["MemTotal"]
    ):
        yield finding(
            "ram.slice-limit",
            f"{limits.name} may use {to_mib(limits.memory_max)} MiB of RAM.",
            memory_max_mib=to_mib(limits.memory_max),
        )
    if (
        limits.swap_max is not None
        and isinstance(facts.store, StoreFacts)
        and not isinstance(facts.store.usage, Unknown)
        and facts.store.usage.kind is Kind.SWAP
        and limits.swap_max < capacity(facts.store.usage, configured_mib=None).total
    ):
        yield finding(
            "ram.slice-swap",
            f"{limits.name} may use {to_mib(limits.swap_max)} MiB of swap, less than the store promises.",
            swap_max_mib=to_mib(limits.swap_max),
        )
