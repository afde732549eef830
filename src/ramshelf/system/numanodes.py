"""The host's NUMA nodes that have memory, and what of it is huge pages.

The source is /sys/devices/system/node.
"""

from pathlib import Path

from ramshelf.core.domain.numa import HostNode, HostNuma, parse_nodes
from ramshelf.core.units import KIB
from ramshelf.system.filesystem import read_text
from ramshelf.system.procfs import parse_meminfo

_NODES = Path("/sys/devices/system/node")
_RECLAIM = Path("/proc/sys/vm/zone_reclaim_mode")


def host_numa(nodes: Path = _NODES, reclaim: Path = _RECLAIM) -> HostNuma:
    """Return the host's NUMA nodes; there is none where the kernel was built without NUMA.

    Raises OSError, and ValueError or LookupError for what is in no known form.
    """
    with_memory = read_text(nodes / "has_memory", "").strip()
    numbers = sorted(parse_nodes(with_memory)) if with_memory else []
    return HostNuma(
        nodes=tuple(_node(number, nodes / f"node{number}") for number in numbers),
        zone_reclaim=int(read_text(reclaim, "0")),
    )


def _node(number: int, node: Path) -> HostNode:
    prefix = f"Node {number} "
    lines = (line.removeprefix(prefix) for line in read_text(node / "meminfo").splitlines())
    huge = 0
    for pool in node.glob("hugepages/hugepages-*kB"):
        size = int(pool.name.removeprefix("hugepages-").removesuffix("kB")) * KIB
        huge += size * int(read_text(pool / "nr_hugepages"))
    return HostNode(number=number, ram=parse_meminfo("\n".join(lines))["MemTotal"], huge_pages=huge)
