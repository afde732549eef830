"""Guests on a host whose provider ramshelf owns, in a real Placement: claimed, released, healed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ramshelf.core.placement import TRAIT, provider_uuid
from ramshelf.system.hooklogfollower import recorded
from ramshelf.system.hypervisor import Hypervisor
from support.cli import ramshelf
from support.domains import domain_xml
from support.libvirtd import Libvirtd
from support.placement_service import PlacementService, placement_service
from support.process import run, wait_until
from support.stores import MEMORY, store

CONF = Path("/etc/ramshelf/ramshelf.conf")
STORE_MIB = 512
OWNER = "[ramshelf]\nplacement_owner = true\n"


@pytest.fixture
def hooked(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    """A libvirtd with ramshelf's hook and a store."""
    with store(size_mib=STORE_MIB):
        ramshelf("hook", "install")
        yield libvirtd


@pytest.fixture
def service(hooked: Libvirtd, tmp_path: Path) -> Iterator[PlacementService]:
    """A Placement that knows of this host, owned by ramshelf."""
    del hooked
    with placement_service(tmp_path) as service:
        configure(OWNER, service.configuration(timeout=10))
        report()
        yield service


def configure(*texts: str, path: Path = CONF) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(texts))


def document(*args: str) -> Any:
    return json.loads(ramshelf(*args, "--json").stdout)


def report() -> Any:
    return document("placement", "report")


def allocated() -> dict[str, int]:
    """MiB by the guest's name, or its UUID where it does not run."""
    shown = document("placement", "show")
    return {held["guest"] or held["uuid"]: held["memory_mib"] for held in shown["allocations"]}


def file(tmp_path: Path, xml: str, name: str = "guest.xml") -> str:
    path = tmp_path / name
    path.write_text(xml)
    return str(path)


def refused(*args: str) -> str:
    """The code that ramshelf refuses with."""
    ended = ramshelf(*args, ok=(1,))
    return (
        ended.stderr.splitlines()[-2 if "\nhint:" in ended.stderr else -1]
        .rpartition("[")[2]
        .rstrip("]")
    )


def codes(found: Any) -> set[str]:
    return {finding["code"] for finding in found["findings"]}


def test_claimed_at_the_start_and_released_at_the_end(
    hooked: Libvirtd, service: PlacementService, tmp_path: Path
) -> None:
    uuid = provider_uuid(_host())
    started = document("guest", "start", file(tmp_path, domain_xml("web", 128)))
    assert started["notes"] == []
    assert allocated() == {"web": 128}
    usage = service.openstack("resource", "provider", "usage", "show", uuid, "-f", "json")
    assert json.loads(usage) == [{"resource_class": "MEMORY_MB", "usage": 128}]
    writes = service.writes()
    assert report()["written"] == []  # the agent finds nothing to do
    assert service.writes() == writes
    document("guest", "stop", "web", "--now")
    assert allocated() == {}
    assert hooked.virsh("list", "--name").stdout.strip() == ""


def test_guests_of_others_are_healed_and_leftovers_go(
    hooked: Libvirtd, service: PlacementService
) -> None:
    del service
    hooked.create(domain_xml("theirs", 128))
    doctor = ramshelf("doctor", "--json", ok=(1, 2)).stdout
    assert "placement.unallocated" in codes(json.loads(doctor))
    found = report()
    assert (codes(found), found["allocated_mib"]) == ({"placement.ok"}, 128)
    assert allocated() == {"theirs": 128}
    process = run("pgrep", "-f", "guest=theirs").stdout.split()[0]
    os.kill(int(process), signal.SIGKILL)
    wait_until(lambda: "theirs" not in hooked.virsh("list", "--name").stdout, "libvirt notices")
    assert len(report()["written"]) == 1
    assert allocated() == {}


def test_placement_has_no_room(service: PlacementService, hooked: Libvirtd, tmp_path: Path) -> None:
    found = report()
    someone = {
        "allocations": {found["uuid"]: {"resources": {"MEMORY_MB": found["total_mib"] - 100}}},
        "project_id": "p",
        "user_id": "u",
        "consumer_generation": None,
    }
    _put(service, "/allocations/00000000-0000-0000-0000-000000000001", someone)
    assert refused("guest", "start", file(tmp_path, domain_xml("web", 128))) == "placement.full"
    assert hooked.virsh("list", "--all", "--name").stdout.strip() == ""
    assert list(MEMORY.iterdir()) == []
    [entry] = [entry for entry in recorded("web") if entry["event"] == "refused"]
    assert entry["code"] == "placement.full"
    document("guest", "start", file(tmp_path, domain_xml("small", 100)))


def test_a_guest_that_starts_before_the_first_report_is_in_that_report(
    service: PlacementService, tmp_path: Path
) -> None:
    service.empty()
    started = document("guest", "start", file(tmp_path, domain_xml("early", 64)))
    assert [note["code"] for note in started["notes"]] == ["placement.no-provider"]
    assert codes(report()) == {"placement.ok"}
    assert allocated() == {"early": 64}


def test_a_start_that_fails_gives_its_claim_back(
    hooked: Libvirtd, service: PlacementService, tmp_path: Path
) -> None:
    del service
    veto = Path("/etc/libvirt/hooks/qemu.d/veto")
    veto.write_text('#!/bin/sh\n[ "$2" != start ] || { echo "not today" >&2; exit 1; }\n')
    veto.chmod(0o755)
    hooked.reload()
    assert refused("guest", "start", file(tmp_path, domain_xml("web", 128))) == "guest.vetoed"
    assert allocated() == {}


def test_a_start_that_is_killed_leaves_what_the_next_pass_removes(
    service: PlacementService, tmp_path: Path
) -> None:
    del service
    path = file(tmp_path, domain_xml("web", 128))
    program = f"""
import os, signal
from ramshelf.node.guest import start
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.settings import load_config
def die(hypervisor, plan, after_step):
    os.kill(os.getpid(), signal.SIGKILL)
start._apply = die
with Hypervisor("qemu:///system") as hypervisor:
    start.start_guest(hypervisor, load_config(), open({path!r}, "rb").read())
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(allocated()) == 1
    assert len(report()["written"]) == 1
    assert allocated() == {}
    assert list(Path("/run/ramshelf/claims").iterdir()) == []


def test_without_placement_a_guest_starts_or_not_as_configured(
    service: PlacementService, tmp_path: Path
) -> None:
    service.kill()
    configure(OWNER, "placement_required = true\n", service.configuration())
    assert (
        refused("guest", "start", file(tmp_path, domain_xml("strict", 64)))
        == "placement.unreachable"
    )
    configure(OWNER, service.configuration())
    started = document("guest", "start", file(tmp_path, domain_xml("lax", 64)))
    assert [note["code"] for note in started["notes"]] == ["placement.unreachable"]
    assert refused("placement", "report") == "placement.unreachable"
    service.start()
    assert codes(report()) == {"placement.ok"}
    assert allocated() == {"lax": 64}
    service.kill()
    document("guest", "stop", "lax", "--now")  # Placement is not waited for
    service.start()
    report()
    assert allocated() == {}


def test_a_store_that_loses_room(service: PlacementService, hooked: Libvirtd) -> None:
    del service
    hooked.create(domain_xml("web", 256))
    assert codes(report()) == {"placement.ok"}
    run("mount", "-o", "remount,size=200M", str(MEMORY))
    found = report()
    assert (found["total_mib"], codes(found)) == (256, {"placement.shrunk"})  # what the guest holds
    doctor = ramshelf("doctor", "--json", ok=(2,)).stdout
    assert "placement.shrunk" in codes(json.loads(doctor))
    run("mount", "-o", f"remount,size={STORE_MIB}M", str(MEMORY))
    assert codes(report()) == {"placement.ok"}


@pytest.fixture
def renamed() -> Iterator[str]:
    """The name that a test may give the host."""
    before = run("hostname").stdout.strip()
    yield "renamed"
    run("hostname", before)


def test_a_renamed_host_is_told_of_its_former_provider(
    service: PlacementService, hooked: Libvirtd, renamed: str, tmp_path: Path
) -> None:
    former = report()["uuid"]
    document("guest", "start", file(tmp_path, domain_xml("web", 128)))
    run("hostname", renamed)
    for _ in range(2):
        found = report()
        assert (codes(found), found["allocated_mib"]) == ({"placement.renamed"}, 128)
    doctor = json.loads(ramshelf("doctor", "--json", ok=(1, 2)).stdout)
    [finding] = [each for each in doctor["findings"] if each["code"] == "placement.renamed"]

    uuid = hooked.virsh("domuuid", "web").stdout.strip()
    commands = [
        part.split() for part in finding["hint"].split("'") if part.startswith("openstack ")
    ]
    assert [command[3] for command in commands] == ["show", "allocation", "delete"]
    for _, *words in commands:
        service.openstack(*(uuid if word == "GUEST" else word for word in words))
    found = report()
    assert (codes(found), found["uuid"] != former) == ({"placement.ok"}, True)
    assert allocated() == {"web": 128}


def test_beside_nova_it_compares_and_says_what_nova_needs(
    service: PlacementService, hooked: Libvirtd
) -> None:
    del hooked
    CONF.unlink()
    memory = "[libvirt]\nfile_backed_memory = 512\n"
    others = "[DEFAULT]\nram_allocation_ratio = 1.0\nreserved_host_memory_mb = 0\n"
    configure(memory, others, service.configuration(), path=Path("/etc/nova/nova.conf"))
    before = service.writes()
    assert "placement.in-the-way" in codes(report())
    service.empty()
    before = service.writes()
    found = report()
    assert (found["code"], codes(found)) == ("placement.compared", {"placement.no-provider"})
    ramshelf("doctor", ok=(0, 1, 2))
    assert service.writes() == before
    text = ramshelf("placement", "provider-config").stdout
    assert yaml.safe_load(text)["providers"][0] == {
        "identification": {"name": _host()},
        "traits": {"additional": ["CUSTOM_RAMSHELF_STORE_RAM"]},
    }
    assert TRAIT not in text


def test_an_embedded_placement(hooked: Libvirtd, tmp_path: Path) -> None:
    configure(OWNER, f"placement = embedded\nplacement_database = {tmp_path}/own.sqlite\n")
    try:
        assert len(report()["written"]) == 3
        document("guest", "start", file(tmp_path, domain_xml("web", 64)))
        assert allocated() == {"web": 64}
        hooked.virsh("destroy", "web")
        assert len(report()["written"]) == 1
        assert allocated() == {}
    finally:
        CONF.unlink()
    ended = ramshelf("placement", "show", ok=(255,))
    assert "[placement.unused]" in ended.stderr


def _host() -> str:
    with Hypervisor("qemu:///system", read_only=True) as hypervisor:
        return hypervisor.host_name()


def _put(service: PlacementService, path: str, body: Any) -> None:
    import requests  # noqa: PLC0415 - only here

    headers = {"X-Auth-Token": "admin", "OpenStack-API-Version": "placement 1.28"}
    assert requests.put(f"{service.url}{path}", json=body, headers=headers, timeout=60).ok
