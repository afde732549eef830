"""What a guest does between start and end: reboot, save, dump, give memory back; its place stays its own."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ramshelf.core.units import MIB
from support.cli import ramshelf
from support.domains import console, domain_xml, qemu_pid, wait_console
from support.libvirtd import Libvirtd
from support.process import run, wait_until
from support.stores import MEMORY, store

STORES = ("ext4", "xfs", "tmpfs", "swap")
BALLOON = "<memballoon model='virtio'/>"


@pytest.fixture
def hooked(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    ramshelf("hook", "install")
    yield libvirtd
    ramshelf("hook", "remove")


def memory_file() -> Path:
    [path] = MEMORY.glob("*-guest/pc.ram")
    return path


def promised_mib() -> int:
    return int(json.loads(ramshelf("capacity", "--json").stdout)["promised_mib"])


def allocated_mib() -> int:
    return memory_file().stat().st_blocks * 512 // MIB


def boots() -> int:
    return console("guest").count("GUEST-UP")


@pytest.mark.parametrize("file_system", ["xfs", "swap"])
@pytest.mark.parametrize("how", ["inside", "reset"])
def test_a_reboot_keeps_file_and_reservation(hooked: Libvirtd, file_system: str, how: str) -> None:
    with store(file_system):
        hooked.create(domain_xml("guest", options="ramshelf.reboot" if how == "inside" else ""))
        wait_console("guest", "GUEST-UP")
        before, pid = memory_file().stat(), qemu_pid("guest")
        if how == "reset":
            hooked.virsh("reset", "guest")
        wait_until(lambda: boots() >= 2, "the guest has booted again", timeout=60)
        after = memory_file().stat()
        assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
        assert (promised_mib(), qemu_pid("guest")) == (128, pid)
        if file_system == "xfs":
            assert after.st_blocks * 512 >= after.st_size


@pytest.mark.parametrize("file_system", STORES)
def test_saved_dumped_and_suspended(hooked: Libvirtd, tmp_path: Path, file_system: str) -> None:
    """Each works, the guest goes on where it was, and a guest that has ended holds nothing."""
    tmp_path.chmod(0o777)
    with store(file_system):
        hooked.define(domain_xml("guest", dirty_mib=32, options="ramshelf.rewrite"))
        hooked.virsh("start", "guest")
        wait_console("guest", "ROUND 1")
        hooked.virsh("suspend", "guest")
        hooked.virsh("resume", "guest")
        hooked.virsh("dump", "--memory-only", "--live", "guest", str(tmp_path / "dump"))
        hooked.virsh("dump", "--memory-only", "guest", str(tmp_path / "paused"))
        hooked.virsh(
            "snapshot-create-as",
            "guest",
            "--no-metadata",
            "--memspec",
            f"{tmp_path}/memory,snapshot=external",
        )
        goes_on()
        hooked.virsh("save", "guest", str(tmp_path / "saved"))
        assert (list(MEMORY.glob("*-guest")), promised_mib()) == ([], 0)
        hooked.virsh("restore", str(tmp_path / "saved"))
        goes_on()
        hooked.virsh("managedsave", "guest")
        assert (list(MEMORY.glob("*-guest")), promised_mib()) == ([], 0)
        hooked.virsh("start", "guest")
        goes_on()
        assert promised_mib() == 128
        hooked.virsh("destroy", "guest")


def goes_on() -> None:
    said = console("guest").count("ROUND")
    wait_until(lambda: console("guest").count("ROUND") > said + 1, "the guest goes on")


@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
def test_what_a_balloon_takes_stays_promised(hooked: Libvirtd, file_system: str) -> None:
    """On a disk the extents of ballooned memory go back to the file system, and to no other guest."""
    with store(file_system, 420, options="-b 4096" if file_system == "ext4" else ""):
        hooked.create(domain_xml("guest", 192, balloon=BALLOON, options="ramshelf.late=100"))
        wait_console("guest", "GUEST-UP")
        pid = qemu_pid("guest")
        assert allocated_mib() >= 192
        hooked.virsh("setmem", "guest", "152MiB", "--live")
        given = f"actual {152 * 1024}\n"
        wait_until(lambda: given in hooked.virsh("dommemstat", "guest").stdout, "the balloon has inflated")
        wait_until(lambda: allocated_mib() <= 182, "the balloon has punched holes", timeout=90)
        figures = json.loads(ramshelf("capacity", "--json").stdout)
        assert figures["promised_mib"] == 192
        in_the_hole = domain_xml("other", figures["free_mib"] + 8)
        assert "[capacity.exceeded]" in hooked.create(in_the_hole, ok=(1,)).stderr
        hooked.create(domain_xml("fits", figures["free_mib"] - 1))
        hooked.virsh("setmem", "guest", "192MiB", "--live")
        wait_console("guest", "DIRTIED 100", timeout=90)
        assert (qemu_pid("guest"), promised_mib()) == (pid, 192 + figures["free_mib"] - 1)


WORD = "Zq7CanaryXw9"


@pytest.mark.parametrize("guarded", [False, True], ids=["without-hook", "with-hook"])
@pytest.mark.parametrize("file_system", ["ext4", "tmpfs"])
def test_no_guest_finds_its_predecessor_s_secret(
    libvirtd: Libvirtd, file_system: str, *, guarded: bool
) -> None:
    """On a directory that is reused on purpose, as after a crash of the host; without the hook it leaks."""
    with store(file_system):
        libvirtd.create(domain_xml("guest", dirty_mib=40, options=f"ramshelf.secret={WORD}"))
        wait_console("guest", "DIRTIED")
        libvirtd.virsh("suspend", "guest")
        kept = MEMORY.parent / "kept"
        run("cp", "--sparse=always", str(memory_file()), str(kept))
        libvirtd.virsh("destroy", "guest")
        if guarded:
            ramshelf("hook", "install")
        reused = MEMORY / f"{next_id(libvirtd)}-guest"
        reused.mkdir()
        run("cp", "--sparse=always", str(kept), str(reused / "pc.ram"))
        kept.unlink()
        owner = MEMORY.stat()
        for path in (reused, reused / "pc.ram"):
            os.chown(path, owner.st_uid, owner.st_gid)
        assert WORD.encode() in (reused / "pc.ram").read_bytes()
        libvirtd.create(domain_xml("guest", options=f"ramshelf.search={WORD}"))
        assert memory_file().parent == reused
        wait_console("guest", "FOUND", timeout=120)
        line = next(line for line in console("guest").splitlines() if line.startswith("FOUND"))
        _, found, _, searched = line.split()
        assert int(searched) > 100
        assert (int(found) < 100) is guarded, line


def next_id(libvirtd: Libvirtd) -> int:
    """The id that libvirt gives next: it counts starts, also those that fail (the hook's probe)."""
    libvirtd.create(domain_xml("before", 32, memory_backing=""))
    number = int(libvirtd.virsh("domid", "before").stdout)
    libvirtd.virsh("destroy", "before")
    return number + 1
