"""Each kind of store on each kind of device, from its making to its removal, over two boots."""

from collections.abc import Iterator

import pytest

from support.real_host import MEMORY, RealHost, guest_xml

pytestmark = pytest.mark.soak

STORES = {
    "swap-file": "--kind swap --size 2G --file /var/store",
    "swap-nvme": "--kind swap --device /dev/nvme0n1 --size 2G",
    "ext4-file": "--kind disk --fs ext4 --size 2G --file /var/store",
    "ext4-virtio": "--kind disk --fs ext4 --device /dev/vdb --size 2G",
    "xfs-nvme": "--kind disk --fs xfs --device /dev/nvme0n1 --size 2G",
    "dax-ext4": "--kind dax --fs ext4 --device /dev/pmem0",
    "dax-xfs": "--kind dax --fs xfs --device /dev/pmem0",
    "ram": "--kind ram --size 1G",
}


@pytest.fixture(params=STORES)
def made(request: pytest.FixtureRequest, machine: RealHost) -> Iterator[str]:
    """A store, hook, agent and a guest that runs and starts at boots; nothing is left of them."""
    kind: str = request.param
    if kind.startswith("dax"):
        request.getfixturevalue("pmem")
    before = machine.kept()
    machine.run(f"ramshelf store create {STORES[kind]}")
    machine.run("ramshelf hook install && ramshelf agent install")
    machine.define(guest_xml("auto", dirty_mib=64))
    machine.run("virsh --quiet autostart auto && virsh --quiet start auto")
    machine.wait_console("auto", "DIRTIED")
    yield kind
    machine.remove_guests()
    for noun in ("agent", "hook", "store"):
        machine.run(f"ramshelf {noun} remove")
    assert machine.kept() == before
    assert not machine.holds("[ -e /var/store ]")


def test_a_store_over_a_reboot_and_a_power_cut(machine: RealHost, made: str) -> None:
    for boot in (None, machine.reboot, machine.power_cut):
        if boot:
            machine.run("sync")
            boot()
            assert machine.wait_booted() == "running"
            machine.wait("virsh domstate auto | grep -q running", "auto runs again")
        assert machine.json("capacity")["promised_mib"] == 192
        assert (machine.json("guest", "show", "auto")["resident_mib"] > 0) != made.startswith("dax")
        assert len(machine.said(f"ls -d {MEMORY}/*-auto").splitlines()) == 1
        assert machine.findings().keys() <= tolerated(made)
        machine.wait("curl -sf 127.0.0.1:10177/metrics | grep '^libvirt_up 1'", "the agent serves")
        machine.wait_console("auto", "DIRTIED")
    assert "[capacity.exceeded]" in refused(machine)


def tolerated(kind: str) -> set[str]:
    """Return the findings that an operator may leave as they are with a store of this kind."""
    return {"store.services-may-swap"} if kind.startswith("swap") else set()


def refused(machine: RealHost) -> str:
    """Start a guest that is larger than any of these stores, and return what it is told."""
    machine.define(guest_xml("large", 3000))
    return machine.run("virsh start large", (1,)).stderr
