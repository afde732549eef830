"""The how-tos about Nova and Placement, typed literally: openstack's own client, real services."""

import configparser
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agent import CONF
from support.cli import ramshelf
from support.devices import scratch
from support.domains import domain_xml
from support.libvirtd import Libvirtd
from support.nova.cloud import Cloud, cloud
from support.nova.conf import Settings
from support.placement_service import PlacementService, placement_service
from support.process import run
from support.stores import store
from support.typed import Here, Page

pytestmark = pytest.mark.soak

TRAIT = "COMPUTE_MEM_BACKING_FILE"
KIND = "CUSTOM_RAMSHELF_STORE_DISK"
TOLD: Settings = {"libvirt": {"file_backed_memory": 256}}
WARNED = (0, 1)
ALL_FAILED = (123,)
"""What xargs(1) ends with."""


@pytest.fixture(scope="module")
def stored(libvirtd: Libvirtd) -> Iterator[None]:  # noqa: ARG001
    with store("ext4", 512):
        ramshelf("hook", "install")
        yield


@pytest.fixture
def nova(stored: None) -> Iterator[Cloud]:  # noqa: ARG001
    with cloud(TOLD) as running:
        yield running


def test_use_with_nova(nova: Cloud) -> None:
    shell = operator(nova)
    with Page(shell, "how-to/use-with-nova.md") as page:
        told = settings(page.take("[DEFAULT]") + "\n" + page.take("[libvirt]"))
        nova.configure(told)
        nova.restart()
        assert "1048576" in page.type("openstack resource provider inventory list").stdout
        assert TRAIT in page.type("openstack resource provider trait list").stdout
        for name in ("BIG", "PINNED"):
            shell.run(f"openstack flavor create --ram 128 --disk 0 {name}")
            page.type(f"openstack flavor set {name}")
        nova.configure({**told, **settings(page.take("[scheduler]"))})
        page.type("openstack aggregate create")
        page.type("openstack aggregate set")
        page.type("openstack aggregate add host")
        shell.run("mkdir /etc/nova/provider_config")
        page.type("ramshelf placement provider-config")
        nova.restart()
        assert {TRAIT, KIND} <= nova.placement.traits(nova.node)
        assert status(nova, shell, "PINNED") == "ERROR"
        assert status(nova, shell, "BIG") == "ACTIVE"
        page.type("openstack compute service set --disable")
        assert nova.compute.service(nova.host)["status"] == "disabled"
        empty = page.take("openstack server list")
        assert "No valid host" in shell.run(empty, ALL_FAILED).stderr  # there is no other
        nova.clear()
        shell.run(empty)  # of none there is nothing to move
        shell.run(f"openstack compute service set --enable {nova.host} nova-compute")
        shell.run(f"openstack aggregate remove host file-backed {nova.host}")
        shell.run("openstack aggregate delete file-backed")


def test_use_the_nova_driver(nova: Cloud) -> None:
    shell = operator(nova)
    with Page(shell, "how-to/use-the-nova-driver.md") as page:
        page.skip("pip install")  # make test-nova has done so, from this checkout
        nova.configure({**TOLD, "DEFAULT": {"compute_driver": "ramshelf.FileBackedLibvirtDriver"}})
        nova.restart()
        assert "256" in page.type("openstack resource provider inventory list").stdout
        assert KIND in page.type("openstack resource provider trait list").stdout
        assert "enabled" in page.type("openstack compute service list").stdout
        nova.configure(TOLD)
        nova.restart()
        before = nova.placement.traits(nova.node)
        assert KIND in before
        shell.run("\n".join(map(page.take, ("export", "KEPT=", "openstack resource"))))
        assert nova.placement.traits(nova.node) == before - {KIND}


@pytest.fixture
def placement(tmp_path: Path) -> Iterator[PlacementService]:
    CONF.parent.mkdir(exist_ok=True)
    with placement_service(tmp_path) as service:
        yield service
    CONF.unlink(missing_ok=True)


@pytest.mark.usefixtures("stored")
def test_report_to_placement(placement: PlacementService, tmp_path: Path) -> None:
    shell = client(placement.url, placement.url)
    with Page(shell, "how-to/report-to-placement.md") as page:
        with cloud(TOLD) as nova:
            page.type("ramshelf doctor", WARNED)
            shell.run("mkdir /etc/nova/provider_config")
            page.type("ramshelf placement provider-config")
            nova.restart()
            assert KIND in nova.placement.traits(nova.node)
        owner = page.take("[ramshelf]\nplacement = remote")
        page.skip("[placement]")  # Keystone is not here
        CONF.write_text(f"{owner}\n{placement.configuration()}")
        run("virsh", "create", "/dev/stdin", stdin=domain_xml("web", 128))
        page.type("ramshelf placement report")
        shown = page.type("ramshelf placement show").stdout
        assert "web" in shown
        provider = json.loads(ramshelf("placement", "show", "--json").stdout)["uuid"]
        guest = run("virsh", "domuuid", "web").stdout.strip()
        for begin in ("show --allocations", "allocation unset", "delete"):
            line = page.take(f"openstack resource provider {begin}")
            shell.run(line.replace("FORMER", provider).replace("GUEST", guest))
        embedded = page.take("[ramshelf]\nplacement = embedded")
        CONF.write_text(f"{embedded}\nplacement_database = {tmp_path}/embedded.sqlite\n")
        ramshelf("placement", "report")
    run("virsh", "destroy", "web")


def operator(nova: Cloud) -> Here:
    """A shell whose ``openstack`` speaks to this Nova and its Placement."""
    provider = nova.placement.provider(nova.node)
    return client(
        f"{nova.url}/compute/v2.1", f"{nova.url}/placement", PROVIDER=provider, HOST=nova.host
    )


def client(compute: str, placement: str, **variables: str) -> Here:
    """A shell whose ``openstack`` speaks to these services."""
    access = {
        "auth_type": "admin_token",
        "auth": {"endpoint": placement, "token": "admin"},
        "identity_endpoint_override": compute,  # the client wants one, and asks it nothing
        "identity_api_version": "3",
        "compute_endpoint_override": compute,
        "compute_api_version": "2.96",
        "placement_endpoint_override": placement,
        "placement_api_version": "1.28",
    }
    clouds = scratch() / "clouds.yaml"
    clouds.write_text(json.dumps({"clouds": {"here": access}}))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    told = {"PATH": path, "OS_CLIENT_CONFIG_FILE": str(clouds), "OS_CLOUD": "here"}
    return Here({**told, **variables})


def settings(text: str) -> Settings:
    """Read the options that a page has for a configuration file."""
    parser = configparser.ConfigParser(default_section="")
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser.sections()}


def status(nova: Cloud, shell: Here, flavor: str) -> str:
    """What becomes of a server of this flavor."""
    asked = nova.compute.create(
        shell.run(f"openstack flavor show -f value -c id {flavor}").stdout.strip(), nova.image()
    )
    return nova.compute.placed(asked).status
