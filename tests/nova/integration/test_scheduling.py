"""The filter in a real nova-scheduler: a host with file-backed memory, and one with anonymous memory."""

from collections.abc import Iterator

import pytest

from support.cli import ramshelf
from support.libvirtd import Libvirtd
from support.nova.broker import rabbitmq
from support.nova.client import PATIENCE, ApiError, Server
from support.nova.cloud import Cloud, cloud
from support.nova.conf import Settings
from support.nova.second import NAME, SHARED, SecondCompute, second_compute
from support.onstore import assert_reserved, memory_files
from support.process import wait_until
from support.second_host import FIRST_ADDRESS, second_host
from support.stores import store

MEMORY_MIB = 128
DEMAND = "ramshelf__file_backed_memory"


def nova_conf(url: str, told_mib: int) -> Settings:
    return {
        "DEFAULT": {
            **SHARED["DEFAULT"],
            "compute_driver": "ramshelf.FileBackedLibvirtDriver",
            "transport_url": url,
        },
        "filter_scheduler": {
            "available_filters": "ramshelf_nova.filter.all_filters",
            "enabled_filters": "ComputeFilter,NUMATopologyFilter,FileBackedMemoryFilter",
        },
        "libvirt": {"file_backed_memory": told_mib},
        "scheduler": {"discover_hosts_in_cells_interval": 2},
    }


@pytest.fixture(scope="module")
def hosts(libvirtd: Libvirtd) -> Iterator[tuple[Cloud, SecondCompute]]:  # noqa: ARG001
    with store("ext4", 640), second_host("tmpfs", 300) as there, rabbitmq(FIRST_ADDRESS) as url:
        ramshelf("hook", "install")
        with (
            cloud(nova_conf(url, 512)) as first,
            second_compute(first, there, shared=True) as second,
        ):
            second.start(nova_conf(url, 0))
            yield first, second


@pytest.fixture
def file_backed(hosts: tuple[Cloud, SecondCompute]) -> Iterator[Cloud]:
    """The cloud, by its file-backed host; the other one is NAME."""
    first, second = hosts
    yield first
    first.clear()
    assert memory_files() == []
    assert second.host.directories() == []


def placed(cloud: Cloud, **extra_specs: str) -> Server:
    """A server of this flavor, for which the scheduler has found a host."""
    asked = cloud.compute.create(cloud.compute.flavor(MEMORY_MIB, **extra_specs), cloud.image())
    return cloud.compute.wait(asked, "ACTIVE")


def booted(cloud: Cloud, host: str) -> Server:
    """A server of a flavor that may go anywhere, on this host."""
    flavor, image = cloud.compute.flavor(MEMORY_MIB), cloud.image()
    return cloud.compute.wait(cloud.compute.create(flavor, image, availability_zone=f"nova:{host}"), "ACTIVE")


def settled(cloud: Cloud, server: Server, status: str) -> Server:
    """The server once it has this status and nothing is under way."""
    wait_until(
        lambda: (now := cloud.compute.server(server.uuid)).task is None and now.status == status,
        f"it is {status}",
        timeout=PATIENCE,
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
def test_a_live_migration_finds_no_host_of_another_backing(file_backed: Cloud, backing: str) -> None:
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
    aggregate = file_backed.compute.aggregate("much", file_backed.host, {"ram_allocation_ratio": "1.5"})
    try:
        for _ in range(2):
            assert placed(file_backed, **{DEMAND: "required"}).host == file_backed.host
    finally:
        file_backed.clear()
        aggregate.delete()
    assert file_backed.log().count("is in aggregate much with ram_allocation_ratio 1.5") == 1
