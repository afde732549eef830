"""``compute_driver = ramshelf.FileBackedLibvirtDriver`` on one host, through Nova's API."""

import re
from collections.abc import Iterator

import pytest

from support.agent import CONF
from support.cli import ramshelf
from support.counters import device_of, sync, written
from support.domains import domain_xml, qemu_pid
from support.libvirtd import Libvirtd
from support.nova.client import Server
from support.nova.cloud import Cloud, cloud
from support.nova.conf import Settings
from support.onstore import assert_reserved, assert_unwritten, capacity, memory_files
from support.process import run, wait_until
from support.stores import MEMORY, store

STOCK, OURS = "libvirt.LibvirtDriver", "ramshelf.FileBackedLibvirtDriver"
TOLD_MIB = 512
DIRTY_MIB = 32
XFS = "CUSTOM_RAMSHELF_STORE_DISK"


def nova_conf(driver: str = OURS, told_mib: int = TOLD_MIB) -> Settings:
    return {
        "DEFAULT": {
            "compute_driver": driver,
            "periodic_fuzzy_delay": 0,
            "update_resources_interval": 2,
        },
        "libvirt": {"file_backed_memory": told_mib},
        "scheduler": {"max_attempts": 1},
    }


@pytest.fixture(scope="module")
def prepared(libvirtd: Libvirtd) -> Iterator[Cloud]:  # noqa: ARG001
    with store("xfs", 768):
        ramshelf("hook", "install")
        with cloud(nova_conf()) as running:
            yield running


@pytest.fixture
def ours(prepared: Cloud) -> Iterator[Cloud]:
    yield prepared
    prepared.clear()
    assert memory_files() == []
    assert prepared.compute.service(prepared.host)["status"] == "enabled"


def with_conf(cloud: Cloud, settings: Settings) -> None:
    cloud.stop()
    cloud.configure(settings)
    cloud.start()


def definition(cloud: Cloud, server: Server) -> str:
    """The XML that the driver makes for the server now, but for the time when it was made."""
    pid = qemu_pid(server.domain)
    cloud.compute.act(server, "reboot", {"type": "HARD"})
    wait_until(lambda: qemu_pid(server.domain) not in {None, pid}, "it is started again")
    cloud.compute.wait(server, "ACTIVE")
    xml = run("virsh", "dumpxml", "--inactive", server.domain).stdout
    return re.sub("<nova:creationTime>[^<]*", "", xml)


def memory_backing(xml: str) -> str:
    found = re.search("<memoryBacking>.*</memoryBacking>", xml, re.DOTALL)
    return re.sub(r"\s", "", found[0]) if found else ""


def wait_disabled(cloud: Cloud, reason: str) -> None:
    def disabled() -> bool:
        service = cloud.compute.service(cloud.host)
        return service["status"] == "disabled" and reason in (service["disabled_reason"] or "")

    wait_until(disabled, f"the service is disabled: {reason}")
    wait_until(
        lambda: "COMPUTE_STATUS_DISABLED" in cloud.placement.traits(cloud.node),
        "Placement knows it",
    )


def wait_enabled(cloud: Cloud) -> None:
    wait_until(
        lambda: cloud.compute.service(cloud.host)["status"] == "enabled",
        "it is enabled",
    )
    wait_until(
        lambda: "COMPUTE_STATUS_DISABLED" not in cloud.placement.traits(cloud.node),
        "Placement knows it",
    )


def test_a_server_costs_what_it_uses_and_ends_unwritten(ours: Cloud) -> None:
    """On XFS, where Nova's own discard writes all of the memory first: none is asked for."""
    device = device_of("xfs")

    def cost() -> int:
        before = written(device)
        server = ours.boot(words=f"ramshelf.dirty={DIRTY_MIB}")
        ours.wait_console(server, "DIRTIED")
        assert_reserved(server.domain, 128)
        xml = run("virsh", "dumpxml", server.domain).stdout
        assert (
            memory_backing(xml)
            == "<memoryBacking><sourcetype='file'/><accessmode='shared'/></memoryBacking>"
        )
        assert ours.placement.allocated_mib(ours.node) == {server.uuid: 128}
        ours.compute.delete(server)
        wait_until(lambda: memory_files() == [], "its memory is gone")
        sync()
        return written(device) - before

    assert_unwritten(cost)


def test_the_way_there_and_back(ours: Cloud) -> None:
    """Under our driver only the memory backing of a server of Nova's own driver changes.

    The way back is the same.
    """
    with_conf(ours, nova_conf(STOCK))
    server = ours.boot()
    stock = definition(ours, server)
    with_conf(ours, nova_conf(OURS))
    driven = definition(ours, server)
    assert_reserved(server.domain, 128)
    assert driven == re.sub(r"\n\s*<(allocation|discard)\b[^>]*/>", "", stock) != stock
    with_conf(ours, nova_conf(STOCK))
    assert definition(ours, server) == stock
    with_conf(ours, nova_conf(OURS))


def test_file_backed_memory_switched_off(ours: Cloud) -> None:
    with_conf(ours, nova_conf(STOCK, 0))
    server = ours.boot()
    stock = definition(ours, server)
    with_conf(ours, nova_conf(OURS, 0))
    assert definition(ours, server) == stock
    assert memory_files() == []
    assert memory_backing(stock) == ""
    traits = ours.placement.traits(ours.node)
    assert not {
        trait for trait in traits if trait.startswith("CUSTOM_RAMSHELF") or "BACKING_FILE" in trait
    }
    assert ours.placement.inventory(ours.node)["total"] > TOLD_MIB
    ours.clear()
    with_conf(ours, nova_conf(OURS))


def test_placement_knows_the_store(ours: Cloud) -> None:
    """No more memory than the store holds, and of what kind it is."""
    assert ours.placement.inventory(ours.node) | {"total": TOLD_MIB, "max_unit": TOLD_MIB} == (
        ours.placement.inventory(ours.node)
    )
    assert {XFS, "COMPUTE_MEM_BACKING_FILE"} <= ours.placement.traits(ours.node)
    with_conf(ours, nova_conf(told_mib=100000))
    wait_until(lambda: ours.placement.inventory(ours.node)["total"] != TOLD_MIB, "it is told")
    total = ours.placement.inventory(ours.node)["total"]
    assert TOLD_MIB < total < 768
    with_conf(ours, nova_conf())
    wait_until(lambda: ours.placement.inventory(ours.node)["total"] == TOLD_MIB, "as before")


def test_traits_of_others_outlive_all_that_write_here(ours: Cloud) -> None:
    """Nova's own OWNER_NOVA too, without which its scheduler does not choose a host (2026.2).

    They are the driver, which takes its own traits back, nova-compute's start, and ramshelf's
    commands, although they are told to own the provider.
    """
    added = {"CUSTOM_OF_OTHERS", "HW_NIC_VMDQ"}
    ours.placement.add_traits(ours.node, *added)
    others = {"OWNER_NOVA", "COMPUTE_NODE", *added}
    run("umount", str(MEMORY))
    wait_disabled(ours, "store.not-mounted")
    assert XFS not in ours.placement.traits(ours.node) >= others
    run("mount", str(MEMORY))
    wait_enabled(ours)
    assert ours.placement.traits(ours.node) >= {XFS, *others}
    with_conf(ours, nova_conf(OURS, 0))
    assert XFS not in ours.placement.traits(ours.node) >= others
    with_conf(ours, nova_conf())
    before = ours.placement.traits(ours.node)
    assert before >= {XFS, *others}
    CONF.parent.mkdir(exist_ok=True)
    CONF.write_text("[ramshelf]\nplacement_owner = true\n")
    assert "placement.not-ours" in ramshelf("placement", "report", "--json").stdout
    CONF.unlink()
    assert ours.placement.traits(ours.node) == before
    ramshelf("hook", "remove")
    wait_disabled(ours, "ramshelf's hook does not answer")
    assert ours.placement.traits(ours.node) >= others
    ramshelf("hook", "install")
    wait_enabled(ours)
    assert ours.placement.traits(ours.node) == before
    assert ours.placement.inventory(ours.node)["total"] == TOLD_MIB


def test_no_less_memory_is_reported_than_servers_hold(ours: Cloud) -> None:
    """So that they can be moved away from a store that has become too small."""
    server = ours.boot()
    filler = MEMORY / "filler"
    left = int(run("df", "--block-size=1M", "--output=avail", str(MEMORY)).stdout.split()[-1])
    run("fallocate", "-l", f"{left - 6}MiB", str(filler))
    assert capacity()["total_mib"] < 128
    wait_until(lambda: ours.placement.inventory(ours.node)["total"] == 128, "it is told")
    ours.compute.delete(server)
    wait_until(lambda: ours.placement.inventory(ours.node)["total"] < 128, "it falls")
    filler.unlink()
    wait_until(lambda: ours.placement.inventory(ours.node)["total"] == TOLD_MIB, "as before")


def test_the_figures_of_the_weigher(ours: Cloud, libvirtd: Libvirtd) -> None:
    """What guests have that are not Nova's counts, too."""
    libvirtd.create(domain_xml("other", 100))
    wait_until(
        lambda: ours.stats(ours.host).get("ramshelf_store_promised_mib") == "100",
        "the figures are told",
    )
    told = ours.stats(ours.host)
    assert told["ramshelf_store_total_mib"] == str(TOLD_MIB)
    assert 0 < int(told["ramshelf_resident_mib"]) < int(told["ramshelf_ram_mib"])
    libvirtd.virsh("destroy", "other")


def test_a_full_store_refuses_the_build_and_the_fault_says_why(
    ours: Cloud, libvirtd: Libvirtd
) -> None:
    libvirtd.create(domain_xml("other", capacity()["free_mib"] - 100))
    asked = ours.compute.create(ours.compute.flavor(128), ours.image())
    wait_until(lambda: ours.compute.server(asked.uuid).status == "ERROR", "it is refused")
    fault = ours.compute.server(asked.uuid).fault
    assert fault is not None
    assert "needs 128 MiB of file-backed memory, 28 MiB more than are free" in fault.message
    assert ours.placement.allocated_mib(ours.node) == {}
    libvirtd.virsh("destroy", "other")


def test_the_store_is_gone_and_comes_back(ours: Cloud) -> None:
    total = ours.placement.inventory(ours.node)["total"]
    run("umount", str(MEMORY))
    wait_disabled(ours, "AUTO: ramshelf: there is no store (store.not-mounted)")
    assert XFS not in ours.placement.traits(ours.node)
    assert ours.placement.inventory(ours.node)["total"] == total
    run("mount", str(MEMORY))
    wait_enabled(ours)
    assert XFS in ours.placement.traits(ours.node)
    assert_reserved(ours.boot().domain, 128)


def test_the_hook_is_gone_and_comes_back(ours: Cloud) -> None:
    """Servers that run stay under Nova's control."""
    server = ours.boot()
    ramshelf("hook", "remove")
    wait_disabled(ours, "AUTO: ramshelf: ramshelf's hook does not answer")
    ours.compute.act(server, "os-stop")
    ours.compute.wait(server, "SHUTOFF")
    ramshelf("hook", "install")
    wait_enabled(ours)
    ours.compute.act(server, "os-start")
    ours.compute.wait(server, "ACTIVE")
    assert_reserved(server.domain, 128)


def test_a_start_without_the_hook_is_allocated_by_qemu(ours: Cloud) -> None:
    """The service is disabled, but what is there may be started: then as Nova itself does it."""
    server = ours.boot()
    ramshelf("hook", "remove")
    wait_disabled(ours, "ramshelf's hook does not answer")
    xml = definition(ours, server)
    assert "<allocation mode='immediate'/>" in xml
    assert "<discard/>" not in xml
    ramshelf("hook", "install")
    wait_enabled(ours)


def test_what_an_operator_has_disabled_stays_so(ours: Cloud) -> None:
    ours.compute.switch_service(ours.host, status="disabled", disabled_reason="maintenance")
    run("umount", str(MEMORY))
    wait_until(lambda: XFS not in ours.placement.traits(ours.node), "it is noticed")
    assert ours.compute.service(ours.host)["disabled_reason"] == "maintenance"
    run("mount", str(MEMORY))
    wait_until(lambda: XFS in ours.placement.traits(ours.node), "it is noticed")
    service = ours.compute.service(ours.host)
    assert (service["status"], service["disabled_reason"]) == ("disabled", "maintenance")
    ours.compute.switch_service(ours.host, status="enabled")


def test_nova_compute_starts_without_a_store_and_without_the_hook(ours: Cloud) -> None:
    server = ours.boot()
    ours.compute.act(server, "os-stop")
    ours.compute.wait(server, "SHUTOFF")
    ours.stop()
    run("umount", str(MEMORY))
    ours.start()
    wait_disabled(ours, "store.not-mounted")
    run("mount", str(MEMORY))
    wait_enabled(ours)
    ours.compute.act(server, "os-start")
    ours.compute.wait(server, "ACTIVE")
    assert_reserved(server.domain, 128)
