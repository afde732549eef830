"""Two hosts with ramshelf's driver, and the servers that move between them while they run.

Nova takes them for such also where libvirt has suspended the guest
(``support.moving.moves_running``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.cli import RAMSHELF, ramshelf
from support.domains import domain_xml, qemu_pid
from support.libvirtd import Libvirtd
from support.moving import hold, let_go
from support.nova.broker import rabbitmq
from support.nova.client import Server
from support.nova.cloud import Cloud, cloud
from support.nova.conf import Settings
from support.nova.second import NAME, SecondCompute, migratable, second_compute
from support.onstore import assert_reserved, memory_files
from support.process import wait_until
from support.second_host import FIRST_ADDRESS, SECOND_ADDRESS, second_host
from support.stores import store

STOCK, OURS = "libvirt.LibvirtDriver", "ramshelf.FileBackedLibvirtDriver"
TOLD_MIB = 256


def nova_conf(url: str, address: str, driver: str = OURS, told_mib: int = TOLD_MIB) -> Settings:
    addressed = migratable(address)
    return {
        "DEFAULT": {
            **addressed["DEFAULT"],
            "compute_driver": driver,
            "transport_url": url,
            "periodic_fuzzy_delay": 0,
            "update_resources_interval": 2,
        },
        "filter_scheduler": {
            "weight_classes": "ramshelf_nova.weigher.StoreHeadroomWeigher",
            "store_headroom_weight_multiplier": 10,
        },
        "libvirt": {**addressed["libvirt"], "file_backed_memory": told_mib},
        "scheduler": {"discover_hosts_in_cells_interval": 2},
    }


@pytest.fixture(scope="module")
def hosts(libvirtd: Libvirtd) -> Iterator[tuple[Cloud, SecondCompute, str]]:
    with (
        store("swap", 320),
        libvirtd.listening(),
        second_host("tmpfs", 300) as there,
        rabbitmq(FIRST_ADDRESS) as url,
    ):
        ramshelf("hook", "install")
        with cloud(nova_conf(url, FIRST_ADDRESS)) as first, second_compute(first, there) as second:
            yield first, second, url


@pytest.fixture
def pair(hosts: tuple[Cloud, SecondCompute, str]) -> Iterator[tuple[Cloud, SecondCompute]]:
    """Both file-backed, without servers."""
    first, second, url = hosts
    second.start(nova_conf(url, SECOND_ADDRESS))
    yield first, second
    first.clear()
    second.stop()
    assert memory_files() == []
    assert second.host.directories() == []


def migrate(first: Cloud, server: Server, host: str) -> None:
    first.compute.act(server, "os-migrateLive", {"host": host, "block_migration": "auto"})


def events(first: Cloud, server: Server) -> str:
    """What Nova tells of the latest action."""
    latest: Any = first.compute.actions(server)[0]
    return str(latest)


def moved(first: Cloud, server: Server, host: str) -> Server:
    migrate(first, server, host)
    wait_until(
        lambda: first.compute.server(server.uuid).task is None,
        f"the move to {host} is over",
    )
    now = first.compute.wait(server, "ACTIVE")
    assert now.host == host, events(first, server)
    return now


def booted_here(first: Cloud) -> Server:
    flavor, image = first.compute.flavor(128), first.image("ramshelf.count")
    server = first.compute.create(flavor, image, availability_zone=f"nova:{first.host}")
    server = first.compute.wait(server, "ACTIVE")
    first.wait_console(server, "COUNT 2 ")
    assert server.host == first.host
    return server


def test_there_and_back(libvirtd: Libvirtd, pair: tuple[Cloud, SecondCompute]) -> None:
    """Nova's source asks for memory at once and discard; the host it comes to decides."""
    there_and_back(libvirtd, *pair)


@contextmanager
def changed(
    hosts: tuple[Cloud, SecondCompute, str], here: tuple[str, int], there: tuple[str, int]
) -> Iterator[tuple[Cloud, SecondCompute]]:
    """The hosts with these drivers and so much file-backed memory meanwhile."""
    first, second, url = hosts
    first.configure(nova_conf(url, FIRST_ADDRESS, *here))
    first.restart()
    second.stop()
    second.start(nova_conf(url, SECOND_ADDRESS, *there))
    try:
        yield first, second
        first.clear()
    finally:
        first.configure(nova_conf(url, FIRST_ADDRESS))
        first.restart()


@pytest.mark.usefixtures("pair")
def test_from_and_to_a_host_with_novas_own_driver(
    libvirtd: Libvirtd, hosts: tuple[Cloud, SecondCompute, str]
) -> None:
    with changed(hosts, (STOCK, TOLD_MIB), (OURS, TOLD_MIB)) as (first, second):
        there_and_back(libvirtd, first, second)


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize(("here_mib", "there_mib"), [(TOLD_MIB, 0), (0, TOLD_MIB)])
def test_a_pair_that_novas_own_driver_does_not_refuse(
    hosts: tuple[Cloud, SecondCompute, str], here_mib: int, there_mib: int
) -> None:
    """It begins the migration with the destination's backing, which libvirt refuses at once."""
    with changed(hosts, (STOCK, here_mib), (STOCK, there_mib)) as (first, second):
        assert_given_up(first)
        assert second.host.guests() == []
        assert second.host.directories() == []
        assert "Target memoryBacking source" in first.errors()


@pytest.mark.usefixtures("pair")
def test_a_full_store_that_novas_own_driver_knows_nothing_of(
    hosts: tuple[Cloud, SecondCompute, str],
) -> None:
    """The hook refuses the guest, before memory moves."""
    with changed(hosts, (STOCK, TOLD_MIB), (STOCK, TOLD_MIB)) as (first, second):
        second.host.run("virsh", "create", "/dev/stdin", stdin=domain_xml("other", 200))
        server = assert_given_up(first)
        assert second.host.guests() == ["other"]
        told = [entry for entry in second.host.hook_log() if entry.get("guest") == server.domain]
        assert [(entry["event"], entry["code"]) for entry in told] == [
            ("refused", "capacity.exceeded")
        ]
        second.host.virsh("destroy", "other")


def assert_given_up(first: Cloud) -> Server:
    """A server's migration to the second host fails; it runs on."""
    server = booted_here(first)
    pid = qemu_pid(server.domain)
    migrate(first, server, NAME)
    wait_until(lambda: is_over(first, server), "the move is given up")
    assert qemu_pid(server.domain) == pid
    assert first.compute.server(server.uuid).host == first.host
    return server


def is_over(first: Cloud, server: Server) -> bool:
    """Whether the server's latest migration has failed, and nothing is under way any more."""
    found = first.compute.ask("GET", f"/os-migrations?instance_uuid={server.uuid}")["migrations"]
    ended = {migration["status"] for migration in found} & {"error", "failed"}
    return bool(ended) and first.compute.server(server.uuid).task is None


def there_and_back(libvirtd: Libvirtd, first: Cloud, second: SecondCompute) -> None:
    server = booted_here(first)
    hold(libvirtd, server.domain)
    server = moved(first, server, NAME)
    assert memory_files() == []
    size, _ = second.host.memory_mib(server.domain)
    assert size == 128
    xml = second.host.virsh("dumpxml", server.domain)
    assert "<source type='file'/>" in xml
    assert "<allocation mode='immediate'/>" not in xml
    wait_until(lambda: not first.placement.allocated_mib(first.node), "its place here is free")

    server = moved(first, server, first.host)
    assert_reserved(server.domain, 128)
    assert second.host.directories() == []
    assert first.placement.allocated_mib(first.node) == {server.uuid: 128}
    let_go(libvirtd, server.domain)
    first.wait_console(server, "COUNT ")


def refused(first: Cloud, server: Server, reason: str) -> None:
    pid = qemu_pid(server.domain)
    migrate(first, server, NAME)
    wait_until(lambda: first.compute.server(server.uuid).task is None, "the move is refused")
    now = first.compute.wait(server, "ACTIVE")
    assert (now.host, qemu_pid(server.domain)) == (first.host, pid)
    assert reason in events(first, server)


def test_a_destination_whose_store_is_full(pair: tuple[Cloud, SecondCompute]) -> None:
    """By somebody else's guest, of whom Placement knows nothing."""
    first, second = pair
    server = booted_here(first)
    second.host.run("virsh", "create", "/dev/stdin", stdin=domain_xml("other", 200))
    refused(first, server, "of file-backed memory, and")
    second.host.virsh("destroy", "other")
    assert moved(first, server, NAME).host == NAME


def test_a_destination_without_the_hook(
    pair: tuple[Cloud, SecondCompute], hosts: tuple[Cloud, SecondCompute, str]
) -> None:
    """Before its nova-compute looks at the host again, and disables itself."""
    first, second = pair
    server = booted_here(first)
    conf = nova_conf(hosts[2], SECOND_ADDRESS)
    second.stop()
    second.start({**conf, "DEFAULT": {**conf["DEFAULT"], "update_resources_interval": 600}})
    second.host.run(RAMSHELF, "hook", "remove")
    try:
        refused(first, server, "ramshelf's hook does not answer")
    finally:
        second.host.run(RAMSHELF, "hook", "install")


def test_a_destination_with_anonymous_memory(
    pair: tuple[Cloud, SecondCompute], hosts: tuple[Cloud, SecondCompute, str]
) -> None:
    first, second = pair
    server = booted_here(first)
    second.stop()
    second.start(nova_conf(hosts[2], SECOND_ADDRESS, told_mib=0))
    refused(first, server, "libvirt cannot change that")


@pytest.mark.parametrize("full", ["first", "second"])
def test_a_server_goes_where_there_is_headroom(
    pair: tuple[Cloud, SecondCompute], libvirtd: Libvirtd, full: str
) -> None:
    """By the weigher: both hosts have as much memory left for all that Placement knows."""
    first, second = pair
    here, definition = full == "first", domain_xml("other", 100)
    virsh = libvirtd.virsh if here else second.host.virsh
    if here:
        libvirtd.create(definition)
    else:
        second.host.run("virsh", "create", "/dev/stdin", stdin=definition)
    wait_until(
        lambda: (
            [promised(first, host) for host in (first.host, NAME)] == [100 * here, 100 * (not here)]
        ),
        "the scheduler knows it",
    )
    server = first.compute.wait(
        first.compute.create(first.compute.flavor(128), first.image()), "ACTIVE"
    )
    assert server.host == (NAME if here else first.host)
    virsh("destroy", "other")


def promised(first: Cloud, host: str) -> int:
    return int(first.stats(host).get("ramshelf_store_promised_mib", -1))
