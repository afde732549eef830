"""Nova: starts, deletes and moves by its own driver, the same with the hook, and ramshelf's."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.cloud import DRIVERS, Cost, Driver, boot, clear, move, require_nova
from bench.dirtying import dirty
from bench.guests import OWN_MIB, hook_for, resident_mib
from bench.stores import SPARE_MIB, Store, store
from support.counters import sync
from support.domains import qemu_pid
from support.libvirtd import Libvirtd
from support.nova.broker import rabbitmq
from support.nova.client import Server
from support.nova.cloud import Cloud, cloud
from support.nova.conf import Settings
from support.nova.second import NAME, SecondCompute, migratable, second_compute
from support.onstore import memory_files
from support.process import run, wait_until
from support.second_host import FIRST_ADDRESS, SECOND_ADDRESS, SecondHost, second_host

_WORDS = f"init_on_alloc=0 mem={OWN_MIB}M"
"""Words for a guest's kernel, which keep it from the memory that the host dirties."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One request to Nova's API.

    ``seconds`` are from the request until the API shows it done, ``written_mib`` is what the
    store's device has written until then, and ``synced_mib`` includes what a sync writes after it.
    Then the store has given ``allocated_mib`` to servers, ``resident_mib`` of whose memory are in
    RAM. Where a server moves, the store is the destination's.
    """

    store: str
    what: str
    driver: str
    seconds: float
    written_mib: float
    synced_mib: float
    allocated_mib: float
    resident_mib: float


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is measured; the sizes are those of flavors.

    A server of ``deleted_mib`` has ``dirty_mib`` dirty when it is deleted.
    """

    rounds: int
    drivers: tuple[Driver, ...]
    stores: tuple[str, ...]
    sizes: tuple[int, ...]
    deleted_mib: int
    dirty_mib: int
    at_once: int
    moving_store: str
    moved_mib: int

    @property
    def turns(self) -> Iterator[Driver]:
        """The drivers, round after round, with another one first in each round."""
        for number in range(self.rounds):
            first = number % len(self.drivers)
            yield from self.drivers[first:] + self.drivers[:first]

    @property
    def store_mib(self) -> int:
        return max(*self.sizes, self.at_once * min(self.sizes))


_FULL = _Plan(
    rounds=3,
    drivers=DRIVERS,
    stores=("ext4", "xfs"),
    sizes=(256, 1024, 3072, 8192),
    deleted_mib=1024,
    dirty_mib=512,
    at_once=10,
    moving_store="ext4",
    moved_mib=1024,
)
_QUICK = _Plan(
    rounds=1,
    drivers=DRIVERS[::2],
    stores=("xfs",),
    sizes=(256,),
    deleted_mib=256,
    dirty_mib=64,
    at_once=2,
    moving_store="ext4",
    moved_mib=256,
)


def measure(daemon: Libvirtd, *, quick: bool) -> Iterator[Sample]:
    """Measure everything with each driver in turns, on each store, and between two hosts."""
    require_nova()
    plan = _QUICK if quick else _FULL
    for name in plan.stores:
        yield from _on_one_host(name, plan)
    yield from _between_two(daemon, plan)


def _on_one_host(name: str, plan: _Plan) -> Iterator[Sample]:
    told = plan.store_mib
    with (
        store(name, told) as place,
        hook_for("ramshelf"),
        cloud(DRIVERS[0].nova_conf(told)) as nova,
    ):
        for driver in plan.turns:
            clear(nova)
            nova.stop()
            run(*driver.hook_command)
            nova.configure(driver.nova_conf(told))
            nova.start()
            _start(nova, place, driver, min(plan.sizes))  # the first of a Nova takes longer
            for size in plan.sizes:
                yield _start(nova, place, driver, size)
            yield _start(nova, place, driver, min(plan.sizes), plan.at_once)
            yield _delete(nova, place, driver, plan.deleted_mib, plan.dirty_mib)


def _start(nova: Cloud, place: Store, driver: Driver, size: int, count: int = 1) -> Sample:
    """Start servers that find nothing to boot: what is written is the start's, not the guest's."""
    clear(nova)
    flavor, nothing = nova.compute.flavor(size), nova.image(None)
    sync()
    cost = Cost.of(lambda: boot(nova, flavor, nothing, count), place.written_mib, sync)
    return Sample(
        store=place.name,
        what=f"start, {f'{count} at once of ' if count > 1 else ''}{size} MiB",
        driver=driver.name,
        **asdict(cost),
        allocated_mib=place.allocated_mib(),
        resident_mib=sum(resident_mib(_smaps(server), size) for server in nova.compute.servers()),
    )


def _delete(nova: Cloud, place: Store, driver: Driver, size: int, dirty_mib: int) -> Sample:
    clear(nova)
    [server] = boot(nova, nova.compute.flavor(size), nova.image(_WORDS))
    nova.wait_console(server, "GUEST-UP")
    sync()
    dirty(qemu_pid(server.domain) or 0, size, dirty_mib)

    def delete() -> None:
        nova.compute.delete(server)
        wait_until(lambda: not memory_files(), "its memory is gone")

    cost = Cost.of(delete, place.written_mib, sync)
    return Sample(
        store=place.name,
        what=f"delete, {dirty_mib} MiB dirty",
        driver=driver.name,
        **asdict(cost),
        allocated_mib=place.allocated_mib(),
        resident_mib=0.0,
    )


def _smaps(server: Server) -> str:
    return Path(f"/proc/{qemu_pid(server.domain)}/smaps").read_text()


def _smaps_there(host: SecondHost, server: Server) -> str:
    return host.shell(f"cat /proc/$(cat /run/libvirt/qemu/{server.domain}.pid)/smaps")


def _between_two(daemon: Libvirtd, plan: _Plan) -> Iterator[Sample]:
    name, size = plan.moving_store, plan.moved_mib
    with (
        store(name, size),
        hook_for("ramshelf"),
        daemon.listening(),
        second_host(name, size + SPARE_MIB) as host,
        rabbitmq(FIRST_ADDRESS) as url,
        cloud(_addressed(DRIVERS[0], size, url, FIRST_ADDRESS)) as nova,
        second_compute(nova, host) as second,
    ):
        there = host.virsh("hostname").strip()
        for driver in plan.turns:
            second.stop()
            nova.stop()
            run(*driver.hook_command)
            host.run(*driver.hook_command)
            nova.configure(_addressed(driver, size, url, FIRST_ADDRESS))
            nova.start()
            second.start(_addressed(driver, size, url, SECOND_ADDRESS))
            yield _move(nova, second, driver, name, size)
            clear(nova)
            wait_until(lambda: not nova.placement.allocated_mib(there), "its place there is free")


def _addressed(driver: Driver, told: int, url: str, address: str) -> Settings:
    """Return nova.conf of a host that servers move from and to, through the broker at ``url``."""
    plain, more = driver.nova_conf(told), migratable(address)
    return {
        "DEFAULT": {**plain["DEFAULT"], **more["DEFAULT"], "transport_url": url},
        "libvirt": {**plain["libvirt"], **more["libvirt"]},
        "scheduler": {"discover_hosts_in_cells_interval": 2},
    }


def _move(nova: Cloud, second: SecondCompute, driver: Driver, name: str, size: int) -> Sample:
    """Move an idle server that is on the first host."""
    host = second.host
    flavor, image = nova.compute.flavor(size), nova.image(_WORDS)
    [server] = boot(nova, flavor, image, availability_zone=f"nova:{nova.host}")
    nova.wait_console(server, "GUEST-UP")
    sync()
    cost = Cost.of(lambda: move(nova, server, NAME), host.written_mib, host.sync)
    return Sample(
        store=name,
        what=f"live migration, {size} MiB",
        driver=driver.name,
        **asdict(cost),
        allocated_mib=float(host.memory_mib(server.domain)[1]),
        resident_mib=resident_mib(_smaps_there(host, server), size),
    )
