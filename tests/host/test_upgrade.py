"""From 0.1.0 to this version while guests run, back, and off the host, by the pages about it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.former import install_0_1_0
from support.real_host import MEMORY, RealHost, guest_xml
from support.typed import Page

pytestmark = pytest.mark.soak

STORE = "ramshelf store create --kind disk --fs ext4 --device /dev/vdb --size 1G"
NAMES = ("one", "two")
AGENT = "systemctl is-active ramshelf-agent && curl -sf 127.0.0.1:10177/metrics"


@pytest.fixture(autouse=True)
def former(machine: RealHost, tmp_path: Path) -> Iterator[None]:
    """The host with 0.1.0, a store, and guests that run; in the end with this version alone."""
    install_0_1_0(machine, tmp_path)
    machine.run(f"{STORE} && ramshelf hook install && ramshelf agent install")
    for name in NAMES:
        machine.define(guest_xml(name, dirty_mib=32))
        machine.run(f"virsh --quiet start {name} && virsh --quiet autostart {name}")
        machine.wait_console(name, "DIRTIED")
    yield
    machine.install()
    machine.remove_guests()
    for noun in ("agent", "hook", "store"):
        machine.run(f"ramshelf {noun} remove")


def pids(machine: RealHost) -> str:
    """Return the processes of the guests."""
    return machine.said(" ".join(["cat", *(f"/run/libvirt/qemu/{name}.pid" for name in NAMES)]))


def upgrade(machine: RealHost) -> None:
    """Install this version in place of 0.1.0, and have it take over."""
    machine.install()
    with Page(machine, "how-to/upgrade.md") as page:
        page.type("ramshelf hook install")
    machine.run("ramshelf agent install")
    machine.wait(AGENT, "the agent serves")


def go_back(machine: RealHost, directory: Path) -> None:
    """Do what the page says about going back."""
    with Page(machine, "how-to/go-back.md") as page:
        page.type("ramshelf doctor --before-upgrade 0.1.0", (1,))
        page.type("ramshelf agent remove")
        install_0_1_0(machine, directory)
        page.type("ramshelf hook install && ramshelf agent install")
    machine.wait(AGENT, "its agent serves")


def assert_room_is_kept(machine: RealHost) -> None:
    """Assert that guests have what they were promised, and that none is let in beyond that."""
    assert machine.json("capacity")["promised_mib"] == len(NAMES) * 192
    machine.define(guest_xml("large", 900))
    assert "[capacity.exceeded]" in machine.run("virsh start large", ok=(1,)).stderr
    machine.run("virsh --quiet undefine large")


def test_guests_live_through_an_upgrade_and_ramshelf_is_taken_off(machine: RealHost) -> None:
    before = pids(machine)
    machine.install()
    assert "hook.outdated" in machine.findings()
    upgrade(machine)
    assert "store.libvirt-requires" in machine.findings()
    machine.run(STORE)
    found = machine.findings()
    assert not {code for code in found if code.startswith(("hook.", "store.lib", "store.over"))}
    assert pids(machine) == before
    assert_room_is_kept(machine)

    machine.reboot()
    assert machine.wait_booted() == "running"
    for name in NAMES:
        machine.wait(f"virsh domstate {name} | grep -q running", f"{name} runs again")
    assert_room_is_kept(machine)

    machine.remove_guests()
    with Page(machine, "how-to/uninstall.md") as page:
        for line in ("ramshelf agent", "ramshelf hook", "ramshelf store", "rm -r /opt", "rm -rf"):
            page.type(line)
    assert machine.said("find /etc /usr/local /var/lib /run -xdev -name '*ramshelf*'") == ""


def test_guests_live_through_a_rollback_and_another_upgrade(
    machine: RealHost, tmp_path: Path
) -> None:
    before = pids(machine)
    upgrade(machine)
    go_back(machine, tmp_path)
    assert pids(machine) == before
    assert_room_is_kept(machine)
    units = machine.said("ls /etc/systemd/system | grep ^ramshelf-")
    assert "ramshelf-metrics" not in units
    machine.run("virsh --quiet destroy two && virsh --quiet start two")
    machine.wait_console("two", "DIRTIED")
    before = pids(machine)

    upgrade(machine)
    assert pids(machine) == before
    assert_room_is_kept(machine)
    assert not {code for code in machine.findings() if code.startswith("hook.")}
    machine.run("virsh --quiet destroy one")
    machine.wait(f"! ls {MEMORY} | grep -q one", "nothing is left of it")
    machine.run("virsh --quiet start one")
    assert_room_is_kept(machine)
