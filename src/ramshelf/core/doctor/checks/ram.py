"""Checks of the RAM budget: what can never be on the store must fit in RAM.

Where it does not, the OOM killer comes.
"""

from collections.abc import Iterable, Iterator, Mapping

from ramshelf.core.catalog import finding, unknown
from ramshelf.core.config import Config
from ramshelf.core.doctor.facts import Facts, GuestFacts, StoreFacts
from ramshelf.core.findings import Finding
from ramshelf.core.host import Unknown
from ramshelf.core.ram import HostRam, anonymous_alone, ram_demand
from ramshelf.core.store.capacity import capacity
from ramshelf.core.store.find import Store
from ramshelf.core.store.ledger import Note, note_of
from ramshelf.core.units import MIB, to_mib


def check_ram(facts: Facts) -> Iterator[Finding]:
    """Check the budget, and what would act before it is used up."""
    yield from _budget(facts)
    yield from _killers(facts)
    yield from _slice(facts)


def _budget(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.meminfo, Unknown):
        yield unknown("ram.memory-unknown", "The host's RAM could not be read", facts.meminfo)
        return
    if isinstance(facts.guests, Unknown):
        yield unknown("ram.guests-unknown", "What QEMU needs could not be measured", facts.guests)
        return
    ram = _host_ram(facts, facts.meminfo)
    unmeasured = [running.guest.name for running in facts.guests if running.process is None]
    if unmeasured:
        yield finding(
            "ram.guests-unknown",
            f"What QEMU needs could not be measured for {', '.join(unmeasured)}.",
            guests=unmeasured,
        )
    notes = [note_of(running.guest) for running in facts.guests]
    yield from _alone(notes, ram)
    demand = ram_demand(notes, ram, _measured(facts.guests))
    if demand.total > ram.size:
        code = "ram.exceeded"
    elif demand.total > 0.9 * ram.size:
        code = "ram.tight"
    elif unmeasured:
        return
    else:
        code = "ram.ok"
    yield finding(
        code,
        f"{to_mib(demand.total)} of {to_mib(ram.size)} MiB RAM are needed for what cannot go to "
        f"the store ({demand}).",
        ram_mib=to_mib(ram.size),
        demand_mib=to_mib(demand.total),
        parts=demand.figures,
    )


def _host_ram(facts: Facts, meminfo: Mapping[str, int]) -> HostRam:
    config = facts.config if isinstance(facts.config, Config) else Config()
    seen = facts.store if isinstance(facts.store, StoreFacts) else None
    store = seen.store if seen and isinstance(seen.store, Store) else None
    return HostRam(
        size=meminfo["MemTotal"],
        huge_pages=meminfo.get("Hugetlb", 0),
        reserved=config.host_reserved_mib * MIB,
        swap=sum(area.size for area in seen.swaps) if seen else 0,
        kind=store.kind if store else None,
        file_system=store.mount.fstype if store else "",
    )


def _measured(guests: Iterable[GuestFacts]) -> dict[str, int]:
    """Return the bytes that each QEMU has at least besides its guest's memory.

    All of the guest's memory that is anonymous counts as used.
    """
    return {
        running.guest.name: (
            running.process.anonymous
            + running.process.swapped
            - max(0, running.guest.paged - running.guest.file_bytes)
            - running.guest.private_bytes
        )
        for running in guests
        if running.process is not None
    }


def _alone(notes: Iterable[Note], ram: HostRam) -> Iterator[Finding]:
    demand = anonymous_alone(notes, ram)
    if demand is not None:
        yield finding(
            "ram.anonymous",
            f"Anonymous guests alone may need {to_mib(demand.total)} of {to_mib(ram.size)} MiB RAM "
            f"({demand}): no guest with memory in files is admitted.",
            ram_mib=to_mib(ram.size),
            demand_mib=to_mib(demand.total),
        )


def _killers(facts: Facts) -> Iterator[Finding]:
    store = facts.store.store if isinstance(facts.store, StoreFacts) else None
    tmpfs = isinstance(store, Store) and store.kind.tmpfs
    if isinstance(facts.processes, Unknown):
        yield unknown("ram.oomd-unknown", "Whether systemd-oomd runs is not known", facts.processes)
    elif any(process.service == "systemd-oomd" for process in facts.processes):
        yield finding(
            "ram.oomd", "systemd-oomd runs: it may kill guests before RAM and swap are full."
        )
    overcommit = facts.sysctls["overcommit_memory"]
    if isinstance(overcommit, Unknown):
        yield unknown(
            "ram.overcommit-unknown", "vm.overcommit_memory could not be read", overcommit
        )
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
            "Processes that the kernel has killed since boot because memory was short: "
            f"{facts.oom_kills}.",
            oom_kills=facts.oom_kills,
        )
    daemon = facts.daemon
    if (
        tmpfs
        and daemon is not None
        and not isinstance(daemon, Unknown)
        and daemon.oom_score_adj >= 0
    ):
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
        and facts.store.usage.kind.swaps
        and limits.swap_max < capacity(facts.store.usage, configured_mib=None).total
    ):
        yield finding(
            "ram.slice-swap",
            f"{limits.name} may use {to_mib(limits.swap_max)} MiB of swap, less than the store "
            "promises.",
            swap_max_mib=to_mib(limits.swap_max),
        )
