"""What is measured of a cloud: its compute drivers, and what that costs which Nova is asked for."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.measure import Unavailable
from support.cli import RAMSHELF
from support.nova.client import Server
from support.nova.cloud import VIRTUAL_ENVIRONMENT, Cloud
from support.nova.conf import Settings
from support.process import wait_until

_PATIENCE = 600
"""Seconds that the slowest may take, which writes a large guest's memory to a slow device."""


@dataclass(frozen=True, kw_only=True)
class Driver:
    """A compute driver, with ramshelf's hook beside it or without."""

    name: str
    path: str
    hook: bool

    @property
    def hook_command(self) -> tuple[str, ...]:
        """The command that gives a host the hook, or takes it away."""
        return (RAMSHELF, "hook", "install" if self.hook else "remove")

    def nova_conf(self, told_mib: int) -> Settings:
        """Return nova.conf with this driver and ``told_mib`` as file_backed_memory.

        All else is Nova's default.
        """
        return {
            "DEFAULT": {"compute_driver": self.path, "debug": False},
            "libvirt": {"file_backed_memory": told_mib},
        }


_STOCK = "libvirt.LibvirtDriver"
DRIVERS = (
    Driver(name="stock", path=_STOCK, hook=False),
    Driver(name="stock + hook", path=_STOCK, hook=True),
    Driver(name="ramshelf", path="ramshelf.FileBackedLibvirtDriver", hook=True),
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a request costs: the seconds until it is done, and the MiB written.

    ``written_mib`` is what was written until then, and ``synced_mib`` includes what a sync writes
    after it.
    """

    seconds: float
    written_mib: float
    synced_mib: float

    @classmethod
    def of(
        cls, act: Callable[[], object], written_mib: Callable[[], float], sync: Callable[[], None]
    ) -> "Cost":
        """Call ``act``, and return what it cost.

        ``written_mib`` reads a device's counter, which also counts what ``sync`` writes.
        """
        before, begun = written_mib(), time.perf_counter()
        act()
        seconds, meanwhile = time.perf_counter() - begun, written_mib() - before
        sync()
        return cls(seconds=seconds, written_mib=meanwhile, synced_mib=written_mib() - before)


def require_nova() -> None:
    """Raise Unavailable unless Nova, and what its services speak through, are installed."""
    if not (VIRTUAL_ENVIRONMENT / "bin/nova-compute").exists():
        raise Unavailable("no Nova is installed: scripts/setup bench")
    if not shutil.which("rabbitmq-server"):
        raise Unavailable("no RabbitMQ is installed: scripts/setup bench")


def boot(cloud: Cloud, flavor: str, image: str, count: int = 1, **more: str) -> list[Server]:
    """Ask for ``count`` servers at once, where there are none; return them when all are ACTIVE.

    Raises RuntimeError where one fails.
    """
    cloud.compute.create(flavor, image, min_count=count, **more)
    servers: list[Server] = []

    def active() -> bool:
        servers[:] = cloud.compute.servers()
        if failed := [server for server in servers if server.status == "ERROR"]:
            raise RuntimeError(failed)
        return [server.status for server in servers] == ["ACTIVE"] * count

    wait_until(active, f"{count} servers are ACTIVE", timeout=_PATIENCE)
    return servers


def move(cloud: Cloud, server: Server, host: str) -> None:
    """Migrate a server live; return when it is on the other host.

    Raises RuntimeError where it is not there at the end.
    """
    cloud.compute.act(server, "os-migrateLive", {"host": host, "block_migration": "auto"})
    wait_until(
        lambda: cloud.compute.server(server.uuid).task is None,
        "its move is over",
        timeout=_PATIENCE,
    )
    if cloud.compute.server(server.uuid).host != host:
        raise RuntimeError(cloud.compute.actions(server)[0])


def clear(cloud: Cloud) -> None:
    """Delete all servers at once; return when nothing is left of them."""
    for server in cloud.compute.servers():
        cloud.compute.ask("DELETE", f"/servers/{server.uuid}")
    wait_until(lambda: not cloud.compute.servers(), "all servers are deleted", timeout=_PATIENCE)
    cloud.clear()
