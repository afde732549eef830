"""From 0.1.0 to this version while guests run, and off the host again, by the pages about it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.real_host import CHECKOUT, RealHost, guest_xml, install_lines
from support.typed import Page

pytestmark = pytest.mark.soak

RELEASE_0_1_0 = "e9d93f9"
"""The last commit of 0.1.0."""


@pytest.fixture(autouse=True)
def former(machine: RealHost, tmp_path: Path) -> Iterator[None]:
    """The host with 0.1.0, installed as its README says; in the end with this version again."""
    archive = subprocess.run(
        [
            "git",
            "archive",
            "--prefix=former/",
            RELEASE_0_1_0,
            "src",
            "pyproject.toml",
            "README.md",
            "LICENSE",
        ],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
    ).stdout
    subprocess.run(["tar", "--extract", "--directory", tmp_path], input=archive, check=True)
    readme = (tmp_path / "former/README.md").read_text()
    machine.run("rm -r /opt/ramshelf /usr/local/bin/ramshelf")
    machine.put(tmp_path / "former", "/root")
    machine.run(f"cd /root/former; {' && '.join(install_lines(readme))}")
    assert "0.1.0" in machine.said("ramshelf --version")
    yield
    machine.run("rm -rf /root/former /opt/ramshelf /usr/local/bin/ramshelf")
    machine.install()


def test_guests_live_through_an_upgrade_and_ramshelf_is_taken_off(machine: RealHost) -> None:
    machine.run("ramshelf store create --kind disk --fs ext4 --device /dev/vdb --size 1G")
    machine.run("ramshelf hook install && ramshelf agent install")
    for name in ("one", "two"):
        machine.define(guest_xml(name, dirty_mib=32))
        machine.run(f"virsh --quiet start {name} && virsh --quiet autostart {name}")
        machine.wait_console(name, "DIRTIED")
    pids = machine.said("cat /run/libvirt/qemu/one.pid /run/libvirt/qemu/two.pid")

    machine.run("rm -r /opt/ramshelf /usr/local/bin/ramshelf")
    machine.install()
    assert "hook.outdated" in machine.findings()
    with Page(machine, "how-to/upgrade.md") as page:
        page.type("ramshelf hook install")
    machine.run("ramshelf agent install")
    assert "store.libvirt-requires" in machine.findings()
    machine.run("ramshelf store create --kind disk --fs ext4 --device /dev/vdb --size 1G")
    found = machine.findings()
    assert not {code for code in found if code.startswith(("hook.", "store.lib", "store.over"))}
    assert machine.said("cat /run/libvirt/qemu/one.pid /run/libvirt/qemu/two.pid") == pids
    assert machine.json("capacity")["promised_mib"] == 2 * 192

    machine.reboot()
    assert machine.wait_booted() == "running"
    for name in ("one", "two"):
        machine.wait(f"virsh domstate {name} | grep -q running", f"{name} runs again")
    assert machine.json("capacity")["promised_mib"] == 2 * 192

    machine.remove_guests()
    with Page(machine, "how-to/uninstall.md") as page:
        for line in ("ramshelf agent", "ramshelf hook", "ramshelf store", "rm -r /opt", "rm -rf"):
            page.type(line)
    assert machine.said("find /etc /usr/local /var/lib /run -xdev -name '*ramshelf*'") == ""
