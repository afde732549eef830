"""Guests that move between two whole hosts, by the page about it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.former import install_0_1_0
from support.real_host import MEMORY, Boot, RealHost, guest_xml
from support.typed import Page

pytestmark = pytest.mark.soak

THERE = "virsh --connect qemu+ssh://root@host2/system"


@pytest.fixture(scope="module")
def hosts(boot: Boot) -> Iterator[tuple[RealHost, RealHost]]:
    """Two with a network: the first has its store on a disk, the second a tmpfs over swap."""
    with (
        boot("host1", "--memory", "3072", "--peer", "host2") as first,
        boot("host2", "--memory", "3072", "--peer", "host1") as second,
    ):
        first.run("ramshelf store create --kind disk --fs xfs --device /dev/vdb --size 2G")
        second.run("ramshelf store create --kind swap --device /dev/vdb --size 2G")
        for host in (first, second):
            host.run("ramshelf hook install")
        for host, other, name in ((first, second, "host2"), (second, first, "host1")):
            host.put(other.key, "/root/.ssh")
            host.run("mv /root/.ssh/key /root/.ssh/id_ed25519")
            host.run(f"ssh-keyscan {name} >>/root/.ssh/known_hosts")
        yield first, second


@pytest.fixture(autouse=True)
def no_guests(hosts: tuple[RealHost, RealHost]) -> Iterator[None]:
    """None is left, and nothing of them on either store."""
    yield
    for host in hosts:
        host.remove_guests()
        host.wait(f'[ -z "$(ls {MEMORY})" ]', "nothing is left on the store")


def state(host: RealHost, guest: str) -> str:
    """Return a guest's state on a host, in virsh's words."""
    return host.said(f"virsh domstate {guest} 2>&1", ok=(0, 1))


def start_here(first: RealHost, xml: str) -> None:
    """Define and start web1, and wait until it has written its memory."""
    first.define(xml)
    first.run("virsh --quiet start web1")
    first.wait_console("web1", "DIRTIED")


def test_migrate_a_guest(hosts: tuple[RealHost, RealHost]) -> None:
    first, second = hosts
    with Page(first, "how-to/migrate-a-guest.md") as page:
        first.define(guest_xml("web1", memory_backing="", dirty_mib=32))
        first.run("virsh --quiet start web1")
        said = page.type("ramshelf guest migrate web1 qemu+ssh://root@host2/system --check", (0, 1))
        for line in ("web1 to host2, live", "web1 to host2, cold"):
            assert page.take(line) in said.stdout
        assert "migration.becomes-file-backed" in said.stdout
        page.skip("against live")
        first.wait_console("web1", "DIRTIED")
        offline = page.take("ramshelf guest migrate web1 qemu+ssh://root@host2/system --offline")
        first.run(f"{offline} --timeout 300")
        assert state(second, "web1") == "running"
        assert second.json("capacity")["promised_mib"] == 192

        second.remove_guests()
        start_here(first, guest_xml("web1", dirty_mib=32))
        page.type("ramshelf guest migrate web1")
        assert state(second, "web1") == "running"
        assert first.json("capacity")["promised_mib"] == 0
        assert "web1" not in first.said("virsh list --all --name")

        second.remove_guests()
        start_here(first, guest_xml("web1", dirty_mib=32))
        page.type("virsh migrate")
        assert state(second, "web1") == "running"
        assert second.json("capacity")["promised_mib"] == 192

        second.remove_guests()
        start_here(first, guest_xml("web1", dirty_mib=32).replace("'kvm'", "'qemu'"))
        page.type("virsh suspend web1")
        page.type("ramshelf guest migrate web1")
        page.type(f"{THERE} resume web1")
        assert state(second, "web1") == "running"


def test_the_other_host_loses_power_while_a_guest_comes(hosts: tuple[RealHost, RealHost]) -> None:
    """It runs on here, and nothing of it is left there after the boot."""
    first, second = hosts
    start_here(first, guest_xml("web1", 512, dirty_mib=256))
    first.run(
        "nohup ramshelf guest migrate web1 qemu+ssh://root@host2/system --bandwidth 4 "
        ">/tmp/migrate 2>&1 &"
    )
    second.wait("virsh list --all --name | grep -q web1", "it comes")
    second.power_cut()
    second.wait_booted()
    first.wait("! pgrep -f '[g]uest migrate web1'", "the migration has ended")
    assert state(first, "web1") == "running", first.said("cat /tmp/migrate")
    assert first.json("capacity")["promised_mib"] == 512
    assert second.json("capacity")["promised_mib"] == 0
    assert "web1" not in second.said("virsh list --all --name")


@pytest.fixture
def former_there(hosts: tuple[RealHost, RealHost], tmp_path: Path) -> Iterator[None]:
    """The second host has 0.1.0 and its hook; in the end this version again."""
    _, second = hosts
    install_0_1_0(second, tmp_path)
    second.run("ramshelf hook install")
    yield
    second.remove_guests()
    second.install()
    second.run("ramshelf hook install")


@pytest.mark.usefixtures("former_there")
def test_a_guest_goes_to_a_host_with_0_1_0_and_comes_back(
    hosts: tuple[RealHost, RealHost],
) -> None:
    """Live and cold; each way by the command of the version that it leaves, and by virsh."""
    first, second = hosts
    start_here(first, guest_xml("web1", dirty_mib=32))
    for way in ("", " --offline --timeout 300"):
        first.run(f"ramshelf guest migrate web1 qemu+ssh://root@host2/system{way}")
        assert state(second, "web1") == "running"
        assert second.json("capacity")["promised_mib"] == 192
        # A guest that moves while 0.1.0 trims it may arrive paused, and stay so.
        second.wait("! pgrep -f 'ramshelf.node.[a]ftercare'", "0.1.0 has trimmed it")
        second.run(f"ramshelf guest migrate web1 qemu+ssh://root@host1/system{way}")
        assert state(first, "web1") == "running"
        assert first.json("capacity")["promised_mib"] == 192
    for here, there, name in ((first, second, "host2"), (second, first, "host1")):
        here.run(
            "virsh migrate --live --p2p --persistent --undefinesource web1 "
            f"qemu+ssh://root@{name}/system"
        )
        assert state(there, "web1") == "running"
        assert there.json("capacity")["promised_mib"] == 192
        assert here.json("capacity")["promised_mib"] == 0
