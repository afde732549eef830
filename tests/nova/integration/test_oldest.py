"""The oldest supported Nova with the driver and the filter; its services run on eventlet."""

import re
from collections.abc import Callable, Iterator

import pytest

from support.cli import ramshelf
from support.counters import device_of, sync, written
from support.domains import qemu_pid
from support.libvirtd import Libvirtd
from support.nova.client import Server
from support.nova.cloud import OLDEST, Cloud, cloud
from support.nova.conf import Settings
from support.onstore import assert_reserved, assert_unwritten, memory_files, wait_recorded
from support.process import run, wait_until
from support.stores import store

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(
        not OLDEST.exists(),
        reason=f"no {OLDEST.name}: Nova 31 is for Python 3.13 and older (scripts/setup soak)",
    ),
]

TOLD_MIB = 512
MEMORY_MIB = 128
DIRTY_MIB = 32


def nova_conf(driver: str) -> Settings:
    return {
        "DEFAULT": {"compute_driver": driver},
        "filter_scheduler": {
            "available_filters": "ramshelf_nova.filter.all_filters",
            "enabled_filters": "ComputeFilter,ImagePropertiesFilter,FileBackedMemoryFilter",
            "weight_classes": "ramshelf_nova.weigher.StoreHeadroomWeigher",
        },
        "libvirt": {"file_backed_memory": TOLD_MIB},
    }


@pytest.fixture(scope="module")
def prepared(libvirtd: Libvirtd) -> Iterator[Cloud]:  # noqa: ARG001
    with store("xfs", 768):
        ramshelf("hook", "install")
        with cloud(
            nova_conf("ramshelf.FileBackedLibvirtDriver"), virtual_environment=OLDEST
        ) as running:
            yield running


@pytest.fixture
def oldest(prepared: Cloud) -> Iterator[Cloud]:
    yield prepared
    prepared.clear()
    assert memory_files() == []


def memory_backing(server: Server) -> str:
    xml = run("virsh", "dumpxml", server.domain).stdout
    found = re.search("<memoryBacking>.*</memoryBacking>", xml, re.DOTALL)
    return re.sub(r"\s", "", found[0]) if found else ""


def assert_on_demand(server: Server) -> None:
    """The hook has reserved the server's memory, and QEMU allocates none of it at the start."""
    assert_reserved(server.domain, MEMORY_MIB)
    assert (
        memory_backing(server)
        == "<memoryBacking><sourcetype='file'/><accessmode='shared'/></memoryBacking>"
    )


def assert_ends_unwritten(cloud: Cloud, before_its_end: Callable[[Server], None]) -> None:
    """Nothing of a server's dirty memory is written to the store's device when it is deleted."""
    device = device_of("xfs")

    def cost() -> int:
        server = cloud.boot(MEMORY_MIB, f"ramshelf.dirty={DIRTY_MIB}")
        cloud.wait_console(server, "DIRTIED")
        before_its_end(server)
        before = written(device)
        cloud.compute.delete(server)
        wait_until(lambda: memory_files() == [], "its memory is gone")
        sync()
        return written(device) - before

    assert_unwritten(cost)


def restarted(cloud: Cloud, server: Server, pid: int | None) -> Server:
    """The server once it runs in another QEMU than ``pid``, its guest up again."""
    wait_until(lambda: qemu_pid(server.domain) not in {None, pid}, "it is started again")
    server = cloud.compute.wait(server, "ACTIVE")
    cloud.wait_console(server, "GUEST-UP")
    return server


def test_a_server_costs_what_it_uses_and_ends_unwritten(oldest: Cloud) -> None:
    def on_demand(server: Server) -> None:
        assert_on_demand(server)
        assert oldest.placement.allocated_mib(oldest.node) == {server.uuid: MEMORY_MIB}

    assert_ends_unwritten(oldest, on_demand)


def test_reboot_stop_and_start(oldest: Cloud) -> None:
    server = oldest.boot(MEMORY_MIB)
    pid = qemu_pid(server.domain)
    oldest.compute.act(server, "reboot", {"type": "HARD"})
    assert_on_demand(restarted(oldest, server, pid))
    oldest.compute.act(server, "os-stop")
    oldest.compute.wait(server, "SHUTOFF")
    assert memory_files() == []
    oldest.compute.act(server, "os-start")
    assert_on_demand(restarted(oldest, server, None))


def test_memory_pages_of_a_size_find_no_host(oldest: Cloud) -> None:
    """By the filter: the driver would refuse them only on the host."""
    flavor = oldest.compute.flavor(MEMORY_MIB, hw__mem_page_size="small")
    asked = oldest.compute.create(flavor, oldest.image())
    wait_until(
        lambda: oldest.compute.server(asked.uuid).status == "ERROR",
        "it is refused",
    )
    refused = oldest.compute.server(asked.uuid)
    assert refused.fault is not None
    assert refused.fault.message.startswith("No valid host was found.")
    assert refused.host is None
    assert "has file memory: the flavor asks for memory pages of a size" in oldest.log()


def test_placement_knows_the_store(oldest: Cloud) -> None:
    traits = oldest.placement.traits(oldest.node)
    assert {"COMPUTE_MEM_BACKING_FILE", "CUSTOM_RAMSHELF_STORE_DISK"} <= traits
    assert oldest.placement.inventory(oldest.node)["total"] == TOLD_MIB
    assert "FileBackedLibvirtDriver, tested with Nova 31, 34, on Nova 31." in oldest.log()


def test_its_own_driver(oldest: Cloud) -> None:
    """QEMU allocates what the hook has reserved, and the hook takes the discard back."""

    def on_the_store(server: Server) -> None:
        assert_reserved(server.domain, MEMORY_MIB)
        assert (
            memory_backing(server) == "<memoryBacking><sourcetype='file'/><accessmode='shared'/>"
            "<allocationmode='immediate'/><discard/></memoryBacking>"
        )
        wait_recorded(server.domain, "discard-retracted")

    oldest.stop()
    oldest.configure(nova_conf("libvirt.LibvirtDriver"))
    oldest.start()
    assert_ends_unwritten(oldest, on_the_store)
