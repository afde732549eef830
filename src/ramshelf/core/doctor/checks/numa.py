"""Checks on hosts with several NUMA nodes whether each holds what is bound to it.

Nothing is said of other hosts.
"""

from collections.abc import Iterator

from ramshelf.core.catalog import finding, unknown
from ramshelf.core.doctor.facts import Facts, GuestFacts, StoreFacts
from ramshelf.core.domain.memory import MemoryFile
from ramshelf.core.domain.numa import HostNuma, Nodes, Part, format_nodes
from ramshelf.core.findings import Finding
from ramshelf.core.host import Unknown
from ramshelf.core.record import dataclass
from ramshelf.core.store.find import Store
from ramshelf.core.store.kind import Kind
from ramshelf.core.units import MIB, align_up, to_mib


def check_numa(facts: Facts) -> Iterator[Finding]:
    """Check the nodes one by one, then the sets of nodes that guests name.

    What guests ask for in vain comes last.
    """
    numa = facts.numa
    if isinstance(numa, Unknown):
        yield unknown("numa.unknown", "The host's NUMA nodes could not be read", numa)
        return
    if len(numa.nodes) < 2:
        return
    if numa.zone_reclaim:
        yield finding(
            "numa.zone-reclaim",
            f"vm.zone_reclaim_mode is {numa.zone_reclaim}: a node that is full is reclaimed before "
            "another's free RAM is used.",
            zone_reclaim_mode=numa.zone_reclaim,
        )
    if isinstance(facts.guests, Unknown):
        return  # check_guests says so
    yield from _nodes(numa, [each for running in facts.guests for each in _bound(running, facts)])
    for running in facts.guests:
        yield from _in_vain(running, facts)


@dataclass(frozen=True, kw_only=True)
class _Bound:
    """Memory that only these nodes can hold, in bytes; ``stays``: nothing can move it from RAM."""

    nodes: Nodes
    size: int
    stays: bool


def _nodes(numa: HostNuma, bound: list[_Bound]) -> Iterator[Finding]:
    host = frozenset(node.number for node in numa.nodes)
    named = {frozenset({number}) for number in host} | {each.nodes for each in bound}
    for nodes in sorted(named, key=sorted):
        if not nodes >= host:  # all nodes together are judged by the RAM budget
            within = [each for each in bound if each.nodes <= nodes]
            yield from _node_set(
                nodes, within, sum(node.room for node in numa.nodes if node.number in nodes)
            )


def _node_set(nodes: Nodes, within: list[_Bound], room: int) -> Iterator[Finding]:
    size, stays = sum(each.size for each in within), sum(each.size for each in within if each.stays)
    if stays > room:
        code = "numa.node-overbound"
    elif size > room:
        code = "numa.node-exceeded"
    elif len(nodes) == 1:
        code = "numa.ok"
    else:
        return
    ram, asked, left = to_mib(room), to_mib(align_up(size, MIB)), to_mib(align_up(stays, MIB))
    fixed = f", of which {left} MiB cannot leave RAM" if stays else ""
    yield finding(
        code,
        f"{format_nodes(nodes)}: {ram} MiB RAM for {asked} MiB of guests' memory that is bound "
        f"there{fixed}.",
        nodes=sorted(nodes),
        ram_mib=ram,
        bound_mib=asked,
        stays_mib=left,
    )


def _bound(running: GuestFacts, facts: Facts) -> Iterator[_Bound]:
    kind, guest = _kind(facts), running.guest
    for part, file in _parts(running):
        shared = file is not None and not file.private
        if (shared and kind is not None and kind.dax) or (file is None and guest.hugepages):
            continue  # in no node's RAM, or in huge pages, which were taken from RAM before
        nodes = part.nodes(mbind=not shared or _keeps_policy(kind))
        if nodes is not None:
            stays = guest.pinned > 0 or (_in_ram(kind) if shared else _without_swap(facts))
            yield _Bound(nodes=nodes, size=part.size, stays=stays)


def _in_vain(running: GuestFacts, facts: Facts) -> Iterator[Finding]:
    guest = running.guest
    if running.tuning.chosen:
        yield finding(
            "numa.chosen-unknown",
            f"numad has chosen nodes for guest {guest.name}.",
            guest=guest.name,
        )
    kind = _kind(facts)
    ignored = [
        part
        for part, file in _parts(running)
        if file is not None and not file.private and not _keeps_policy(kind)
        if part.asked is not None and part.asked != part.threads
    ]
    if ignored:
        yield finding(
            "numa.binding-ignored",
            f"Guest {guest.name} binds NUMA cells to nodes of the host, which the kernel ignores "
            "for files of a disk: a page is placed where the vCPU that first touches it runs.",
            guest=guest.name,
            parts=[part.name for part in ignored],
        )


def _parts(running: GuestFacts) -> Iterator[tuple[Part, MemoryFile | None]]:
    """Yield the parts of a guest's memory, each with its memory file where it has one."""
    names = {part.name for part in running.tuning.parts}
    whole = next((file for file in running.guest.files if file.name not in names), None)
    files = {file.name: file for file in running.guest.files}
    for part in running.tuning.parts:
        yield part, files.get(part.name) if part.name else whole


def _in_ram(kind: Kind | None) -> bool:
    """Tell whether memory on the store cannot leave RAM."""
    return kind is not None and kind.bare


def _keeps_policy(kind: Kind | None) -> bool:
    """Tell whether what mbind says of a shared mapping counts."""
    return kind is not None and kind.tmpfs


def _kind(facts: Facts) -> Kind | None:
    store = facts.store.store if isinstance(facts.store, StoreFacts) else None
    return store.kind if isinstance(store, Store) else None


def _without_swap(facts: Facts) -> bool:
    return isinstance(facts.store, StoreFacts) and not facts.store.swaps
