"""The filter in a real nova-scheduler: one host has file-backed memory, the other anonymous."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.cli import ramshelf
from support.libvirtd import Libvirtd
from support.nova.broker import rabbitmq
from support.nova.client import ApiError, Server
from support.nova.cloud import Cloud, cloud
from support.nova.conf import Settings
from support.nova.second import NAME, SHARED, SecondCompute, second_compute
from support.onstore import assert_reserved, memory_files
from support.process import wait_until
from support.second_host import FIRST_ADDRESS, second_host
from support.stores import store

MEMORY_MIB = 128
TOLD_MIB = 512
DEMAND = "ramshelf__file_backed_memory"
CARD = '{"vendor_id": "8086", "product_id": "10fb", "device_type": "type-PCI", "name": "card"}'

Hosts = tuple[Cloud, SecondCompute, str]
"""A host with file-backed memory, one with anonymous memory, and the URL of their broker."""


def nova_conf(url: str, told_mib: int, **scheduling: object) -> Settings:
    return {
        "DEFAULT": {
            **SHARED["DEFAULT"],
            "compute_driver": "ramshelf.FileBackedLibvirtDriver",
            "transport_url": url,
        },
        "filter_scheduler": {
            "available_filters": "ramshelf_nova.filter.all_filters",
            "enabled_filters": "ComputeFilter,NUMATopologyFilter,FileBackedMemoryFilter",
            **scheduling,
        },
        "libvirt": {"file_backed_memory": told_mib},
        "pci": {"alias": CARD},
        "scheduler": {"discover_hosts_in_cells_interval": 2},
    }


@pytest.fixture(scope="module")
def hosts(libvirtd: Libvirtd) -> Iterator[Hosts]:  # noqa: ARG001
    with store("ext4", 640), second_host("tmpfs", 300) as there, rabbitmq(FIRST_ADDRESS) as url:
        ramshelf("hook", "install")
        with (
            cloud(nova_conf(url, TOLD_MIB)) as first,
            second_compute(first, there, shared=True) as second,
        ):
            second.start(nova_conf(url, 0))
            yield first, second, url


@pytest.fixture
def file_backed(hosts: Hosts) -> Iterator[Cloud]:
    """The cloud, by its file-backed host; the other one is NAME."""
    first, second, _ = hosts
    yield first
    first.clear()
    assert memory_files() == []
    assert second.host.directories() == []


def placed(cloud: Cloud, **extra_specs: str) -> Server:
    """A server of this flavor, for which the scheduler has found a host."""
    asked = cloud.compute.create(cloud.compute.flavor(MEMORY_MIB, **extra_specs), cloud.image())
    return cloud.compute.wait(asked, "ACTIVE")


def refused(cloud: Cloud, **extra_specs: str) -> Server:
    """A server of this flavor that no host could take."""
    asked = cloud.compute.create(cloud.compute.flavor(MEMORY_MIB, **extra_specs), cloud.image())
    return settled(cloud, asked, "ERROR")


def booted(cloud: Cloud, host: str) -> Server:
    """A server of a flavor that may go anywhere, on this host."""
    flavor, image = cloud.compute.flavor(MEMORY_MIB), cloud.image()
    return cloud.compute.wait(
        cloud.compute.create(flavor, image, availability_zone=f"nova:{host}"), "ACTIVE"
    )


def settled(cloud: Cloud, server: Server, status: str) -> Server:
    """The server once it has this status and nothing is under way."""
    wait_until(
        lambda: (now := cloud.compute.server(server.uuid)).task is None and now.status == status,
        f"it is {status}",
    )
    return cloud.compute.server(server.uuid)


def test_flavors_that_demand_and_forbid_it(file_backed: Cloud) -> None:
    server = placed(file_backed, **{DEMAND: "required"})
    assert server.host == file_backed.host
    assert_reserved(server.domain, MEMORY_MIB)
    assert placed(file_backed, **{DEMAND: "forbidden"}).host == NAME


def test_a_flavor_that_says_neither(file_backed: Cloud) -> None:
    with pytest.raises(ApiError) as refused:
        file_backed.compute.flavor(MEMORY_MIB, **{DEMAND: "perhaps"})
    assert refused.value.status == 400
    assert "'perhaps' is not one of: required, forbidden" in refused.value.message


def test_memory_pages_of_a_size_go_to_anonymous_memory(file_backed: Cloud) -> None:
    assert placed(file_backed, hw__mem_page_size="small").host == NAME


@pytest.mark.parametrize("backing", ["file-backed", "anonymous"])
def test_a_live_migration_finds_no_host_of_another_backing(
    file_backed: Cloud, backing: str
) -> None:
    host = file_backed.host if backing == "file-backed" else NAME
    server = booted(file_backed, host)
    file_backed.compute.act(server, "os-migrateLive", {"host": None, "block_migration": "auto"})
    assert settled(file_backed, server, "ACTIVE").host == host
    assert "No valid host was found" in str(file_backed.compute.actions(server)[0])
    assert f"a live migration from a host with {backing} memory" in file_backed.log()


def test_a_cold_migration_changes_the_backing(file_backed: Cloud) -> None:
    """There is one other host each time."""
    server = booted(file_backed, file_backed.host)
    for host in (NAME, file_backed.host):
        file_backed.compute.act(server, "migrate", {"host": None})
        settled(file_backed, server, "VERIFY_RESIZE")
        file_backed.compute.act(server, "confirmResize")
        assert settled(file_backed, server, "ACTIVE").host == host
        assert len(memory_files()) == (host != NAME)
    assert_reserved(server.domain, MEMORY_MIB)


def test_an_aggregate_that_overcommits_is_warned_of_once(file_backed: Cloud) -> None:
    aggregate = file_backed.compute.aggregate(
        "much", file_backed.host, {"ram_allocation_ratio": "1.5"}
    )
    try:
        for _ in range(2):
            assert placed(file_backed, **{DEMAND: "required"}).host == file_backed.host
    finally:
        file_backed.clear()
        aggregate.delete()
    assert file_backed.log().count("is in aggregate much with ram_allocation_ratio 1.5") == 1


def test_a_pci_device_is_not_for_a_store_that_cannot_be_pinned(file_backed: Cloud) -> None:
    """It is the other host that is asked for the device, and has none."""
    server = refused(file_backed, pci_passthrough__alias="card:1")
    assert re.search(
        rf"\({file_backed.host}, .*\) .* has file memory: it asks for a PCI device",
        file_backed.log(),
    )
    assert f"instance: {server.uuid}] Selected host: ({NAME}, " in file_backed.log()
    assert f"instance: {server.uuid}] Selected host: ({file_backed.host}, " not in file_backed.log()


@contextmanager
def scheduling(hosts: Hosts, **options: object) -> Iterator[None]:
    """The scheduler with these options of the filter meanwhile."""
    first, _, url = hosts
    first.configure(nova_conf(url, TOLD_MIB, **options))
    first.restart()
    try:
        yield
        first.clear()
    finally:
        first.configure(nova_conf(url, TOLD_MIB))
        first.restart()


def test_an_aggregate_that_overcommits_is_skipped_where_configured(
    hosts: Hosts, file_backed: Cloud
) -> None:
    with scheduling(hosts, file_backed_memory_require_aggregate_ratio=True):
        aggregate = file_backed.compute.aggregate(
            "much", file_backed.host, {"ram_allocation_ratio": "1.5"}
        )
        try:
            refused(file_backed, **{DEMAND: "required"})
            assert placed(file_backed).host == NAME
        finally:
            file_backed.clear()
            aggregate.delete()


@pytest.mark.parametrize("verdict", ["reject", "accept"])
def test_placement_does_not_say_which_hosts_are_file_backed(
    hosts: Hosts, file_backed: Cloud, verdict: str
) -> None:
    options = {"file_backed_memory_when_unknown": verdict, "file_backed_memory_cache_seconds": 0}
    with scheduling(hosts, **options):
        with file_backed.placement_refusing("placement:resource_providers:list"):
            placed(file_backed)  # asks for nothing that the hosts differ in
            ends = {"reject": refused, "accept": placed}
            ends[verdict](file_backed, **{DEMAND: "required"})
        assert f"hosts that may not suit are {verdict}ed" in file_backed.log()
        assert placed(file_backed, **{DEMAND: "required"}).host == file_backed.host
