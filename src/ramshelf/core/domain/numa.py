"""The NUMA nodes that a guest's domain XML binds its memory to, and where the memory then lies.

Two things bind. A control group's ``cpuset.mems``, which libvirt sets from <numatune>
(qemuProcessSetupPid), holds for whatever the guest's threads allocate. ``mbind``, which QEMU calls
for each of its memory backends (host_memory_backend_memory_complete) and which is all that a strict
<memnode> comes to, holds for anonymous memory and for a tmpfs, whose inode keeps it
(shmem_set_policy). The kernel takes no notice of ``mbind`` where pages of a regular file are shared
(filemap_alloc_folio; Documentation/admin-guide/mm/numa_memory_policy.rst): there the thread that
touches a page first decides.
"""

from collections.abc import Iterator

from ramshelf.core.domain.memory import MEMORY_DEVICES
from ramshelf.core.domain.xml import Element, parse
from ramshelf.core.errors import InputError
from ramshelf.core.record import dataclass
from ramshelf.core.units import libvirt_bytes

Nodes = frozenset[int]

_BINDING = ("strict", "restrictive")
"""Modes in which memory comes from the named nodes or not at all; ``strict`` is the default."""


@dataclass(frozen=True, kw_only=True)
class HostNode:
    """A NUMA node of the host that has memory; sizes are in bytes.

    ``huge_pages`` are taken from its RAM in advance.
    """

    number: int
    ram: int
    huge_pages: int = 0

    @property
    def room(self) -> int:
        """The RAM of the node that ordinary pages can have."""
        return self.ram - self.huge_pages


@dataclass(frozen=True, kw_only=True)
class HostNuma:
    """The host's nodes that have memory, and its ``vm.zone_reclaim_mode`` (0 if it has none)."""

    nodes: tuple[HostNode, ...] = ()
    zone_reclaim: int = 0


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a guest's memory that is one memory backend of QEMU's; sizes are in bytes.

    It is a NUMA cell, a memory device, or all of the guest's memory. ``name`` is its memory file's,
    '' where it is all of the memory. ``threads`` are the nodes from which the guest's threads may
    allocate, ``asked`` those that the part is to come from by a call of mbind; None stands for any
    node.
    """

    name: str
    size: int
    threads: Nodes | None
    asked: Nodes | None

    def nodes(self, *, mbind: bool) -> Nodes | None:
        """Return the nodes that its memory is bound to; ``mbind`` tells whether that call counts.

        None stands for any node.
        """
        return self.asked if mbind and self.asked is not None else self.threads


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What a domain says of NUMA nodes.

    ``chosen``: numad chose its nodes, which the XML does not show.
    """

    parts: tuple[Part, ...] = ()
    chosen: bool = False


def parse_tuning(text: str | bytes) -> Tuning:
    """Read the NUMA tuning in domain XML, plain or inside a ``domstatus``.

    Raises InputError ``xml.malformed`` or ``xml.memory``.
    """
    root = parse(text)
    domain = root.find("domain") if root.tag == "domstatus" else root
    if domain is None:
        return Tuning()
    memory = domain.find("numatune/memory")
    chosen = memory is not None and memory.get("placement") == "auto"
    try:
        return Tuning(parts=tuple(_parts(domain, memory)), chosen=chosen)
    except ValueError as error:
        raise InputError(
            "xml.memory", f"The domain's NUMA tuning cannot be read: {error}."
        ) from error


def _parts(domain: Element, memory: Element | None) -> Iterator[Part]:
    whole, mode = (None, "") if memory is None else (_bound(memory), memory.get("mode", "strict"))
    own = {node.get("cellid", ""): node for node in domain.each("numatune/memnode")}
    # The guest's threads touch each other's cells, so they get the nodes of all of them
    # (qemuDomainNumatuneMaybeFormatNodesetUnion, libvirt 9.3).
    threads = whole and whole.union(*(_bound(node) or () for node in own.values()))
    asked = {
        cell: _bound(node) if node.get("mode") != "restrictive" else None
        for cell, node in own.items()
    }
    otherwise = whole if mode == "strict" else None
    plugged = 0
    for device in domain.each("devices/memory"):
        size = _size(device.find("target/size"))
        plugged += size
        if device.get("model") in MEMORY_DEVICES:
            alias, mask = device.find("alias"), device.findtext("source/nodemask")
            node = device.findtext("target/node").strip()
            yield Part(
                name=alias.get("name", "") if alias is not None else "",
                size=size,
                threads=threads,
                asked=parse_nodes(mask) if mask else asked.get(node, otherwise),
            )
    cells = {
        cell.get("id", str(number)): cell
        for number, cell in enumerate(domain.each("cpu/numa/cell"))
    }
    for number, cell in cells.items():
        size = libvirt_bytes(cell.get("memory", "0"), cell.get("unit"))
        yield Part(
            name=f"ram-node{number}", size=size, threads=threads, asked=asked.get(number, otherwise)
        )
    if not cells:
        yield Part(
            name="", size=_size(domain.find("memory")) - plugged, threads=threads, asked=otherwise
        )


def _bound(element: Element) -> Nodes | None:
    """Return the nodes of a <memory> or <memnode> that binds.

    The result is None for one that only prefers some nodes.
    """
    nodes = element.get("nodeset")
    if nodes is None or element.get("mode", "strict") not in _BINDING:
        return None
    return parse_nodes(nodes)


def _size(element: Element | None) -> int:
    return libvirt_bytes(element.text, element.get("unit")) if element is not None else 0


def parse_nodes(text: str) -> Nodes:
    """Return the numbers in a list such as ``0-3,^1,7``.

    The notation is that of virBitmapParse; the kernel writes no ``^``. Raises ValueError.
    """
    nodes: set[int] = set()
    for item in text.replace(" ", "").split(","):
        if item.startswith("^"):
            nodes.discard(int(item[1:]))
        else:
            first, _, last = item.partition("-")
            nodes.update(range(int(first), int(last or first) + 1))
    return frozenset(nodes)


def format_nodes(nodes: Nodes) -> str:
    """Return the nodes in words, such as ``NUMA node 1``."""
    numbers = [str(number) for number in sorted(nodes)]
    return f"NUMA node {numbers[0]}" if len(numbers) == 1 else f"NUMA nodes {', '.join(numbers)}"
