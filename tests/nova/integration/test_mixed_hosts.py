"""Two hosts with ramshelf's store and hook, one with ramshelf's driver, one with Nova's own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from support.cli import ramshelf
from support.devices import scratch
from support.domains import domain_xml, qemu_pid
from support.libvirtd import Libvirtd
from support.nova.broker import rabbitmq
from support.nova.client import ApiError, Server
from support.nova.cloud import Cloud, cloud
from support.nova.conf import Settings
from support.nova.second import NAME, SHARED, SecondCompute, second_compute
from support.onstore import (
    allocates_at_start,
    assert_reserved,
    capacity,
    memory_files,
    wait_recorded,
)
from support.process import wait_until
from support.second_host import FIRST_ADDRESS, second_host
from support.stores import store

STOCK, OURS = "libvirt.LibvirtDriver", "ramshelf.FileBackedLibvirtDriver"
FIRST_MIB, SECOND_MIB = 1024, 256
"""Nova's scheduler, which is to look at memory alone, takes the first host where it has a choice.

Also while it takes off what servers of earlier tests had there: nova-compute counts those that have
come by a migration or an evacuation until it looks at the host anew, once a minute.
"""

MEMORY_MIB = 128
Pair = tuple[Cloud, SecondCompute]


def nova_conf(url: str, driver: str, told_mib: int) -> Settings:
    return {
        "DEFAULT": {**SHARED["DEFAULT"], "compute_driver": driver, "transport_url": url},
        "filter_scheduler": {"weight_classes": "nova.scheduler.weights.ram.RAMWeigher"},
        "libvirt": {"file_backed_memory": told_mib},
        "scheduler": {"discover_hosts_in_cells_interval": 2, "max_attempts": 2},
    }


@pytest.fixture(scope="module")
def hosts(libvirtd: Libvirtd) -> Iterator[Pair]:  # noqa: ARG001
    with (
        store("ext4", FIRST_MIB + 64),
        second_host("tmpfs", SECOND_MIB + 64) as there,
        rabbitmq(FIRST_ADDRESS) as url,
    ):
        ramshelf("hook", "install")
        with (
            cloud(nova_conf(url, OURS, FIRST_MIB)) as first,
            second_compute(first, there, shared=True) as second,
        ):
            second.start(nova_conf(url, STOCK, SECOND_MIB))
            yield first, second


@pytest.fixture
def pair(hosts: Pair) -> Iterator[Pair]:
    """Without servers, and nothing is left of those that the test had."""
    first, second = hosts
    yield first, second
    first.clear()
    assert memory_files() == []
    assert capacity()["promised_mib"] == 0
    assert second.host.directories() == []
    assert second.host.capacity()["promised_mib"] == 0


def booted(first: Cloud, host: str) -> Server:
    flavor = first.compute.flavor(MEMORY_MIB)
    image = first.image("ramshelf.count")
    server = first.compute.wait(
        first.compute.create(flavor, image, availability_zone=f"nova:{host}"), "ACTIVE"
    )
    first.wait_console(server, "COUNT 2 ")
    return server


def settled(first: Cloud, server: Server, host: str, status: str = "ACTIVE") -> Server:
    """The server once nothing is under way, and it is where it is to be."""

    def there() -> bool:
        now = first.compute.server(server.uuid)
        return now.task is None and (now.host, now.status) == (host, status)

    try:
        wait_until(there, f"it is {status} on {host}")
    except TimeoutError as error:
        now = first.compute.server(server.uuid)
        raise TimeoutError(
            f"{error}: {now}, {first.compute.actions(server)[0]}\n{first.errors()}"
        ) from None
    return first.compute.server(server.uuid)


def assert_on_first(server: Server) -> None:
    """Its memory is reserved on the first host's store, and QEMU allocates it on demand.

    The driver of that host has QEMU do so.
    """
    assert_reserved(server.domain, MEMORY_MIB)
    assert not allocates_at_start(server.domain)


def assert_on_second(second: SecondCompute, server: Server) -> None:
    """Its memory is on the second host's store, reserved; none is on the first's."""
    assert second.host.memory_mib(server.domain)[0] == MEMORY_MIB
    assert second.host.capacity()["promised_mib"] == MEMORY_MIB
    assert memory_files() == []


def assert_claimed(first: Cloud, first_mib: int, second_mib: int) -> None:
    """What servers have of each host's MEMORY_MB in Placement."""
    [there] = [
        node["hypervisor_hostname"]
        for node in first.compute.ask("GET", "/os-hypervisors")["hypervisors"]
        if node["hypervisor_hostname"] != first.node
    ]
    held = [sum(first.placement.allocated_mib(host).values()) for host in (first.node, there)]
    assert held == [first_mib, second_mib]


@pytest.mark.parametrize("end", ["confirmResize", "revertResize"])
def test_cold_migration_there(pair: Pair, end: str) -> None:
    first, second = pair
    server = booted(first, first.host)
    first.compute.act(server, "migrate", {"host": NAME})
    settled(first, server, NAME, "VERIFY_RESIZE")
    assert_on_second(second, server)
    assert_claimed(first, MEMORY_MIB, MEMORY_MIB)  # Nova keeps the place that it may go back to
    first.compute.act(server, end)
    if end == "confirmResize":
        settled(first, server, NAME)
        assert_on_second(second, server)
        assert_claimed(first, 0, MEMORY_MIB)
    else:
        settled(first, server, first.host)
        assert_on_first(server)
        assert second.host.directories() == []
        assert_claimed(first, MEMORY_MIB, 0)


def test_cold_migration_back(pair: Pair) -> None:
    first, second = pair
    server = booted(first, NAME)
    first.compute.act(server, "migrate", {"host": first.host})
    settled(first, server, first.host, "VERIFY_RESIZE")
    first.compute.act(server, "confirmResize")
    settled(first, server, first.host)
    assert_on_first(server)
    assert second.host.directories() == []
    assert_claimed(first, MEMORY_MIB, 0)


def test_evacuation(pair: Pair) -> None:
    """The host is dead; when it comes back its nova-compute removes what is no longer its own."""
    first, second = pair
    server = booted(first, NAME)
    second.stop()
    second.host.kill_qemu(server.domain)
    first.compute.force_down(NAME, down=True)
    first.compute.act(server, "evacuate", {"host": first.host})
    settled(first, server, first.host, "SHUTOFF")  # as Nova has it since 2.95
    assert memory_files() == []
    first.compute.act(server, "os-start")
    settled(first, server, first.host)
    assert_on_first(server)
    first.wait_console(server, "COUNT 2 ")

    second.start()
    wait_until(
        lambda: second.host.virsh("list", "--all", "--name").split() == [], "it is removed there"
    )
    wait_until(lambda: is_up_again(first), "Nova has the host back")
    assert qemu_pid(server.domain) is not None
    assert second.host.directories() == []
    assert_claimed(first, MEMORY_MIB, 0)


def is_up_again(first: Cloud) -> bool:
    """Whether Nova takes the second host for alive, once its nova-compute has cleared up."""
    try:
        first.compute.force_down(NAME, down=False)
    except ApiError:
        return False
    return True


def test_a_build_that_a_full_store_refuses_goes_to_the_other_host(
    pair: Pair, libvirtd: Libvirtd
) -> None:
    """Somebody else's guest has the place that Placement believes in."""
    first, second = pair
    with filled(libvirtd.virsh, capacity()["free_mib"] - 100):
        server = first.compute.create(first.compute.flavor(MEMORY_MIB), first.image())
        server = settled(first, server, NAME)
        assert wait_recorded(server.domain, "refused")["code"] == "capacity.exceeded"
    assert_on_second(second, server)
    assert_claimed(first, 0, MEMORY_MIB)


def test_a_build_that_all_stores_refuse_names_what_is_missing(
    pair: Pair, libvirtd: Libvirtd
) -> None:
    first, second = pair
    with (
        filled(libvirtd.virsh, capacity()["free_mib"] - 100),
        filled(second.host.virsh, second.host.capacity()["free_mib"] - 60),
    ):
        server = first.compute.create(first.compute.flavor(MEMORY_MIB), first.image())
        wait_until(
            lambda: first.compute.server(server.uuid).status == "ERROR",
            "it is refused",
        )
    fault = first.compute.server(server.uuid).fault
    assert fault is not None
    assert "Exceeded max scheduling attempts 2" in fault.message
    assert "needs 128 MiB of file-backed memory, 68 MiB more" in fault.details  # on the last host
    assert_claimed(first, 0, 0)


@contextmanager
def filled(virsh: Callable[..., object], size_mib: int) -> Iterator[None]:
    """Somebody else's guest has so much of a host's store."""
    definition = scratch() / "other.xml"
    definition.write_text(domain_xml("other", size_mib))
    virsh("create", str(definition))
    try:
        yield
    finally:
        virsh("destroy", "other")
