"""nova-compute with the driver, on the threads that its Nova has by default.

From 2026.2 on they are the kernel's (nova/cmd/compute.py), before they are eventlet's.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support.cli import ramshelf
from support.libvirtd import Libvirtd
from support.nova.client import Server
from support.nova.cloud import OLDEST, VIRTUAL_ENVIRONMENT, Cloud, cloud
from support.nova.conf import Settings
from support.onstore import memory_files
from support.process import wait_until
from support.stores import store

TOLD_MIB, STORE_MIB = 1024, 1536
"""Placement and xfs give back what a server had some time after its end."""

NOVA_CONF: Settings = {
    "DEFAULT": {
        "compute_driver": "ramshelf.FileBackedLibvirtDriver",
        "executor_thread_pool_size": 4,  # so that Nova's own pools are soon full
        "service_down_time": 600,  # it may be late with saying that it is up
    },
    "libvirt": {"file_backed_memory": TOLD_MIB},
}
CALLERS = 16
FEW = 12
"""What Nova's own pools may still grow by in a second round; less than the calls of any sort."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((VIRTUAL_ENVIRONMENT, "native"), id="newest"),
        pytest.param((OLDEST, "eventlet"), id="oldest", marks=pytest.mark.soak),
    ],
)
def prepared(libvirtd: Libvirtd, request: pytest.FixtureRequest) -> Iterator[tuple[Cloud, str]]:  # noqa: ARG001
    environment, threads = request.param
    if not environment.exists():
        pytest.skip(f"no {environment.name}: scripts/setup nova")
    with store("xfs", STORE_MIB):
        ramshelf("hook", "install")
        with cloud(NOVA_CONF, virtual_environment=environment) as running:
            yield running, threads


@pytest.fixture
def hosts(prepared: tuple[Cloud, str]) -> Iterator[tuple[Cloud, str]]:
    yield prepared
    prepared[0].clear()
    assert memory_files() == []


def hammered(cloud: Cloud, server: Server, seconds: float) -> dict[str, Any]:
    """What the callers saw while other servers started and ended, two at a time."""
    with ThreadPoolExecutor() as pool:
        report = pool.submit(cloud.hammer, server, seconds)
        while not report.done():
            list(pool.map(lambda _: start_and_end(cloud), range(2)))
        return report.result()


def start_and_end(cloud: Cloud) -> None:
    server = cloud.compute.create(cloud.compute.flavor(128), cloud.image())
    cloud.compute.delete(cloud.compute.wait(server, "ACTIVE"))


def held(cloud: Cloud) -> tuple[int, int]:
    """How many threads and descriptors Nova's process has."""
    process = f"/proc/{cloud.pid}"
    return len(os.listdir(f"{process}/task")), len(os.listdir(f"{process}/fd"))


def test_its_services_run_on_them(hosts: tuple[Cloud, str]) -> None:
    cloud, threads = hosts
    assert cloud.threads == threads


@pytest.mark.parametrize("seconds", [8, pytest.param(300, marks=pytest.mark.soak)])
def test_sixteen_call_the_driver_at_once_while_servers_start_and_end(
    hosts: tuple[Cloud, str], seconds: int
) -> None:
    cloud, threads = hosts
    server = cloud.boot()
    if threads == "native":
        hammered(cloud, server, 2)  # so that Nova's own pools are full
    threads_before, descriptors_before = held(cloud)
    report = hammered(cloud, server, seconds)
    assert report["errors"] == []
    assert report["kernel_threads"] == (CALLERS if threads == "native" else 1)
    looks = report["calls"].pop("look")
    assert looks > 0
    assert min(report["calls"].values()) >= CALLERS
    assert report["seen"] == {
        "provider": [f"{TOLD_MIB} CUSTOM_OF_OTHERS CUSTOM_RAMSHELF_STORE_DISK OWNER_NOVA"],
        "resources": [str(TOLD_MIB)],
        "look": [""],
        "backing": ['<memoryBacking><source type="file"/><access mode="shared"/></memoryBacking>'],
        "move": ["file-backed: True"],
    }

    def nothing_is_left() -> bool:
        threads_now, descriptors_now = held(cloud)
        return threads_now <= threads_before + FEW and descriptors_now <= descriptors_before + FEW

    wait_until(nothing_is_left, "no more threads and descriptors than before")
    assert cloud.compute.service(cloud.host)["status"] == "enabled"
    assert cloud.placement.inventory(cloud.node)["total"] == TOLD_MIB
    assert "CUSTOM_RAMSHELF_STORE_DISK" in cloud.placement.traits(cloud.node)
