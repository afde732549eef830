"""What it costs a host in Nova that its hook refuses a server.

The host is passed over until it has built one.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import ramshelf
from support.libvirtd import Libvirtd
from support.nova.broker import rabbitmq
from support.nova.client import Server
from support.nova.cloud import Cloud, cloud
from support.nova.conf import Settings
from support.nova.second import NAME, SHARED, second_compute
from support.onstore import memory_files
from support.process import wait_until
from support.second_host import FIRST_ADDRESS, second_host
from support.stores import store

CONF = Path("/etc/ramshelf/ramshelf.conf")
MEMORY_MIB = 128
DEMAND = "ramshelf__file_backed_memory"


def nova_conf(url: str, told_mib: int) -> Settings:
    """Two hosts, of which the one with less free memory is preferred: the file-backed one."""
    return {
        "DEFAULT": {
            **SHARED["DEFAULT"],
            "compute_driver": "ramshelf.FileBackedLibvirtDriver",
            "transport_url": url,
            "periodic_fuzzy_delay": 0,
            "update_resources_interval": 2,
        },
        "filter_scheduler": {
            "available_filters": "ramshelf_nova.filter.all_filters",
            "enabled_filters": "ComputeFilter,FileBackedMemoryFilter",
            "ram_weight_multiplier": -100.0,
        },
        "libvirt": {"file_backed_memory": told_mib},
        "scheduler": {"discover_hosts_in_cells_interval": 2},
    }


@pytest.fixture
def first(libvirtd: Libvirtd) -> Iterator[Cloud]:  # noqa: ARG001
    with store("ext4", 640), second_host("tmpfs", 300) as there, rabbitmq(FIRST_ADDRESS) as url:
        ramshelf("hook", "install")
        with (
            cloud(nova_conf(url, 512)) as first,
            second_compute(first, there, shared=True) as second,
        ):
            second.start(nova_conf(url, 0))
            yield first
            first.clear()
            assert memory_files() == []


def asked(first: Cloud, **extra_specs: str) -> Server:
    return first.compute.create(first.compute.flavor(MEMORY_MIB, **extra_specs), first.image())


def built(first: Cloud, **extra_specs: str) -> Server:
    return first.compute.wait(asked(first, **extra_specs), "ACTIVE")


def wait_failed_builds(first: Cloud, number: int) -> None:
    wait_until(
        lambda: first.stats(first.host).get("failed_builds") == str(number),
        f"the scheduler is told of {number} failed builds",
    )


def test_a_host_that_refused_for_want_of_ram_is_passed_over_until_it_has_built_one(
    first: Cloud,
) -> None:
    assert built(first).host == first.host
    CONF.parent.mkdir(exist_ok=True)
    CONF.write_text("[ramshelf]\nhost_reserved_memory_mb = 100000000\n")
    assert built(first).host == NAME  # it was asked first, and refused
    wait_failed_builds(first, 1)
    CONF.unlink()  # it has room again
    assert built(first).host == NAME
    assert built(first, **{DEMAND: "required"}).host == first.host  # no other host can
    wait_failed_builds(first, 0)
    assert built(first).host == first.host


def test_a_build_that_goes_nowhere_else_counts_too(first: Cloud) -> None:
    CONF.parent.mkdir(exist_ok=True)
    CONF.write_text("[ramshelf]\nhost_reserved_memory_mb = 100000000\n")
    server = asked(first, **{DEMAND: "required"})
    wait_until(lambda: first.compute.server(server.uuid).status == "ERROR", "it fails")
    assert "that cannot go to the store" in first.log()
    wait_failed_builds(first, 1)
    CONF.unlink()
    built(first, **{DEMAND: "required"})
    wait_failed_builds(first, 0)
