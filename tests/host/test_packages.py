"""Debian packages on a host with a guest: installed, upgraded, removed and purged by their page."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ramshelf.system.run import Completed
from support.real_host import CHECKOUT, MEMORY, RealHost, guest_xml
from support.typed import Page

pytestmark = pytest.mark.soak

HOOK = "/etc/libvirt/hooks/qemu.d/ramshelf"
LATER = "9.0.0"
BUILD = f"""\
exec 3>&1 >&2
make deb
mv dist former
sed -i 's/^__version__ = .*/__version__ = "{LATER}"/' src/ramshelf/__init__.py
make deb
mv dist later
mkdir --parents needed/partial
apt-get install --yes --no-install-recommends --download-only ./later/ramshelf_*.deb \\
  --option Dir::Cache::Archives="$PWD/needed" --option Dir::State::status=/dev/null
for each in needed/*%3a*; do mv "$each" "${{each/\\%3a/-}}"; done # an epoch, as apt writes it
(cd needed && dpkg-scanpackages . >Packages)
tar --create former later needed >&3
"""
SOURCES = "/etc/apt/sources.list"


@pytest.fixture(scope="module")
def packages(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This version's packages in former/, in later/ the same as a later version; what they need.

    A host of these has no network: the distribution's packages come from needed/.
    """
    directory = tmp_path_factory.mktemp("packages")
    suite = pytestconfig.getoption("--suite")
    script = str(CHECKOUT / "scripts/bare-debian")
    with (directory / "all.tar").open("wb") as file:
        subprocess.run([script, "--suite", suite, "bash", "-ec", BUILD], check=True, stdout=file)
    subprocess.run(["tar", "--extract", "--file", "all.tar"], cwd=directory, check=True)
    return directory


@pytest.fixture(autouse=True)
def bare(machine: RealHost, packages: Path) -> Iterator[None]:
    """The host with the packages beside it and no ramshelf; in the end with this version again."""
    machine.run("rm -rf /opt/ramshelf /usr/local/bin/ramshelf")
    for name in ("former", "later", "needed"):
        machine.put(packages / name, "/root")
    machine.run(f"echo 'deb [trusted=yes] file:/root/needed ./' >{SOURCES} && apt-get update")
    yield
    machine.remove_guests()
    machine.run("apt-get purge --yes ramshelf ramshelf-agent")
    machine.run(f"rm -rf /root/former /root/later /root/needed /root/dist {SOURCES}")
    machine.install()


def apt(machine: RealHost, line: str, version: str = "later") -> Completed:
    """Run one of the page's lines for apt-get, with the packages of this version in dist/."""
    return machine.run(f"ln -sfn {version} /root/dist && cd /root && {line} --yes")


def pid(machine: RealHost, unit: str) -> str:
    return machine.said(f"systemctl show --value --property MainPID {unit}")


def test_a_guest_runs_on_while_the_packages_come_and_go(machine: RealHost) -> None:
    before = machine.kept()
    with Page(machine, "how-to/install-from-packages.md") as page:
        page.skip("make deb", "apt-get install ./dist/ramshelf-nova")  # the host has no Nova
        page.skip("man ramshelf")  # nor manual pages
        install = page.take("apt-get install ./dist/ramshelf_")
        apt(machine, install, "former")
        assert machine.kept() == before
        assert machine.said("systemctl is-enabled ramshelf-agent", ok=(1,)) == "disabled"
        assert machine.said("systemctl is-active ramshelf-agent", ok=(3,)) == "inactive"

        page.skip("ramshelf store create")  # of a size that the host does not have
        machine.run("ramshelf store create --kind disk --fs ext4 --device /dev/vdb --size 1G")
        page.type("ramshelf hook install")
        page.type("ramshelf agent install")
        assert not machine.holds("ls /etc/systemd/system/ramshelf-agent.service")
        machine.wait("curl --silent http://127.0.0.1:10177/metrics | grep _build_info", "metrics")
        machine.define(guest_xml("one", dirty_mib=32))
        machine.run("virsh --quiet start one")
        machine.wait_console("one", "DIRTIED")
        guest = machine.said("cat /run/libvirt/qemu/one.pid")

        agent = pid(machine, "ramshelf-agent")
        apt(machine, install)
        assert LATER in machine.said("ramshelf --version")
        assert pid(machine, "ramshelf-agent") not in {agent, "0"}
        assert "hook.outdated" in machine.findings()
        page.type("ramshelf hook install")
        assert not {code for code in machine.findings() if code.startswith("hook.")}
        assert machine.json("capacity")["promised_mib"] == 192

        apt(machine, page.take("apt-get remove"))
        assert not machine.holds(f"ls {HOOK} || systemctl is-active ramshelf-agent")
        assert not machine.holds("systemctl is-enabled ramshelf-agent")
        ended = apt(machine, "apt-get purge ramshelf ramshelf-agent")
        assert "[store.guests-running]" in ended.stdout + ended.stderr
        machine.run(f"findmnt {MEMORY} && kill -0 {guest} && virsh domstate one | grep running")

        machine.remove_guests()
        apt(machine, install)
        apt(machine, page.take("apt-get purge"))
    assert not machine.holds(f"findmnt {MEMORY}")
    assert machine.kept() == before
    assert machine.said("find /etc /usr /var/lib /run -xdev -name '*ramshelf*'") == ""
