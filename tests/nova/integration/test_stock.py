"""Nova's own LibvirtDriver with ramshelf's store and hook beside it: nothing of Nova is changed."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ramshelf.core.units import MIB
from support.cli import ramshelf
from support.counters import device_of, sync, written
from support.domains import domain_xml, qemu_pid
from support.libvirtd import Libvirtd
from support.nova.client import Server
from support.nova.cloud import Cloud, cloud
from support.onstore import assert_reserved, assert_unwritten, capacity, memory_files, wait_recorded
from support.process import wait_until
from support.stores import store

SIZE_MIB = {"ext4": 640, "xfs": 768, "swap": 576}
TOLD_MIB = 512
MEMORY_MIB = 192
DIRTY_MIB = 96


@dataclass(frozen=True)
class Stock:
    """A cloud whose host has a store of this kind and the hook."""

    cloud: Cloud
    file_system: str
    libvirtd: Libvirtd


@pytest.fixture(scope="module", params=SIZE_MIB)
def prepared(libvirtd: Libvirtd, request: pytest.FixtureRequest) -> Iterator[Stock]:
    file_system: str = request.param
    with (
        store(file_system, SIZE_MIB[file_system]),
        cloud(
            {"libvirt": {"file_backed_memory": TOLD_MIB}, "scheduler": {"max_attempts": 1}}
        ) as running,
    ):
        ramshelf("hook", "install")
        yield Stock(running, file_system, libvirtd)


@pytest.fixture
def stock(prepared: Stock) -> Iterator[Stock]:
    """Without servers, and nothing is left of those that the test had."""
    yield prepared
    prepared.cloud.clear()
    assert memory_files() == []
    assert capacity()["promised_mib"] == 0


def end_cost(stock: Stock, server: Server) -> int:
    """Bytes written to the store's device while a server with dirty memory is deleted."""
    device = device_of(stock.file_system)
    before = written(device)
    stock.cloud.compute.delete(server)
    wait_until(lambda: memory_files() == [], "its memory is gone")
    sync()
    return written(device) - before


def test_a_server_is_reserved_and_ends_unwritten(stock: Stock) -> None:
    """Nova's own XML is used as it is, with discard and immediate.

    On XFS the flag is taken back while the guest runs.
    """

    def cost() -> int:
        server = stock.cloud.boot(MEMORY_MIB, f"ramshelf.dirty={DIRTY_MIB}")
        assert_reserved(server.domain, MEMORY_MIB)
        assert capacity()["promised_mib"] == MEMORY_MIB
        assert stock.cloud.placement.allocated_mib(stock.cloud.node) == {server.uuid: MEMORY_MIB}
        xml = stock.libvirtd.virsh("dumpxml", server.domain).stdout
        assert "<allocation mode='immediate'/>" in xml
        assert "<discard/>" in xml
        stock.cloud.wait_console(server, "DIRTIED")
        if stock.file_system == "xfs":
            wait_recorded(server.domain, "discard-retracted")
        return end_cost(stock, server)

    assert_unwritten(cost)


def test_without_the_hook_an_end_on_xfs_is_written(stock: Stock) -> None:
    """What the test above would see if the hook did nothing."""
    if stock.file_system != "xfs":
        pytest.skip("elsewhere discard costs nothing on this kernel")
    ramshelf("hook", "remove")
    try:
        server = stock.cloud.boot(MEMORY_MIB, f"ramshelf.dirty={DIRTY_MIB}")
        stock.cloud.wait_console(server, "DIRTIED")
        cost = end_cost(stock, server)
    finally:
        ramshelf("hook", "install")
    assert cost > DIRTY_MIB * MIB / 2


def test_a_full_store_refuses_the_build(stock: Stock) -> None:
    """Somebody else's guest has the place that Placement believes in.

    The server ends in ERROR, unstarted.
    """
    free = capacity()["free_mib"]
    stock.libvirtd.create(domain_xml("other", free - 100))
    asked = stock.cloud.compute.create(stock.cloud.compute.flavor(128), stock.cloud.image())
    wait_until(lambda: stock.cloud.compute.server(asked.uuid).status == "ERROR", "ERROR")
    refused = stock.cloud.compute.server(asked.uuid)
    said = wait_recorded(refused.domain, "refused")
    assert said["code"] == "capacity.exceeded"
    assert "28 MiB more than are free" in said["reason"]
    assert refused.fault is not None
    # The message is cut off before the reason, after libvirt's own words.
    assert said["reason"] in refused.fault.details
    assert qemu_pid(refused.domain) is None
    assert [file.parent.name.partition("-")[2] for file in memory_files()] == ["other"]
    assert stock.cloud.placement.allocated_mib(stock.cloud.node) == {}
    # The place is free again at once, and the refused server has left nothing that were in the way.
    stock.libvirtd.virsh("destroy", "other")
    assert_reserved(stock.cloud.boot().domain, 128)


def test_huge_pages_are_refused(stock: Stock) -> None:
    for pages in ("small", "large", "any"):
        flavor = stock.cloud.compute.flavor(128, hw__mem_page_size=pages)
        asked = stock.cloud.compute.create(flavor, stock.cloud.image())
        wait_until(
            lambda: stock.cloud.compute.server(asked.uuid).status == "ERROR",  # noqa: B023
            f"{pages} pages are refused",
        )
        assert qemu_pid(stock.cloud.compute.server(asked.uuid).domain) is None
        assert memory_files() == []


def test_nothing_is_left_of_what_was_killed(stock: Stock) -> None:
    """QEMU while the server runs, then nova-compute while one is built."""
    server = stock.cloud.boot()
    os.kill(qemu_pid(server.domain) or 0, signal.SIGKILL)
    stock.cloud.compute.wait(server, "SHUTOFF")
    assert memory_files() == []
    stock.cloud.compute.act(server, "os-start")
    stock.cloud.compute.wait(server, "ACTIVE")
    assert_reserved(server.domain, 128)

    building = stock.cloud.compute.create(stock.cloud.compute.flavor(128), stock.cloud.image())
    wait_until(
        lambda: qemu_pid(stock.cloud.compute.server(building.uuid).domain) is not None,
        "it is being started",
    )
    stock.cloud.restart()
    wait_until(
        lambda: stock.cloud.compute.server(building.uuid).status in {"ERROR", "ACTIVE"},
        "Nova knows what became of it",
    )
    assert_reserved(server.domain, 128)
    stock.cloud.compute.delete(building)
    wait_until(lambda: len(memory_files()) == 1, "only the other server is left")
