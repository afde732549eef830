"""What FileBackedMemoryFilter costs beside Nova's own AggregateInstanceExtraSpecsFilter.

``make bench-nova`` runs it, where a Nova is. In one process both filters are asked about the same
10,000 hosts for the same request, one right after the other; which is first is drawn by lot.
Placement's answer is there already, as for all but one request a minute.
"""

import argparse
import gc
import itertools
import logging
import random
import time
from typing import Any

from nova.scheduler.filters.aggregate_instance_extra_specs import AggregateInstanceExtraSpecsFilter
from os_traits import COMPUTE_MEM_BACKING_FILE

from bench.measure import Series
from ramshelf_nova.backing import Backings
from ramshelf_nova.conf import CONF
from ramshelf_nova.core.store.kind import Kind
from ramshelf_nova.filter import FileBackedMemoryFilter
from support.nova_objects import aggregate, host, request
from support.placement_answers import Placement

REQUESTS: dict[str, dict[str, Any]] = {
    "no extra specs": {},
    "extra specs of others": {
        "extra_specs": {"hw:cpu_policy": "shared", "hw:watchdog_action": "reset"}
    },
    "an aggregate's metadata": {"extra_specs": {"aggregate_instance_extra_specs:ssd": "true"}},
    "large pages": {"extra_specs": {"hw:mem_page_size": "large"}},
    "a PCI device": {"extra_specs": {"pci_passthrough:alias": "nic:1"}, "pci": True},
    "file-backed required": {"extra_specs": {"ramshelf:file_backed_memory": "required"}},
}
WITH_RATIO = "no extra specs, aggregates that overcommit"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.nova_filter", description=__doc__)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=31)
    arguments = parser.parse_args()
    CONF([], project="nova", default_config_files=[], default_config_dirs=[])
    logging.getLogger().setLevel(logging.INFO)  # Nova's default: reasons are not logged
    logging.getLogger("ramshelf_nova").setLevel(logging.ERROR)  # nor are warnings that come once

    print(f"{arguments.hosts} hosts, {arguments.rounds} rounds, ms: median (middle half)\n")
    print(f"{'REQUEST':44}{'FILE-BACKED-MEMORY':22}{'AGGREGATE-EXTRA-SPECS':24}RATIO")
    for name, wish, ratio in [
        *((*item, "1.0") for item in REQUESTS.items()),
        (WITH_RATIO, {}, "1.5"),
    ]:
        ours, theirs = measure(arguments.hosts, arguments.rounds, wish, ratio)
        ratios = Series.of([a / b for a, b in zip(ours, theirs, strict=True)])
        print(f"{name:44}{Series.of(ours)!s:22}{Series.of(theirs)!s:24}{ratios}")


def measure(
    count: int, rounds: int, wish: dict[str, Any], ratio: str
) -> tuple[list[float], list[float]]:
    """Return the milliseconds that our filter and Nova's took, by round."""
    zones = [
        aggregate(f"zone{n}", availability_zone=f"zone{n}", ram_allocation_ratio=ratio)
        for n in range(10)
    ]
    racks = [aggregate(f"rack{n}", ssd="true", rack=str(n)) for n in range(200)]
    names = [f"node{n}" for n in range(count)]
    kinds = itertools.cycle(
        [(), (COMPUTE_MEM_BACKING_FILE, Kind.SWAP.trait), (), (COMPUTE_MEM_BACKING_FILE,)]
    )
    placement = Placement(dict(zip(names, kinds, strict=False)))
    hosts = [host(name, aggregates=[zones[n % 10], racks[n % 200]]) for n, name in enumerate(names)]
    ours, theirs = (
        FileBackedMemoryFilter(Backings(placement.get, lambda: 0.0)),
        AggregateInstanceExtraSpecsFilter(),
    )
    times: dict[Any, list[float]] = {ours: [], theirs: []}
    for _ in range(rounds + 1):
        spec = request(**wish)
        for each in random.sample([ours, theirs], 2):
            times[each].append(_milliseconds(each, hosts, spec))
    return times[ours][1:], times[theirs][1:]  # the first has asked Placement


def _milliseconds(filter_: Any, hosts: list[Any], spec: Any) -> float:
    gc.collect()
    gc.disable()
    begun = time.perf_counter()
    list(filter_.filter_all(hosts, spec))
    taken = time.perf_counter() - begun
    gc.enable()
    return taken * 1000


if __name__ == "__main__":
    main()
