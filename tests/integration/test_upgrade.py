"""A host that version 0.1.0 has filled to the last MiB keeps its guests.

They stay through an upgrade and a reboot.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ramshelf.core.hook.script import SCRIPT
from ramshelf.core.store.capacity import capacity
from ramshelf.core.store.earlier import GRACE
from ramshelf.core.units import MIB, to_mib
from ramshelf.hook import __main__ as hook
from ramshelf.node.store.earlier import Settling
from ramshelf.system.backingstore import observe_store
from ramshelf.system.earlier import PATH, read_promises
from ramshelf.system.hypervisor import Hypervisor
from support.agent import agent
from support.cli import ramshelf
from support.domains import domain_xml, qemu_pid
from support.libvirtd import Libvirtd
from support.process import run, wait_until
from support.stores import MEMORY, store

STORE_MIB = 768
GUESTS = ("one", "two", "three")

HOOK_OF_0_1_0 = f"""\
#!/bin/sh
# ramshelf: reserves a guest's memory on the store before it starts, or refuses it.
# Made by 'ramshelf hook install', which also updates it; 'ramshelf hook remove' removes it.
# made-directories:
verdict=0
# What that version did to a guest that fits, and nothing else: no note is left.
case $2-$3 in start-begin)
  mib=$(sed -n "s:.*<memory unit='KiB'>\\([0-9]*\\)</memory>.*:\\1:p")
  for directory in {MEMORY}/*-$1; do
    fallocate -l "${{mib}}KiB" "$directory/pc.ram" && \
chown --reference="$directory" "$directory/pc.ram"
  done ;;
esac
"""
"""Its own script ran modules of an installation that a test cannot have."""

SCRIPT_OF_0_1_0 = f"""\
#!/bin/sh
# made-directories:
case $2-$3 in
start-begin | started-begin) ;;
prepare-begin) case $1 in ramshelf-probe-*) ;; *) exit 0 ;; esac ;;
*) exit 0 ;;
esac
{sys.executable} -IS {hook.__file__} -- "$@"
case $? in
0) exit 0 ;;
10) exit 1 ;;
esac

# Killed in the middle, or broken: no Python, no ramshelf, an error of its own. \
A guest that runs is let run.
verdict=0
exit $verdict
"""
"""The same in short, and where it finds what it runs."""


def total_mib(*, earlier: bool = False) -> int:
    usage = observe_store().usage
    assert usage is not None
    return to_mib(capacity(usage, configured_mib=None, earlier=earlier).total)


def xml(name: str, memory_mib: int) -> str:
    uuid = UUID(int=sum(name.encode()))
    return domain_xml(name, memory_mib, top=f"<uuid>{uuid}</uuid>")


@pytest.fixture(params=["ext4", "xfs"])
def full(request: pytest.FixtureRequest, libvirtd: Libvirtd) -> Iterator[dict[str, int]]:
    """A store that version 0.1.0 has filled: what each guest has, in MiB. The hook is upgraded."""
    with store(request.param, STORE_MIB):
        room = total_mib(earlier=True)
        assert total_mib() < room - len(GUESTS)
        sizes = dict.fromkeys(GUESTS, room // len(GUESTS))
        sizes["one"] += room - sum(sizes.values())
        script = Path(SCRIPT)
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(HOOK_OF_0_1_0)
        script.chmod(0o755)
        libvirtd.reload()
        for name, size in sizes.items():
            libvirtd.define(xml(name, size))
            libvirtd.virsh("start", name)
            assert (allocated(name) + MIB - 1) // MIB >= size
        ramshelf("hook", "install")
        yield sizes
        ramshelf("hook", "remove")
        assert not Path(PATH).exists()


def allocated(name: str) -> int:
    [file] = MEMORY.glob(f"*-{name}/pc.ram")
    return file.stat().st_blocks * 512


def reboot(libvirtd: Libvirtd) -> None:
    """Everything is gone but what is on the disks."""
    pids = [
        pid for name in libvirtd.virsh("list", "--name").stdout.split() if (pid := qemu_pid(name))
    ]
    libvirtd.stop()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "every QEMU is gone")
    for record in Path("/run/libvirt/qemu").iterdir():
        if record.is_file():
            record.unlink()
    shutil.rmtree("/run/ramshelf")
    run("umount", str(MEMORY))
    run("mount", str(MEMORY))
    ramshelf("store", "clean", "--without-libvirt")
    libvirtd.start()


def refusal(libvirtd: Libvirtd, document: str) -> str:
    said = libvirtd.create(document, ok=(1,)).stderr
    return said[said.index("[") + 1 : said.index("]")] if "[" in said else said


def found() -> dict[str, Any]:
    document = json.loads(ramshelf("doctor", "--json", ok=(0, 1, 2)).stdout)
    return {
        each["code"]: each for each in document["findings"] if each["code"].startswith("store.")
    }


def test_guests_keep_what_they_were_promised_and_start_again(
    libvirtd: Libvirtd, full: dict[str, int]
) -> None:
    above = sum(full.values()) - total_mib()
    figures = json.loads(ramshelf("capacity", "--json").stdout)
    assert 0 < above == figures["above_mib"]
    assert {each["name"]: each["promised_mib"] for each in figures["promised_before"]} == full
    seen = found()
    assert seen["store.overpromised"]["facts"]["above_mib"] == above
    assert set(seen["store.promised-before"]["facts"]["guests"]) == set(GUESTS)
    assert "store.not-again" not in seen
    assert refusal(libvirtd, xml("new", 64)) == "capacity.exceeded"
    for name in GUESTS:
        assert libvirtd.virsh("domstate", name).stdout.strip() == "running"
    # One that is stopped starts again, and no other in its place but one that fits.
    libvirtd.virsh("destroy", "two")
    assert refusal(libvirtd, xml("new", full["two"])) == "capacity.exceeded"
    libvirtd.virsh("start", "two")

    reboot(libvirtd)
    for name in reversed(GUESTS):
        libvirtd.virsh("start", name)
    assert refusal(libvirtd, xml("new", 64)) == "capacity.exceeded"

    # No more than it was promised, and nobody else.
    libvirtd.virsh("destroy", "one")
    libvirtd.define(xml("one", full["one"] + 1))
    assert "[capacity.exceeded]" in libvirtd.virsh("start", "one", ok=(1,)).stderr
    assert refusal(libvirtd, xml("new", full["one"])) == "capacity.exceeded"
    libvirtd.define(xml("one", full["one"]))
    ramshelf("guest", "start", "one")


@pytest.mark.parametrize("full", ["ext4"], indirect=True)
def test_before_the_hook_is_upgraded_guests_start_as_under_0_1_0(
    libvirtd: Libvirtd, full: dict[str, int]
) -> None:
    """Its script runs the modules of the installation, and that is upgraded first."""
    Path(PATH).unlink()
    shutil.rmtree("/usr/local/lib/ramshelf/hook")
    Path(SCRIPT).write_text(SCRIPT_OF_0_1_0)
    libvirtd.virsh("destroy", "two")
    assert refusal(libvirtd, xml("new", full["two"] + 1)) == "capacity.exceeded"
    libvirtd.virsh("start", "two")
    reboot(libvirtd)
    libvirtd.virsh("start", "one")
    libvirtd.virsh("start", "two")
    ramshelf("guest", "start", "three")
    ramshelf("hook", "install")
    assert found()["store.promised-before"]["facts"]["guests"] == sorted(GUESTS)
    libvirtd.virsh("destroy", "two")
    assert refusal(libvirtd, xml("new", full["two"])) == "capacity.exceeded"
    libvirtd.virsh("start", "two")


@pytest.mark.parametrize("full", ["ext4"], indirect=True)
def test_a_guest_that_would_not_start_again_is_named(
    libvirtd: Libvirtd, full: dict[str, int]
) -> None:
    libvirtd.virsh("destroy", "one")
    libvirtd.create(xml("new", 64))
    for seen in (found()["store.not-again"]["facts"]["guests"], again()):
        assert seen == ["one"]
    reboot(libvirtd)
    libvirtd.create(xml("new", 64))
    for name in ("two", "three"):
        libvirtd.virsh("start", name)
    assert "[capacity.exceeded]" in libvirtd.virsh("start", "one", ok=(1,)).stderr
    assert full["one"] > 64


def again() -> list[str]:
    names = json.loads(ramshelf("capacity", "--json").stdout)["refused_after_reboot"]
    assert isinstance(names, list)
    return names


@pytest.mark.parametrize("full", ["ext4"], indirect=True)
def test_the_record_goes_with_what_made_it_necessary(
    libvirtd: Libvirtd, full: dict[str, int]
) -> None:
    del full
    reboot(libvirtd)
    ramshelf("hook", "install")
    assert found()["store.promised-before"]["facts"]["guests"] == sorted(GUESTS)
    libvirtd.virsh("undefine", "one")
    # The doctor changes nothing.
    assert found()["store.promised-before"]["facts"]["guests"] == [
        "three",
        "two",
    ]
    ramshelf("hook", "install")
    assert not Path(PATH).exists()
    assert "store.promised-before" not in found()


@pytest.mark.parametrize("full", ["ext4"], indirect=True)
def test_a_guest_that_libvirt_does_not_know_for_a_while_stays_on_record(
    libvirtd: Libvirtd, full: dict[str, int]
) -> None:
    """As Nova undefines a server that it reboots hard, and defines it anew."""
    now = [0.0]
    settling = Settling(lambda: now[0])

    def look_after(seconds: float) -> set[str]:
        now[0] += seconds
        usage = observe_store().usage
        assert usage is not None
        with Hypervisor("qemu:///system", read_only=True) as hypervisor:
            settling.look(hypervisor, usage)
        return {each.name for each in read_promises()}

    libvirtd.virsh("destroy", "one")
    for _ in range(2):
        libvirtd.virsh("undefine", "one")
        assert look_after(0) == look_after(GRACE - 1) == set(GUESTS)
        libvirtd.define(xml("one", full["one"]))
        assert look_after(GRACE) == set(GUESTS)
    libvirtd.virsh("undefine", "one")
    assert look_after(0) == set(GUESTS)
    assert look_after(GRACE) == set()  # the others fit


@pytest.mark.parametrize("full", ["ext4"], indirect=True)
def test_only_the_hook_of_0_1_0_leaves_guests_to_be_put_on_record(
    libvirtd: Libvirtd, full: dict[str, int]
) -> None:
    """What runs above the capacity for another reason, such as a bypass, gets no right to it."""
    assert set(libvirtd.virsh("list", "--name").stdout.split()) == full.keys()
    Path(PATH).unlink()
    with open(SCRIPT, "a", encoding="utf-8") as file:
        file.write("# of another version\n")
    ramshelf("hook", "install")
    assert not Path(PATH).exists()


@pytest.mark.parametrize("full", ["xfs"], indirect=True)
def test_the_agent_ends_the_record_when_the_store_has_grown(full: dict[str, int]) -> None:
    with agent():
        assert Path(PATH).exists()
        device = run("findmnt", "--noheadings", "--output", "SOURCE", str(MEMORY)).stdout.strip()
        file = run("losetup", "--noheadings", "--output", "BACK-FILE", device).stdout.strip()
        os.truncate(file, (STORE_MIB + 64) * MIB)
        run("losetup", "--set-capacity", device)
        run("xfs_growfs", str(MEMORY))
        assert total_mib() >= sum(full.values())
        wait_until(lambda: not Path(PATH).exists(), "the record goes")
    assert not {"store.overpromised", "store.promised-before", "store.not-again"} & found().keys()


@pytest.mark.parametrize("full", ["ext4"], indirect=True)
def test_a_guest_on_record_has_its_claim_in_placement(
    libvirtd: Libvirtd, full: dict[str, int], tmp_path: Path
) -> None:
    """Embedded and ramshelf's own: the total follows what guests hold."""
    conf = Path("/etc/ramshelf/ramshelf.conf")
    conf.parent.mkdir(exist_ok=True)
    conf.write_text(
        "[ramshelf]\nplacement = embedded\nplacement_owner = true\n"
        f"placement_database = {tmp_path}/placement.sqlite\n"
    )

    def total() -> int:
        return int(json.loads(ramshelf("placement", "report", "--json").stdout)["total_mib"])

    assert total() == sum(full.values())
    libvirtd.virsh("destroy", "two")
    assert total() == total_mib() < sum(full.values())
    ramshelf("guest", "start", "two")
    assert total() == sum(full.values())


@pytest.mark.parametrize("full", ["ext4"], indirect=True)
def test_before_an_upgrade_it_says_what_would_be_lost(
    libvirtd: Libvirtd, full: dict[str, int]
) -> None:
    def says(*target: str) -> dict[str, str]:
        ended = ramshelf("doctor", "--before-upgrade", *target, "--json", ok=(0, 1, 2))
        document = json.loads(ended.stdout)
        assert document["summary"]["exit_status"] == ended.status
        return {each["code"]: each["severity"] for each in document["findings"]}

    running = set(libvirtd.virsh("list", "--name").stdout.split())
    assert running == full.keys()
    assert {"store.overpromised", "upgrade.guests"} <= says().keys()
    assert "upgrade.hook-other" not in says()
    assert says("0.1.0")["upgrade.capacity"] == "warning"
    Path(SCRIPT).write_text(SCRIPT_OF_0_1_0)
    assert says()["upgrade.hook-other"] == "failure"
    assert set(libvirtd.virsh("list", "--name").stdout.split()) == running
    assert "[cli.usage]" in ramshelf("doctor", "--before-upgrade", "next", ok=(255,)).stderr
