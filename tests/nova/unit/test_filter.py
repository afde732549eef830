"""Which hosts pass for which request: real requests and host states, through Nova's own handler."""

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nova.scheduler.filters import HostFilterHandler
from os_traits import COMPUTE_MEM_BACKING_FILE

from ramshelf_nova.backing import Backing, Backings
from ramshelf_nova.core.store.kind import Kind
from ramshelf_nova.demands import demands_of
from ramshelf_nova.filter import FileBackedMemoryFilter
from support.nova_objects import aggregate, host, host_uuid, request
from support.placement_answers import Placement

HOSTS = {
    "anonymous": (),
    "file": (COMPUTE_MEM_BACKING_FILE,),
    "disk": (COMPUTE_MEM_BACKING_FILE, Kind.DISK.trait),
    "dax": (COMPUTE_MEM_BACKING_FILE, Kind.DAX.trait),
    "swap": (COMPUTE_MEM_BACKING_FILE, Kind.SWAP.trait),
    "ram": (COMPUTE_MEM_BACKING_FILE, Kind.RAM.trait),
}
ALL = list(HOSTS)
ANONYMOUS = ["anonymous"]
FILES = ["file", "disk", "dax", "swap", "ram"]
PINNABLE = ["anonymous", "swap", "ram"]
REBUILD = {"_nova_check_type": ["rebuild"]}

# What a request may carry, and where a server with that may run.
REQUESTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": ({}, ALL),
    "flavor 2M pages": ({"extra_specs": {"hw:mem_page_size": "2048"}}, ANONYMOUS),
    "flavor large pages": ({"extra_specs": {"hw:mem_page_size": "large"}}, ANONYMOUS),
    "flavor small pages": ({"extra_specs": {"hw:mem_page_size": "small"}}, ANONYMOUS),
    "flavor any pages": ({"extra_specs": {"hw:mem_page_size": "any"}}, ANONYMOUS),
    "image pages": ({"image": {"hw_mem_page_size": "2MB"}}, ANONYMOUS),
    "cell pages": ({"cells": (2048,)}, ANONYMOUS),
    "cell small pages": ({"cells": (-1,)}, ANONYMOUS),
    "second cell's pages": ({"cells": (None, -3)}, ANONYMOUS),
    "cells": ({"cells": (None, None)}, ALL),
    "locked": ({"extra_specs": {"hw:locked_memory": "true"}}, ANONYMOUS),
    "not locked": ({"extra_specs": {"hw:locked_memory": "false"}}, ALL),
    "locked by image": ({"image": {"hw_locked_memory": "yes"}}, ANONYMOUS),
    "SEV": ({"extra_specs": {"hw:mem_encryption": "True"}}, PINNABLE),
    "no SEV": ({"extra_specs": {"hw:mem_encryption": "False"}}, ALL),
    "SEV by image": ({"image": {"hw_mem_encryption": "true"}}, PINNABLE),
    "PCI": ({"pci": True}, PINNABLE),
    "vGPU": ({"extra_specs": {"resources:VGPU": "1"}}, PINNABLE),
    "vGPU of a group": ({"extra_specs": {"resources_gpu:VGPU": "1"}}, PINNABLE),
    "no vGPU": ({"extra_specs": {"resources:VGPU": "0"}}, ALL),
    "other resource": ({"extra_specs": {"resources:CUSTOM_LICENCE": "1"}}, ALL),
    "accelerator": ({"extra_specs": {"accel:device_profile": "fpga"}}, PINNABLE),
    "accelerator port": ({"requesters": ["device_profile_0port"]}, PINNABLE),
    "port with bandwidth": ({"requesters": ["port"]}, ALL),
    "required": ({"extra_specs": {"ramshelf:file_backed_memory": "required"}}, FILES),
    "forbidden": ({"extra_specs": {"ramshelf:file_backed_memory": "forbidden"}}, ANONYMOUS),
    "neither": ({"extra_specs": {"ramshelf:file_backed_memory": "Required"}}, []),
    "of others": (
        {"extra_specs": {"hw:cpu_policy": "shared", "trait:HW_CPU_X86_AVX": "required"}},
        ALL,
    ),
}


def passing(filter_: FileBackedMemoryFilter, hosts: list[Any], spec: Any) -> list[str]:
    return [each.host for each in HostFilterHandler().get_filtered_objects([filter_], hosts, spec)]


def make(placement: Placement | None = None) -> FileBackedMemoryFilter:
    return FileBackedMemoryFilter(Backings((placement or Placement(HOSTS)).get))


@pytest.fixture
def hosts() -> list[Any]:
    return [host(name) for name in HOSTS]


@pytest.mark.parametrize("name", REQUESTS)
def test_each_thing_that_a_request_asks_for(name: str, hosts: list[Any]) -> None:
    wish, expected = REQUESTS[name]
    assert passing(make(), hosts, request(**wish)) == expected


@given(st.sets(st.sampled_from(sorted(REQUESTS)), max_size=6), st.sampled_from([{}, REBUILD]))
def test_what_is_asked_for_together_holds_together(
    names: set[str], hints: dict[str, list[str]]
) -> None:
    together: dict[str, Any] = {}
    expected = set(ALL)
    for name in sorted(names):
        wish, allowed = REQUESTS[name]
        ((part, value),) = wish.items() or [("pci", False)]
        if isinstance(value, dict):
            if set(value) & set(together.get(part, {})):
                continue  # a flavor has one value of a key
            value = {**together.get(part, {}), **value}
        elif part in together:
            continue
        together[part] = value
        expected &= set(allowed)
    spec = request(**together, hints=hints)
    assert set(passing(make(), [host(name) for name in HOSTS], spec)) == expected


def test_one_host_as_nova_documents_it(hosts: list[Any]) -> None:
    filter_, spec = make(), request(pci=True)
    assert [each.host for each in hosts if filter_.host_passes(each, spec)] == PINNABLE


def test_no_host_is_none() -> None:
    assert passing(make(), [], request(pci=True)) == []


def test_a_request_that_may_go_anywhere_asks_nobody(hosts: list[Any]) -> None:
    placement = Placement(HOSTS)
    placement.away = True
    assert passing(make(placement), hosts, request()) == ALL
    assert placement.asked == []


def test_a_request_as_an_old_conductor_makes_it(hosts: list[Any]) -> None:
    spec = request()
    for name in (
        "image",
        "numa_topology",
        "pci_requests",
        "requested_destination",
        "scheduler_hints",
    ):
        delattr(spec, name)
    assert demands_of(spec) == ()
    assert passing(make(), hosts, spec) == ALL


def test_mediated_devices_of_other_classes(
    option: Callable[[str, Any], None], hosts: list[Any]
) -> None:
    spec = request({"resources:CUSTOM_MDEV": "1"})
    assert passing(make(), hosts, spec) == ALL
    option("file_backed_memory_mdev_resource_classes", ["VGPU", "CUSTOM_MDEV"])
    assert passing(make(), hosts, spec) == PINNABLE


def test_reasons_are_told_at_debug_level(
    hosts: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    passing(make(), hosts, request({"hw:mem_page_size": "large"}, pci=True))
    said = [record for record in caplog.records if record.name == "ramshelf_nova.filter"]
    assert {record.levelno for record in said} == {logging.DEBUG}
    assert len(said) == len(FILES)
    assert "(disk, disk)" in said[1].getMessage()
    assert (
        "has file memory: the flavor asks for memory pages of a size (hw:mem_page_size)"
        in said[1].getMessage()
    )


def test_no_kind_is_asked_for_that_does_not_matter(hosts: list[Any]) -> None:
    placement = Placement(HOSTS)
    passing(make(placement), hosts, request({"hw:mem_page_size": "large"}))
    assert placement.asked == ["/resource_providers?required=COMPUTE_MEM_BACKING_FILE"]


@pytest.mark.parametrize("when_unknown", ["reject", "accept"])
@pytest.mark.parametrize("name", ["flavor 2M pages", "PCI", "required"])
def test_placement_is_away(
    option: Callable[[str, Any], None], hosts: list[Any], name: str, when_unknown: str
) -> None:
    placement = Placement(HOSTS)
    placement.away = True
    filter_, spec = make(placement), request(**REQUESTS[name][0])
    assert passing(filter_, hosts, spec) == []
    option("file_backed_memory_when_unknown", when_unknown)
    assert passing(filter_, hosts, spec) == ([] if when_unknown == "reject" else ALL)
    placement.away = False
    assert passing(filter_, hosts, spec) == REQUESTS[name][1]


def test_that_placement_is_away_is_told(hosts: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    placement = Placement()
    placement.away = True
    passing(make(placement), hosts, request(pci=True))
    (said,) = (
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    )
    assert said.startswith("Placement does not say which hosts have file-backed memory: it is away")
    assert said.endswith("; hosts that may not suit are rejected")


class TestAggregates:
    """File-backed hosts in aggregates that overcommit."""

    OVER = aggregate("over", ram_allocation_ratio="1.5")
    UNDER = aggregate("under", ram_allocation_ratio="0.9")
    WORDS = aggregate("words", ram_allocation_ratio="much")
    EVEN = aggregate("even", ram_allocation_ratio="1", ssd="true")

    @pytest.fixture
    def hosts(self) -> list[Any]:
        return [
            host("anonymous", aggregates=[self.OVER]),
            host("file", aggregates=[self.EVEN, self.OVER]),
            host("disk", aggregates=[self.EVEN]),
            host("dax", aggregates=[self.UNDER]),
            host("swap", aggregates=[self.WORDS]),
            host("ram"),
        ]

    NAMES = ("anonymous", "file", "disk", "dax", "swap", "ram")

    def test_they_are_warned_of_once(
        self, hosts: list[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        filter_ = make()
        for _ in range(3):
            assert passing(filter_, hosts, request()) == list(self.NAMES)
        warnings = [
            record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
        ]
        assert [
            re.findall(r"Host (\w+) .* aggregate (\w+) .*ratio ([\w.]+):", said)
            for said in warnings
        ] == [
            [("file", "over", "1.5")],
            [("dax", "under", "0.9")],
            [("swap", "words", "much")],
        ]
        self.OVER.metadata["ram_allocation_ratio"] = "2.0"
        try:
            passing(filter_, hosts, request())
        finally:
            self.OVER.metadata["ram_allocation_ratio"] = "1.5"
        assert "aggregate over with ram_allocation_ratio 2.0" in caplog.text

    def test_they_are_skipped_where_configured(
        self, option: Callable[[str, Any], None], hosts: list[Any]
    ) -> None:
        option("file_backed_memory_require_aggregate_ratio", True)
        assert passing(make(), hosts, request()) == ["anonymous", "disk", "ram"]
        assert passing(make(), hosts, request(REQUESTS["required"][0]["extra_specs"])) == [
            "disk",
            "ram",
        ]
        assert passing(make(), hosts, request(hints=REBUILD)) == list(self.NAMES)

    def test_without_placement_those_that_may_be_file_backed_are_skipped(
        self, option: Callable[[str, Any], None], hosts: list[Any]
    ) -> None:
        placement = Placement(HOSTS)
        placement.away = True
        assert passing(make(placement), hosts, request()) == list(self.NAMES)
        option("file_backed_memory_require_aggregate_ratio", True)
        assert passing(make(placement), hosts, request()) == ["disk", "ram"]
        option("file_backed_memory_when_unknown", "accept")
        assert passing(make(placement), hosts, request()) == list(self.NAMES)


def test_every_backing_is_among_the_hosts() -> None:
    """The table above covers what there is."""
    assert {*Backing} == {Backing.ANONYMOUS, Backing.FILE, Backing.PINNABLE_FILE}
    assert {host_uuid(name) for name in FILES} == Backings(Placement(HOSTS).get).file_backed()
