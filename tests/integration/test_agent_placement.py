"""``ramshelf agent`` and the real Placement: reported, healed, caught up with."""

import json
import os
import random
import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ramshelf.core.placement import provider_uuid
from support.agent import Agent, agent
from support.cli import ramshelf
from support.domains import domain_xml, qemu_pid
from support.libvirtd import Libvirtd
from support.placement_service import PlacementService, placement_service
from support.process import run, wait_until
from support.stores import store

MEMORY = Path("/var/lib/libvirt/qemu/ram")
MIB = 1 << 20
OWNER = "placement_owner = true\nreport_interval = 1\n"
ALLOCATED = "ramshelf_placement_allocated_bytes"
UP = "ramshelf_placement_up"


@pytest.fixture
def hooked(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    with store("tmpfs", 512):
        ramshelf("hook", "install")
        yield libvirtd


@pytest.fixture
def service(tmp_path: Path) -> Iterator[PlacementService]:
    with placement_service(tmp_path) as running:
        yield running


def provider(service: PlacementService) -> str:
    """The UUID of the only resource provider."""
    [found] = json.loads(service.openstack("resource", "provider", "list", "--format", "json"))
    return str(found["uuid"])


def usage(service: PlacementService) -> int:
    """MiB that Placement's own client says are used."""
    command = ("resource", "provider", "usage", "show", provider(service), "--format", "json")
    return sum(int(each["usage"]) for each in json.loads(service.openstack(*command)))


def test_guests_that_others_start_are_reported_to_an_embedded_placement(
    hooked: Libvirtd, tmp_path: Path
) -> None:
    conf = f"{OWNER}placement = embedded\nplacement_database = {tmp_path}/placement.sqlite\n"
    with agent(conf=conf) as running:
        running.wait_metric("ramshelf_placement_capacity_bytes", lambda value: value == 512 * MIB)
        hooked.create(domain_xml("guest", 128))
        running.wait_metric(ALLOCATED, lambda value: value == 128 * MIB)
        figures = running.scrape()
        assert (figures[UP], figures["ramshelf_placement_owned"]) == (1, 1)
        assert figures["ramshelf_placement_report_timestamp_seconds"] > 0
        running.signal(signal.SIGHUP)
        running.wait_log("reloaded")
        hooked.virsh("destroy", "guest")
        running.wait_metric(ALLOCATED, lambda value: value == 0)


def test_a_service_that_is_down_slow_or_empty_is_told_once_and_caught_up_with(
    hooked: Libvirtd, service: PlacementService
) -> None:
    with agent(conf=f"{OWNER}{service.configuration(timeout=2)}") as running:
        hooked.create(domain_xml("one", 64))
        running.wait_metric(ALLOCATED, lambda value: value == 64 * MIB)
        assert usage(service) == 64

        service.kill()
        hooked.create(domain_xml("two", 64))
        running.wait_metric(UP, lambda value: value == 0)
        reported = running.scrape()["ramshelf_placement_report_timestamp_seconds"]
        looked = running.scrape()["ramshelf_look_timestamp_seconds"]
        running.wait_metric("ramshelf_look_timestamp_seconds", lambda value: value > looked + 5)
        assert running.events().count("began placement.unreachable") == 1
        assert running.scrape()["ramshelf_placement_report_timestamp_seconds"] == reported
        service.start()
        running.wait_metric(ALLOCATED, lambda value: value == 128 * MIB)
        running.wait_log("ended", code="placement.unreachable")

        with service.frozen():
            running.wait_metric(UP, lambda value: value == 0)
            looked = running.scrape()["ramshelf_look_timestamp_seconds"]
            hooked.virsh("destroy", "two")
            running.wait_log("guest-stopped", guest="two")
            running.wait_metric("ramshelf_look_timestamp_seconds", lambda value: value > looked + 3)
        running.wait_metric(ALLOCATED, lambda value: value == 64 * MIB)

        service.empty()
        wait_until(lambda: usage_is(service, 64), "the guest has its allocation again")


def test_traits_of_others_outlive_the_agent_and_every_command(
    hooked: Libvirtd, service: PlacementService, tmp_path: Path
) -> None:
    definition = tmp_path / "guest.xml"
    definition.write_text(domain_xml("guest", 64))
    with agent(conf=f"{OWNER}{service.configuration()}") as running:
        running.wait_metric("ramshelf_placement_capacity_bytes", lambda value: value == 512 * MIB)
        before = traits(service)
        others = {"CUSTOM_OF_OTHERS", "HW_NIC_VMDQ", "OWNER_NOVA"}
        service.openstack("trait", "create", "CUSTOM_OF_OTHERS")
        words = [word for trait in sorted(before | others) for word in ("--trait", trait)]
        service.openstack("resource", "provider", "trait", "set", provider(service), *words)
        run("mount", "-o", "remount,size=256M", str(MEMORY))
        running.wait_metric("ramshelf_placement_capacity_bytes", lambda value: value == 256 * MIB)
        ramshelf("guest", "start", str(definition))
        running.wait_metric(ALLOCATED, lambda value: value == 64 * MIB)
        ramshelf("guest", "stop", "guest", "--now")
        ramshelf("placement", "report")
        ramshelf("hook", "remove")
        ramshelf("agent", "remove")
        running.wait_metric(ALLOCATED, lambda value: value == 0)
        assert traits(service) == before | others
    assert hooked.virsh("list", "--name").stdout.strip() == ""


def traits(service: PlacementService) -> set[str]:
    command = ("resource", "provider", "trait", "list", provider(service), "--format", "json")
    return {str(each["name"]) for each in json.loads(service.openstack(*command))}


def test_a_host_that_is_renamed_is_reported_by_its_new_name(
    hooked: Libvirtd, service: PlacementService
) -> None:
    before = run("hostname").stdout.strip()
    with agent(conf=f"{OWNER}{service.configuration()}") as running:
        hooked.create(domain_xml("guest", 64))
        running.wait_metric(ALLOCATED, lambda value: value == 64 * MIB)
        try:
            run("hostname", "renamed")
            told = running.wait_log("began", code="placement.renamed")
        finally:
            run("hostname", before)
        former = told["facts"]
        assert former["provider"] == provider_uuid(former["name"])
        assert former["name"].startswith(before)


def usage_is(service: PlacementService, mib: int) -> bool:
    found = json.loads(service.openstack("resource", "provider", "list", "--format", "json"))
    return bool(found) and usage(service) == mib


def test_beside_a_nova_compute_it_writes_nothing(
    hooked: Libvirtd, service: PlacementService
) -> None:
    """Its configuration is there: the provider is its own to make."""
    nova = Path("/etc/nova/nova.conf")
    nova.parent.mkdir()
    nova.write_text(f"[libvirt]\nfile_backed_memory = 512\n{service.configuration()}")
    with agent(conf=OWNER) as running:
        hooked.create(domain_xml("guest", 64))
        running.wait_metric("ramshelf_store_promised_bytes", lambda value: value == 64 * MIB)
        running.wait_log("began", code="placement.no-provider")
        assert running.scrape()["ramshelf_placement_owned"] == 0
    assert service.writes() == []


@pytest.mark.parametrize("rounds", [6, pytest.param(400, marks=pytest.mark.soak)])
def test_agent_and_placement_killed_at_random_agree_with_the_guests_in_the_end(
    hooked: Libvirtd,
    service: PlacementService,
    rounds: int,
    record_property: Callable[[str, object], None],
) -> None:
    """Guests start and end in all ways meanwhile, half the rounds each."""
    chance = seeded(record_property)
    with agent(conf=f"{OWNER}{service.configuration()}") as running:
        life = Life(hooked, service, chance)
        for _ in range(rounds):
            life.go_on()
            if chance.random() < 0.3:
                running.kill()
                running.process = Agent().process
        life.require_agreement(running)


@pytest.mark.parametrize("rounds", [4, pytest.param(200, marks=pytest.mark.soak)])
def test_an_agent_that_lives_on_does_not_grow(
    hooked: Libvirtd,
    service: PlacementService,
    rounds: int,
    record_property: Callable[[str, object], None],
) -> None:
    """Neither by guests, nor by a libvirtd and a Placement that are killed again and again."""
    chance = seeded(record_property)
    with agent(conf=f"{OWNER}{service.configuration()}") as running:
        life = Life(hooked, service, chance)

        def size_after(count: int) -> float:
            for _ in range(count):
                life.go_on()
            life.require_agreement(running)
            return running.scrape()["process_resident_memory_bytes"]

        first = size_after(rounds // 2)
        second = size_after(rounds)
        record_property("resident_mib", (first / MIB, second / MIB))
        assert second <= first * 1.05
        assert running.scrape()["process_open_fds"] <= 20
        assert len(os.listdir(f"/proc/{running.process.pid}/task")) <= 8


def seeded(record_property: Callable[[str, object], None]) -> random.Random:
    """Chance that can be repeated."""
    seed = secrets.randbelow(1 << 32)
    record_property("seed", seed)
    return random.Random(seed)  # noqa: S311 - no secret


class Life:
    """Four guests that start and end in all ways.

    Placement and libvirtd are killed now and then meanwhile.
    """

    def __init__(
        self, libvirtd: Libvirtd, service: PlacementService, chance: random.Random
    ) -> None:
        self._libvirtd, self._service, self._chance = libvirtd, service, chance
        self._serving = True
        self._names = [f"guest{number}" for number in range(4)]
        for name in self._names:
            libvirtd.define(domain_xml(name, 64))

    def go_on(self) -> None:
        """One guest starts or ends; Placement may go or come back."""
        name = self._chance.choice(self._names)
        if name in self._alive():
            self._end(name)
        elif self._chance.random() < 0.5:
            self._libvirtd.virsh("start", name)
        else:
            ramshelf("guest", "start", name)
        if self._chance.random() < 0.2:
            self._serve(serving=not self._serving)

    def require_agreement(self, running: Agent) -> None:
        """No allocation without a guest, no guest without one, no file without one."""
        self._serve(serving=True)
        alive = self._alive()
        size = len(alive) * 64 * MIB
        running.wait_metric("libvirt_up", lambda value: value == 1)
        running.wait_metric("ramshelf_store_promised_bytes", lambda value: value == size)
        running.wait(
            lambda: usage_is(self._service, len(alive) * 64), f"Placement has {sorted(alive)}"
        )
        running.wait_metric(UP, lambda value: value == 1)
        running.wait_metric(ALLOCATED, lambda value: value == size)
        running.wait(lambda: len(list(MEMORY.iterdir())) == len(alive), "no file is left")
        assert {path.name.partition("-")[2] for path in MEMORY.iterdir()} == alive
        for name in self._names:
            uuid = self._libvirtd.virsh("domuuid", name).stdout.strip()
            show = ("resource", "provider", "allocation", "show", uuid, "--format", "json")
            assert bool(json.loads(self._service.openstack(*show))) == (name in alive)

    def _alive(self) -> set[str]:
        return set(self._libvirtd.virsh("list", "--name").stdout.split())

    def _serve(self, *, serving: bool) -> None:
        if serving and not self._serving:
            self._service.start()
        elif self._serving and not serving:
            self._service.kill()
        self._serving = serving

    def _end(self, name: str) -> None:
        way = self._chance.randrange(4)
        if way == 0:
            self._libvirtd.virsh("destroy", name)
        elif way == 1:
            ramshelf("guest", "stop", name, "--now")
        else:
            pid = qemu_pid(name)
            assert pid is not None
            if way == 2:
                self._libvirtd.kill()
            os.kill(pid, signal.SIGKILL)
            self._libvirtd.start()
            wait_until(
                lambda: name not in self._alive(),
                f"libvirt has noticed the end of {name}",
            )
