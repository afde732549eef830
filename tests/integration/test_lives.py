"""What a guest does between start and end: it reboots, is saved or dumped, gives memory back.

Its place stays its own.
"""

import json
import os
from pathlib import Path

import pytest

from ramshelf.core.units import MIB
from support.cli import ramshelf
from support.domains import console, domain_xml, qemu_pid, wait_console
from support.hooks import FaultyHook
from support.libvirtd import Libvirtd
from support.onstore import wait_recorded
from support.process import run, wait_until
from support.stores import MEMORY, store

STORES = ("ext4", "xfs", "tmpfs", "swap")
BALLOON = "<memballoon model='virtio'/>"
REPORTING = "<memballoon model='virtio' freePageReporting='on'/>"


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
        wait_until(lambda: boots() >= 2, "the guest has booted again")
        after = memory_file().stat()
        assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
        assert (promised_mib(), qemu_pid("guest")) == (128, pid)
        if file_system == "xfs":
            assert after.st_blocks * 512 >= after.st_size


@pytest.mark.parametrize(
    "file_system",
    ["ext4", "swap", *(pytest.param(each, marks=pytest.mark.soak) for each in ("xfs", "tmpfs"))],
)
def test_saved_dumped_and_suspended(hooked: Libvirtd, tmp_path: Path, file_system: str) -> None:
    """Each works, the guest goes on where it was, and a guest that has ended holds nothing."""
    tmp_path.chmod(0o777)
    with store(file_system):
        hooked.define(
            domain_xml("guest", dirty_mib=32, options="ramshelf.rewrite ramshelf.keep=16")
        )
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
    kept = console("guest").count("KEPT")
    wait_until(
        lambda: (
            console("guest").count("ROUND") > said + 1 and console("guest").count("KEPT") > kept + 1
        ),
        "the guest goes on, and has compared what it keeps",
    )
    assert "DAMAGED" not in console("guest")


@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
@pytest.mark.parametrize("how", ["ballooned", "reported"])
def test_what_a_guest_gives_back_stays_promised(
    hooked: Libvirtd, file_system: str, how: str
) -> None:
    """On a disk the extents of memory that the host may discard go back to the file system.

    They go to no other guest. ``reported`` is the guest's free memory, without a balloon having
    been asked for. In both cases the guest begins to use all of its memory when a balloon is
    deflated.
    """
    balloon = BALLOON if how == "ballooned" else REPORTING
    with store(file_system, 420, options="-b 4096" if file_system == "ext4" else ""):
        hooked.create(domain_xml("guest", 192, balloon=balloon, options="ramshelf.late=all"))
        if how == "ballooned":
            wait_console("guest", "GUEST-UP")
            assert allocated_mib() >= 192
            hooked.virsh("setmem", "guest", "112MiB", "--live")
        # On ext4 a kernel with large folios gives most of a balloon's pages new blocks at once.
        wait_until(lambda: allocated_mib() <= 188, "holes are punched")
        pid = qemu_pid("guest")
        figures = json.loads(ramshelf("capacity", "--json").stdout)
        assert figures["promised_mib"] == 192
        found = json.loads(ramshelf("doctor", "--json", ok=(0, 1, 2)).stdout)["findings"]
        assert "guest.not-reserved" not in {each["code"] for each in found}
        in_the_hole = domain_xml("other", figures["free_mib"] + 2)
        assert "[capacity.exceeded]" in hooked.create(in_the_hole, ok=(1,)).stderr
        hooked.create(domain_xml("fits", figures["free_mib"] - 1))
        hooked.virsh("setmem", "guest", "152MiB", "--live")
        wait_console("guest", "BALLOONED")
        hooked.virsh("setmem", "guest", "192MiB", "--live")
        wait_console("guest", "DIRTIED")
        assert (qemu_pid("guest"), promised_mib()) == (pid, 192 + figures["free_mib"] - 1)


def test_holes_of_virtio_mem_are_no_lack(hooked: Libvirtd) -> None:
    """QEMU punches them before the guest runs; the doctor once warned, and its hint did nothing."""
    cell = "<cpu><numa><cell id='0' cpus='0' memory='128' unit='MiB'/></numa></cpu>"
    device = (
        "<memory model='virtio-mem'><target><size unit='MiB'>128</size><node>0</node>"
        "<block unit='MiB'>2</block><requested unit='MiB'>0</requested></target></memory>"
    )
    top = "<maxMemory slots='1' unit='MiB'>256</maxMemory>"
    with store("ext4", 420):
        hooked.create(domain_xml("guest", 256, cpu=cell, top=top, devices=device))
        wait_recorded("guest", "started")
        [file] = MEMORY.glob("*-guest/virtiomem0")
        assert (file.stat().st_size >> 20, file.stat().st_blocks) == (128, 0)
        found = json.loads(ramshelf("doctor", "--json", ok=(0, 1, 2)).stdout)["findings"]
        assert {each["code"] for each in found if each["group"] == "guest"} == {"guest.ok"}
        assert json.loads(ramshelf("capacity", "--json").stdout)["promised_mib"] == 256


WORD = "Zq7CanaryXw9"


@pytest.mark.parametrize("guarded", [False, True], ids=["without-hook", "with-hook"])
@pytest.mark.parametrize("file_system", ["ext4", pytest.param("tmpfs", marks=pytest.mark.soak)])
def test_no_guest_finds_its_predecessor_s_secret(
    libvirtd: Libvirtd, file_system: str, *, guarded: bool
) -> None:
    """The directory is reused on purpose, as after a crash of the host.

    Without the hook the secret leaks.
    """
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
        owner = MEMORY.parent.stat()
        for path in (reused, reused / "pc.ram"):
            os.chown(path, owner.st_uid, owner.st_gid)
        assert WORD.encode() in (reused / "pc.ram").read_bytes()
        libvirtd.create(domain_xml("guest", options=f"ramshelf.search={WORD}"))
        assert memory_file().parent == reused
        wait_console("guest", "FOUND")
        line = next(line for line in console("guest").splitlines() if line.startswith("FOUND"))
        _, found, _, searched = line.split()
        assert int(searched) > 100
        assert (int(found) < 100) is guarded, line


@pytest.mark.parametrize("file_system", ["ext4", "xfs", "tmpfs"])
def test_what_qemu_will_map_is_zero(libvirtd: Libvirtd, tmp_path: Path, file_system: str) -> None:
    """A new file over blocks that held a secret is seen from the host, before QEMU maps it."""
    hook = FaultyHook(tmp_path)
    libvirtd.reload()
    with store(file_system, 320):  # too small for guest and secret side by side
        secret = f"{WORD}\n".encode() * (200 * MIB // (len(WORD) + 1))
        old = MEMORY / "old"
        old.write_bytes(secret)
        run("sync", "--file-system", str(MEMORY))
        old.unlink()
        run("sync", "--file-system", str(MEMORY))
        if file_system != "tmpfs":
            device = run(
                "findmnt", "--noheadings", "--output", "SOURCE", str(MEMORY)
            ).stdout.strip()
            assert int(run("grep", "--count", "--text", WORD, device).stdout) > 200 * MIB // 20
        reused = MEMORY / f"{next_id(libvirtd)}-guest"
        reused.mkdir()
        (reused / "pc.ram").write_bytes(secret[: 16 * MIB])
        owner = MEMORY.parent.stat()
        os.chown(reused, owner.st_uid, owner.st_gid)
        seen = tmp_path / "seen"
        hook.set(copy_at="start reserved", copy_to=seen)
        libvirtd.create(domain_xml("guest", 192))
        assert [str(path.relative_to(seen)) for path in seen.rglob("*")] == [
            reused.name,
            f"{reused.name}/pc.ram",
        ]
        found = (seen / reused.name / "pc.ram").read_bytes()
        assert (len(found), found.count(0)) == (192 * MIB, 192 * MIB)


def next_id(libvirtd: Libvirtd) -> int:
    """The id that libvirt gives next: it counts starts, also those that fail (the hook's probe)."""
    libvirtd.create(domain_xml("before", 32, memory_backing=""))
    number = int(libvirtd.virsh("domid", "before").stdout)
    libvirtd.virsh("destroy", "before")
    return number + 1
