"""Guests that move between two whole hosts, by the page about it."""

from collections.abc import Iterator

import pytest

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
        first.run("mkdir -p -m 700 /root/.ssh")
        first.put(second.key, "/root/.ssh")
        first.run("mv /root/.ssh/key /root/.ssh/id_ed25519")
        first.run("ssh-keyscan host2 >>/root/.ssh/known_hosts")
        yield first, second


@pytest.fixture(autouse=True)
def no_guests(hosts: tuple[RealHost, RealHost]) -> Iterator[None]:
    """None is left, and nothing of them on either store."""
    yield
    for host in hosts:
        host.remove_guests()
        host.wait(f'[ -z "$(ls {MEMORY})" ]', "nothing is left on the store")


def runs(host: RealHost, guest: str) -> bool:
    """Tell whether a guest runs on a host."""
    return host.holds(f"virsh domstate {guest} | grep -q running")


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
        assert runs(second, "web1")
        assert second.json("capacity")["promised_mib"] == 192

        second.remove_guests()
        start_here(first, guest_xml("web1", dirty_mib=32))
        page.type("ramshelf guest migrate web1")
        assert runs(second, "web1")
        assert first.json("capacity")["promised_mib"] == 0
        assert "web1" not in first.said("virsh list --all --name")

        second.remove_guests()
        start_here(first, guest_xml("web1", dirty_mib=32))
        page.type("virsh migrate")
        assert runs(second, "web1")
        assert second.json("capacity")["promised_mib"] == 192

        second.remove_guests()
        start_here(first, guest_xml("web1", dirty_mib=32).replace("'kvm'", "'qemu'"))
        page.type("virsh suspend web1")
        page.type("ramshelf guest migrate web1")
        page.type(f"{THERE} resume web1")
        assert runs(second, "web1")


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
    first.wait("! pgrep -f 'guest migrate web1'", "the migration has ended")
    assert runs(first, "web1"), first.said("cat /tmp/migrate")
    assert first.json("capacity")["promised_mib"] == 512
    assert second.json("capacity")["promised_mib"] == 0
    assert "web1" not in second.said("virsh list --all --name")
