"""A host's life with ramshelf: stores, guests, boots; at the end nothing is left."""

from collections.abc import Iterator

import pytest

from support.real_host import MEMORY, RealHost, guest_xml

DEVICE = "/dev/vdb"
TOLERATED = {"store.services-may-swap"}
"""What an operator has to decide: that the system's own services are kept out of the swap."""


@pytest.fixture(autouse=True, scope="module")
def before(machine: RealHost) -> Iterator[set[str]]:
    """It is installed as README says, with hook and agent; yields what there was before these."""
    machine.install()
    kept = machine.kept()
    machine.run("ramshelf hook install && ramshelf agent install")
    yield kept
    machine.remove_guests()
    remove(machine)


def remove(machine: RealHost) -> None:
    """Remove all parts of ramshelf."""
    for noun in ("agent", "hook", "store"):
        machine.run(f"ramshelf {noun} remove")


def make(machine: RealHost, options: str) -> None:
    """Make a store and a guest on it that a boot starts."""
    machine.run(f"ramshelf store create {options} --device {DEVICE} --size 2G")
    machine.define(guest_xml("auto", dirty_mib=64))
    machine.run("ramshelf guest start auto && virsh --quiet autostart auto")
    machine.wait_console("auto", "DIRTIED")


def assert_started_again(machine: RealHost) -> None:
    """Assert that a boot has ended well, and wait until it has started the guest."""
    assert machine.wait_booted() == "running"
    machine.wait("virsh domstate auto | grep -q running", "auto runs again")


def test_a_guest_on_a_swap_store_starts_again_at_a_boot(machine: RealHost) -> None:
    make(machine, "--kind swap")
    pid = "$(cat /run/libvirt/qemu/auto.pid)"
    assert "(enforce)" in machine.said(f"cat /proc/{pid}/attr/current")
    machine.reboot()
    assert_started_again(machine)
    assert machine.said(f"findmnt --noheadings --output FSTYPE {MEMORY}") == "tmpfs"
    assert machine.json("capacity")["promised_mib"] == 192


def test_after_the_boot_all_is_well(machine: RealHost) -> None:
    assert machine.findings().keys() <= TOLERATED
    machine.remove_guests()
    machine.run("ramshelf store remove")


def test_a_power_cut_leaves_nothing_on_a_disk_store(machine: RealHost) -> None:
    make(machine, "--kind disk --fs ext4")
    machine.run("sync")
    former = machine.said(f"ls {MEMORY} | grep auto")
    machine.power_cut()
    assert_started_again(machine)
    assert f"{MEMORY}/{former}" in machine.said("journalctl -b -u ramshelf-clean | grep removed")
    assert len(machine.said(f"ls -d {MEMORY}/*-auto").splitlines()) == 1
    assert machine.findings().keys() <= TOLERATED
    machine.remove_guests()


def test_what_is_removed_leaves_nothing(machine: RealHost, before: set[str]) -> None:
    remove(machine)
    after = machine.kept()
    assert (after - before, before - after) == (set(), set())
