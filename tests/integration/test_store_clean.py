"""``ramshelf store clean``: takes what belongs to no guest, never a running or starting guest's."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from ramshelf.core.store.directory import GuestDirectory
from ramshelf.node.store.clean import clean, find_stale
from support.cli import RAMSHELF, ramshelf
from support.domains import domain_xml, wait_console
from support.libvirtd import Libvirtd
from support.process import HANG, wait_until
from support.stores import store

MEMORY = Path("/var/lib/libvirt/qemu/ram")


def leave(name: str, size: int = 1 << 20) -> Path:
    """What a guest leaves behind when the host loses power."""
    directory = MEMORY / name
    directory.mkdir()
    with (directory / "pc.ram").open("wb") as file:
        file.truncate(size)
    return directory


@pytest.mark.parametrize("file_system", ["tmpfs", "ext4"])
def test_stale_directories_go_and_guests_stay(libvirtd: Libvirtd, file_system: str) -> None:
    with store(file_system):
        libvirtd.create(domain_xml("alive", dirty_mib=16))
        wait_console("alive", "DIRTIED")
        [mine] = [entry for entry in MEMORY.iterdir() if entry.name.endswith("-alive")]
        stale = [leave("900-gone"), leave("901-a name with spaces"), leave("99-alive")]
        empty = MEMORY / "902-empty"
        empty.mkdir()
        (MEMORY / "notes").mkdir()

        listed = json.loads(ramshelf("store", "clean", "--dry-run", "--json").stdout)
        assert {each["directory"] for each in listed["stale"]} == {
            str(path) for path in (*stale, empty)
        }
        assert listed["removed"] == []
        assert all(path.is_dir() for path in (*stale, empty))

        done = json.loads(ramshelf("store", "clean", "--json").stdout)
        assert set(done["removed"]) == {str(path) for path in (*stale, empty)}
        assert not any(path.exists() for path in (*stale, empty))
        assert mine.is_dir()
        assert (MEMORY / "notes").is_dir()
        assert (MEMORY / "lost+found").is_dir() == (file_system == "ext4")
        assert libvirtd.virsh("domstate", "alive").stdout.strip() == "running"
        assert "nothing to remove" in ramshelf("store", "clean").stdout


def test_a_guest_that_is_just_starting_stays(libvirtd: Libvirtd) -> None:
    """Its directory is there and empty, its hook runs, and libvirt has no record of it yet."""
    hook = Path("/etc/libvirt/hooks/qemu")
    gate = Path("/run/gate")
    hook.write_text(
        '#!/bin/sh\nif [ "$1 $2" = "young start" ]; then\n'
        f"  touch {gate}.reached; while [ ! -e {gate} ]; do sleep 0.05; done\nfi\n"
    )
    hook.chmod(0o755)
    libvirtd.reload()
    with store("tmpfs"):
        stale = leave("900-gone")
        virsh = subprocess.Popen(
            ["virsh", "create", "/dev/stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert virsh.stdin is not None
        virsh.stdin.write(domain_xml("young"))
        virsh.stdin.close()
        wait_until(Path(f"{gate}.reached").exists, "the guest is starting")
        [mine] = [entry for entry in MEMORY.iterdir() if entry.name.endswith("-young")]
        assert not Path("/run/libvirt/qemu/young.xml").exists()
        clean_process = subprocess.Popen([RAMSHELF, "store", "clean"])
        # libvirt answers when the start lets go of the guest.
        with pytest.raises(subprocess.TimeoutExpired):
            clean_process.wait(timeout=2)
        assert mine.is_dir()
        gate.touch()
        assert clean_process.wait(timeout=HANG) == 0
        assert virsh.wait(timeout=HANG) == 0
        assert mine.is_dir()
        assert not stale.exists()
        libvirtd.virsh("destroy", "young")
    gate.unlink()
    Path(f"{gate}.reached").unlink()


def test_what_changes_after_the_look_stays(libvirtd: Libvirtd) -> None:
    with store("tmpfs"):
        kept, opened, gone = leave("900-touched"), leave("901-opened"), leave("902-gone")
        found = find_stale(libvirtd.uri)
        assert {each.path for each in found} == {str(kept), str(opened), str(gone)}
        os.chown(kept, 0, 0)  # as libvirt does when it makes the directory of a new guest
        with (opened / "pc.ram").open("rb"):
            removed: tuple[GuestDirectory, ...] = clean(found)
        assert [each.path for each in removed] == [str(gone)]
        assert (kept / "pc.ram").exists()
        assert (opened / "pc.ram").exists()


def test_links_are_not_followed(libvirtd: Libvirtd, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("data")
    with store("tmpfs"):
        (MEMORY / "900-link").symlink_to(tmp_path)
        inside = leave("901-inside")
        (inside / "out").symlink_to(tmp_path)
        found = find_stale(libvirtd.uri)
        assert [each.path for each in found] == [str(inside)]
        clean(found)
    assert (tmp_path / "data").read_text() == "data"


def test_without_libvirt_nothing_is_judged(libvirtd: Libvirtd) -> None:
    with store("tmpfs"):
        stale = leave("900-gone")
        libvirtd.stop()
        assert "[libvirt.unreachable]" in ramshelf("store", "clean", ok=(1,)).stderr
        assert stale.is_dir()
        libvirtd.start()


def test_without_a_store_there_is_nothing_to_clean(libvirtd: Libvirtd) -> None:  # noqa: ARG001
    refused = ramshelf("store", "clean", ok=(1,)).stderr
    assert "is a plain directory of the system's own file system, not a store." in refused
    assert "[store.root-file-system]\nhint: Make a store: ramshelf store create" in refused
