"""The how-to "Use with Nova" without any code beside Nova: each step does what it says there."""

from collections.abc import Iterator

import pytest

from support.cli import ramshelf
from support.libvirtd import Libvirtd
from support.nova.client import Server
from support.nova.cloud import Cloud, cloud
from support.nova.conf import NOVA_CONF, Settings
from support.onstore import memory_files
from support.stores import store

TRAIT = "COMPUTE_MEM_BACKING_FILE"
KIND = "CUSTOM_RAMSHELF_STORE_DISK"
REQUIRED = {f"trait__{TRAIT}": "required"}
FORBIDDEN = {f"trait__{TRAIT}": "forbidden"}
TOLD_MIB = 512
PROVIDER_CONFIG = NOVA_CONF.parent / "provider_config"
ISOLATED: Settings = {"scheduler": {"enable_isolated_aggregate_filtering": True}}


@pytest.fixture(scope="module")
def prepared(libvirtd: Libvirtd) -> Iterator[Cloud]:  # noqa: ARG001
    more: Settings = {"libvirt": {"file_backed_memory": TOLD_MIB}, **ISOLATED}
    with store("ext4", 640), cloud(more) as running:
        PROVIDER_CONFIG.mkdir()
        (PROVIDER_CONFIG / "ramshelf.yaml").write_text(
            ramshelf("placement", "provider-config").stdout
        )
        running.restart()
        yield running


@pytest.fixture
def plain(prepared: Cloud) -> Iterator[Cloud]:
    yield prepared
    prepared.clear()
    assert memory_files() == []


def placed(cloud: Cloud, **extra_specs: str) -> Server:
    """What becomes of a server of this flavor: ACTIVE on the only host, or ERROR."""
    flavor = cloud.compute.flavor(128, **extra_specs)
    return cloud.compute.placed(cloud.compute.create(flavor, cloud.image()))


def assert_nowhere(cloud: Cloud, **extra_specs: str) -> None:
    server = placed(cloud, **extra_specs)
    assert server.fault is not None
    assert server.fault.message.startswith("No valid host was found.")
    assert cloud.placement.allocated_mib(cloud.node) == {}


def test_what_nova_compute_reports(plain: Cloud) -> None:
    """It reports the option in place of the host's RAM, ratio 1.0, none reserved, and two traits.

    One trait is for file-backed memory, the other for the store's kind.
    """
    assert plain.placement.inventory(plain.node) == {
        "total": TOLD_MIB,
        "reserved": 0,
        "min_unit": 1,
        "max_unit": TOLD_MIB,
        "step_size": 1,
        "allocation_ratio": 1.0,
    }
    assert {TRAIT, KIND} <= plain.placement.traits(plain.node)


def test_a_flavor_that_demands_it(plain: Cloud) -> None:
    server = placed(plain, **REQUIRED)
    assert (server.status, server.host) == ("ACTIVE", plain.host)
    assert len(memory_files()) == 1


def test_a_flavor_that_demands_a_kind(plain: Cloud) -> None:
    assert placed(plain, **{f"trait__{KIND}": "required"}).status == "ACTIVE"
    plain.clear()
    assert_nowhere(plain, **{f"trait__{KIND}": "forbidden"})


def test_a_flavor_that_forbids_it(plain: Cloud) -> None:
    assert_nowhere(plain, **FORBIDDEN)


def test_huge_pages_beside_forbidden_never_come_here(plain: Cloud) -> None:
    assert_nowhere(plain, **FORBIDDEN, hw__mem_page_size="small")


def test_an_aggregate_of_file_backed_hosts_alone(plain: Cloud) -> None:
    """The trait isolates it: flavors that do not demand the trait stay away.

    Flavors with huge pages are among them.
    """
    aggregate = plain.compute.aggregate("file-backed", plain.host, {f"trait:{TRAIT}": "required"})
    try:
        assert_nowhere(plain)
        assert_nowhere(plain, hw__mem_page_size="small")
        assert placed(plain, **REQUIRED).status == "ACTIVE"
    finally:
        plain.clear()
        aggregate.delete()


def test_as_many_servers_as_the_store_has_place_for(plain: Cloud) -> None:
    for _ in range(TOLD_MIB // 128):
        assert placed(plain).status == "ACTIVE"
    server = placed(plain)
    assert server.fault is not None
    assert "No valid host was found." in server.fault.message


def test_a_ratio_of_an_aggregate_is_ignored_by_nova(plain: Cloud) -> None:
    """Nova's metadata of that name has no effect since Placement counts memory."""
    aggregate = plain.compute.aggregate(
        "overcommitted", plain.host, {"ram_allocation_ratio": "4.0"}
    )
    try:
        assert plain.placement.inventory(plain.node)["allocation_ratio"] == 1.0
        plain.restart()
        assert plain.placement.inventory(plain.node)["allocation_ratio"] == 1.0
    finally:
        aggregate.delete()


def test_a_ratio_that_somebody_gives_placement_is_set_back(plain: Cloud) -> None:
    """After ``openstack resource provider inventory set --amend`` nova-compute sets it back."""
    provider = plain.placement.provider(plain.node)
    path = f"/resource_providers/{provider}/inventories"
    found = plain.placement.ask("GET", path)
    found["inventories"]["MEMORY_MB"]["allocation_ratio"] = 4.0
    plain.placement.ask("PUT", path, found)
    assert plain.placement.inventory(plain.node)["allocation_ratio"] == 4.0
    plain.restart()
    assert plain.placement.inventory(plain.node)["allocation_ratio"] == 1.0


@pytest.mark.parametrize("ratio", [None, 1.5])
def test_nova_compute_does_not_start_with_another_ratio(plain: Cloud, ratio: float | None) -> None:
    here: Settings = {"libvirt": {"file_backed_memory": TOLD_MIB}, **ISOLATED}
    plain.configure({"DEFAULT": {"ram_allocation_ratio": ratio}, **here})
    try:
        with pytest.raises(AssertionError, match="file_backed_memory"):
            plain.restart()
    finally:
        plain.configure(here)
        plain.restart()
