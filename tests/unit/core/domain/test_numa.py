"""To which of the host's NUMA nodes a guest is bound, and what those nodes have."""

import os
from pathlib import Path

import pytest

from ramshelf.core.domain.numa import HostNode, HostNuma, Nodes, parse_nodes, parse_tuning
from ramshelf.core.errors import InputError
from ramshelf.core.units import GIB, KIB, MIB
from ramshelf.system.numanodes import host_numa
from ramshelf.system.procfs import meminfo

CELLS = (
    "<cpu><numa><cell id='0' cpus='0' memory='1048576' unit='KiB'/>"
    "<cell id='1' cpus='1' memory='2' unit='GiB'/></numa></cpu>"
)
WHOLE, CELL_0, CELL_1 = ("", 3 * GIB), ("ram-node0", GIB), ("ram-node1", 2 * GIB)


BY_CELL = (
    "<numatune><memory mode='{whole}' nodeset='0-1'/>"
    "<memnode cellid='0' mode='{cell}' nodeset='1'/></numatune>"
)


def domain(tune: str, cells: str = "", devices: str = "") -> str:
    return (
        f"<domain type='kvm' id='3'><name>g</name><memory unit='GiB'>3</memory>{tune}{cells}"
        f"<devices>{devices}</devices></domain>"
    )


def nodes(*numbers: int) -> Nodes:
    return frozenset(numbers)


@pytest.mark.parametrize(
    ("tune", "cells", "parts"),
    [
        ("", "", [(*WHOLE, None, None)]),
        ("", CELLS, [(*CELL_0, None, None), (*CELL_1, None, None)]),
        (
            "<numatune><memory mode='strict' nodeset='1'/></numatune>",
            "",
            [(*WHOLE, nodes(1), nodes(1))],
        ),
        ("<numatune><memory nodeset='0-1'/></numatune>", "", [(*WHOLE, nodes(0, 1), nodes(0, 1))]),
        (
            "<numatune><memory mode='restrictive' nodeset='1'/></numatune>",
            "",
            [(*WHOLE, nodes(1), None)],
        ),
        ("<numatune><memory mode='preferred' nodeset='1'/></numatune>", "", [(*WHOLE, None, None)]),
        (
            "<numatune><memory mode='interleave' nodeset='0-1'/></numatune>",
            "",
            [(*WHOLE, None, None)],
        ),
        (
            BY_CELL.format(whole="strict", cell="strict"),
            CELLS,
            [(*CELL_0, nodes(0, 1), nodes(1)), (*CELL_1, nodes(0, 1), nodes(0, 1))],
        ),
        (
            BY_CELL.format(whole="strict", cell="strict").replace("0-1", "0"),
            CELLS,
            [(*CELL_0, nodes(0, 1), nodes(1)), (*CELL_1, nodes(0, 1), nodes(0))],
        ),
        (
            "<numatune><memnode cellid='1' mode='strict' nodeset='0'/></numatune>",
            CELLS,
            [(*CELL_0, None, None), (*CELL_1, None, nodes(0))],
        ),
        (
            BY_CELL.format(whole="restrictive", cell="restrictive"),
            CELLS,
            [(*CELL_0, nodes(0, 1), None), (*CELL_1, nodes(0, 1), None)],
        ),
        (
            BY_CELL.format(whole="strict", cell="preferred"),
            CELLS,
            [(*CELL_0, nodes(0, 1), None), (*CELL_1, nodes(0, 1), nodes(0, 1))],
        ),
    ],
)
def test_what_binds_and_how(
    tune: str, cells: str, parts: list[tuple[str, int, Nodes | None, Nodes | None]]
) -> None:
    for text in (domain(tune, cells), f"<domstatus>{domain(tune, cells)}</domstatus>"):
        found = parse_tuning(text).parts
        assert [(part.name, part.size, part.threads, part.asked) for part in found] == parts


def test_a_memory_device_is_bound_as_the_cell_that_it_belongs_to() -> None:
    tune = "<numatune><memnode cellid='1' mode='strict' nodeset='0'/></numatune>"
    device = (
        "<memory model='dimm'><target><size unit='MiB'>512</size><node>1</node></target>"
        "<alias name='dimm0'/></memory>"
    )
    [dimm, *_] = parse_tuning(domain(tune, CELLS, device)).parts
    assert (dimm.name, dimm.size, dimm.asked) == ("dimm0", 512 * MIB, nodes(0))


def test_a_memory_device_may_name_nodes_of_its_own_and_one_on_pmem_takes_no_node_s_ram() -> None:
    target = "<target><size unit='MiB'>512</size><node>0</node></target>"
    devices = (
        f"<memory model='dimm'><source><nodemask>1</nodemask></source>{target}</memory>"
        f"<memory model='nvdimm'><source><path>/dev/dax0.0</path></source>{target}</memory>"
    )
    found = parse_tuning(domain("", CELLS, devices)).parts
    assert [(part.size, part.asked) for part in found] == [
        (512 * MIB, nodes(1)),
        (GIB, None),
        (2 * GIB, None),
    ]


def test_without_cells_memory_devices_are_part_of_the_memory() -> None:
    tune = "<numatune><memory mode='strict' nodeset='1'/></numatune>"
    device = "<memory model='virtio-mem'><target><size unit='GiB'>1</size></target></memory>"
    assert [part.size for part in parse_tuning(domain(tune, "", device)).parts] == [GIB, 2 * GIB]


def test_where_mbind_counts_the_cell_decides_and_elsewhere_the_threads() -> None:
    [cell, _] = parse_tuning(domain(BY_CELL.format(whole="strict", cell="strict"), CELLS)).parts
    assert (cell.nodes(mbind=True), cell.nodes(mbind=False)) == (nodes(1), nodes(0, 1))


def test_numad_does_not_tell() -> None:
    tune = "<numatune><memory mode='strict' placement='auto'/></numatune>"
    found = parse_tuning(domain(tune))
    assert found.chosen
    assert [part.threads for part in found.parts] == [None]


@pytest.mark.parametrize(
    "text",
    [
        domain("").replace("<memory unit='GiB'>3</memory>", "<memory>much</memory>"),
        domain("<numatune><memory nodeset='one'/></numatune>"),
    ],
)
def test_what_libvirt_would_not_write_is_not_taken_for_nothing(text: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_tuning(text)
    assert refused.value.code == "xml.memory"


def test_what_is_no_xml_is_said() -> None:
    with pytest.raises(InputError) as refused:
        parse_tuning("<domain>")
    assert refused.value.code == "xml.malformed"


@pytest.mark.parametrize(
    ("text", "numbers"), [("0", {0}), ("0-1", {0, 1}), ("0-3,^1,7", {0, 2, 3, 7}), ("1,3", {1, 3})]
)
def test_nodes_as_the_kernel_and_libvirt_write_them(text: str, numbers: set[int]) -> None:
    assert parse_nodes(text) == numbers


def test_the_nodes_of_this_host_have_its_ram() -> None:
    """Or less: on a virtual machine the sum was seen to fall below MemTotal while it ran."""
    found = host_numa()
    assert os.path.isdir("/sys/devices/system/node") == bool(found.nodes)
    if found.nodes:
        assert 0 < sum(node.ram for node in found.nodes) <= meminfo()["MemTotal"]


def test_a_host_with_two_nodes(tmp_path: Path) -> None:
    """Of three, of which one has CPUs alone: the files as a kernel with numa=fake=2 showed them."""
    (tmp_path / "has_memory").write_text("0-1\n")
    for number, kib in ((0, 1544768), (1, 1442932), (2, 0)):
        pool = tmp_path / f"node{number}/hugepages/hugepages-2048kB"
        pool.mkdir(parents=True)
        (pool / "nr_hugepages").write_text(f"{8 * number}\n")
        (pool.parent.parent / "meminfo").write_text(
            f"Node {number} MemTotal:        {kib} kB\nNode {number} MemFree:         1000 kB\n"
            f"Node {number} HugePages_Total:     {8 * number}\n"
        )
    (tmp_path / "zone_reclaim_mode").write_text("4\n")
    assert host_numa(tmp_path, tmp_path / "zone_reclaim_mode") == HostNuma(
        nodes=(
            HostNode(number=0, ram=1544768 * KIB),
            HostNode(number=1, ram=1442932 * KIB, huge_pages=16 * MIB),
        ),
        zone_reclaim=4,
    )


def test_a_kernel_without_numa_has_no_nodes(tmp_path: Path) -> None:
    assert host_numa(tmp_path, tmp_path / "zone_reclaim_mode") == HostNuma()
