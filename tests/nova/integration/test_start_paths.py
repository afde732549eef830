"""Every way in which Nova starts a guest on one host: each ends up reserved.

With our driver the memory is allocated on demand.
"""

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import ramshelf
from support.domains import qemu_pid
from support.libvirtd import Libvirtd
from support.nova.client import Server
from support.nova.cloud import Cloud, cloud
from support.nova.conf import NOVA_CONF, Settings
from support.onstore import (
    allocates_at_start,
    assert_reserved,
    capacity,
    memory_files,
    wait_recorded,
)
from support.process import wait_until
from support.stores import store

MEMORY_MIB = 128
LARGER_MIB = 160


STOCK, OURS = "libvirt.LibvirtDriver", "ramshelf.FileBackedLibvirtDriver"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((STOCK, "ext4"), id="stock-ext4"),
        pytest.param((OURS, "swap"), id="ours-swap"),
        pytest.param((STOCK, "swap"), id="stock-swap", marks=pytest.mark.soak),
        pytest.param((OURS, "xfs"), id="ours-xfs", marks=pytest.mark.soak),
    ],
)
def prepared(libvirtd: Libvirtd, request: pytest.FixtureRequest) -> Iterator[Cloud]:  # noqa: ARG001
    driver, file_system = request.param
    more: Settings = {
        "DEFAULT": {"compute_driver": driver, "resume_guests_state_on_host_boot": True},
        "libvirt": {"file_backed_memory": 512},
    }
    with store(file_system, 768):
        ramshelf("hook", "install")
        with cloud(more) as running:
            yield running


@pytest.fixture
def stock(prepared: Cloud) -> Iterator[Cloud]:
    yield prepared
    prepared.clear()
    assert memory_files() == []
    assert capacity()["promised_mib"] == 0


def assert_started(domain: str, memory_mib: int) -> None:
    """The guest is reserved.

    QEMU has allocated its memory at the start if and only if Nova's own driver started it.
    """
    assert_reserved(domain, memory_mib)
    stock = f"compute_driver = {STOCK}" in NOVA_CONF.read_text()
    assert allocates_at_start(domain) == stock


def restarted(
    cloud: Cloud, server: Server, pid: int | None, status: str = "ACTIVE", says: str = "GUEST-UP"
) -> Server:
    """The server once it runs in another QEMU than ``pid``, its guest up again."""
    wait_until(lambda: qemu_pid(server.domain) not in {None, pid}, "it is started again")
    server = cloud.compute.wait(server, status)
    cloud.wait_console(server, says)
    return server


def latest_count(cloud: Cloud, server: Server) -> int:
    """How far the guest has said that it counted since its memory was last loaded; else 0."""
    numbers = re.findall(r"COUNT (\d+) ", cloud.compute.console(server))
    return int(numbers[-1]) if numbers else 0


@pytest.mark.parametrize("how", ["SOFT", "HARD"])
def test_reboot(stock: Cloud, how: str) -> None:
    server = stock.boot(MEMORY_MIB)
    pid = qemu_pid(server.domain)
    stock.compute.act(server, "reboot", {"type": how})
    assert_started(restarted(stock, server, pid).domain, MEMORY_MIB)


def test_stop_and_start(stock: Cloud) -> None:
    server = stock.boot(MEMORY_MIB)
    stock.compute.act(server, "os-stop")
    stock.compute.wait(server, "SHUTOFF")
    assert memory_files() == []
    stock.compute.act(server, "os-start")
    assert_started(restarted(stock, server, None).domain, MEMORY_MIB)


def test_suspend_and_resume(stock: Cloud) -> None:
    """At suspend, libvirt saves the memory and removes its file.

    On a tmpfs a restored guest is trimmed.
    """
    server = stock.boot(MEMORY_MIB, "ramshelf.count")
    stock.wait_console(server, "COUNT 2 ")
    counted = latest_count(stock, server)
    stock.compute.act(server, "suspend")
    stock.compute.wait(server, "SUSPENDED")
    assert memory_files() == []
    stock.compute.act(server, "resume")
    stock.compute.wait(server, "ACTIVE")
    assert_started(server.domain, MEMORY_MIB)
    wait_until(lambda: latest_count(stock, server) > counted, "it goes on")


def test_pause_and_unpause(stock: Cloud) -> None:
    server = stock.boot(MEMORY_MIB)
    stock.compute.act(server, "pause")
    stock.compute.wait(server, "PAUSED")
    assert_started(server.domain, MEMORY_MIB)
    stock.compute.act(server, "unpause")
    stock.compute.wait(server, "ACTIVE")
    assert_started(server.domain, MEMORY_MIB)


def test_rescue_and_unrescue(stock: Cloud) -> None:
    """The words for a rescued guest's kernel are Nova's own: here one hears the kernel only."""
    server = stock.boot(MEMORY_MIB)
    pid = qemu_pid(server.domain)
    stock.compute.act(server, "rescue", {"rescue_image_ref": stock.image()})
    assert_started(restarted(stock, server, pid, "RESCUE", "Run /init").domain, MEMORY_MIB)
    pid = qemu_pid(server.domain)
    stock.compute.act(server, "unrescue")
    assert_started(restarted(stock, server, pid).domain, MEMORY_MIB)


def test_rebuild(stock: Cloud) -> None:
    server = stock.boot(MEMORY_MIB)
    pid = qemu_pid(server.domain)
    stock.compute.act(server, "rebuild", {"imageRef": stock.image("ramshelf.dirty=1")})
    server = restarted(stock, server, pid)
    stock.wait_console(server, "DIRTIED 1")
    assert_started(server.domain, MEMORY_MIB)


def test_shelve_and_unshelve(stock: Cloud) -> None:
    server = stock.boot(MEMORY_MIB)
    stock.compute.act(server, "shelve")
    stock.compute.wait(server, "SHELVED_OFFLOADED")
    assert memory_files() == []
    assert stock.placement.allocated_mib(stock.node) == {}
    stock.compute.act(server, "unshelve")
    assert_started(restarted(stock, server, None).domain, MEMORY_MIB)


@pytest.mark.parametrize("end", ["confirmResize", "revertResize"])
def test_resize(stock: Cloud, end: str) -> None:
    server = stock.boot(MEMORY_MIB)
    pid = qemu_pid(server.domain)
    stock.compute.act(server, "resize", {"flavorRef": stock.compute.flavor(LARGER_MIB)})
    assert_started(restarted(stock, server, pid, "VERIFY_RESIZE").domain, LARGER_MIB)
    pid = qemu_pid(server.domain)
    stock.compute.act(server, end)
    server = stock.compute.wait(server, "ACTIVE")
    assert_started(server.domain, LARGER_MIB if end == "confirmResize" else MEMORY_MIB)
    assert (qemu_pid(server.domain) == pid) == (end == "confirmResize")


def test_a_resize_that_the_store_cannot_hold(stock: Cloud) -> None:
    """Placement counts both flavors while it is under way, and has no room for that."""
    server = stock.boot(MEMORY_MIB)
    stock.compute.act(server, "resize", {"flavorRef": stock.compute.flavor(448)})
    wait_until(lambda: stock.compute.server(server.uuid).task is None, "it is over")
    assert stock.compute.server(server.uuid).status in {"ACTIVE", "ERROR"}
    assert_started(server.domain, MEMORY_MIB)


def test_the_host_boots(stock: Cloud, libvirtd: Libvirtd) -> None:
    """resume_guests_state_on_host_boot: what libvirt and nova-compute find after a power loss."""
    server = stock.boot(MEMORY_MIB)
    power_loss(stock, libvirtd, [server])
    assert len(memory_files()) == 1
    libvirtd.start()
    ramshelf("store", "clean")
    stock.start()
    assert_started(restarted(stock, server, None).domain, MEMORY_MIB)
    wait_recorded(server.domain, "reserved")
    assert len(memory_files()) == 1


def power_loss(cloud: Cloud, libvirtd: Libvirtd, servers: list[Server]) -> None:
    """nova-compute, libvirtd and QEMU are gone at once, and what they kept in /run."""
    pids = [qemu_pid(server.domain) or 0 for server in servers]
    cloud.stop()
    libvirtd.kill()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for path in Path("/run/libvirt/qemu").glob("instance-*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "QEMU is gone")
