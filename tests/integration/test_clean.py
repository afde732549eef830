"""Leftovers are found and removed before any guest starts, with and without libvirt.

What belongs to a guest stays.
"""

import os
import re
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ramshelf.core.store.boot import CLEAN_UNIT_PATH, drop_in_path
from support.cli import ramshelf
from support.devices import loop_device
from support.domains import domain_xml, qemu_pid, wait_console
from support.libvirtd import Libvirtd
from support.process import run, wait_until
from support.stores import MEMORY

STATE = Path("/run/libvirt/qemu")


@contextmanager
def made(file_system: str) -> Iterator[str]:
    """A disk store by ``store create``; its device."""
    with loop_device(320) as device:
        ramshelf("store", "create", "--kind", "disk", "--fs", file_system, "--device", device)
        ramshelf("hook", "install")
        yield device
        ramshelf("store", "remove")


def start_clean_unit() -> None:
    """What systemd runs before libvirt."""
    [command] = re.findall(r"^ExecStart=(.*)$", Path(CLEAN_UNIT_PATH).read_text(), re.MULTILINE)
    run(*(word.replace("%%", "%").replace("$$", "$") for word in shlex.split(command)))


def leftovers() -> list[str]:
    return [path.name for path in MEMORY.iterdir() if path.name != "lost+found"]


@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
def test_a_power_cut_leaves_nothing_for_the_guests_after_it(
    libvirtd: Libvirtd, file_system: str
) -> None:
    with made(file_system) as device:
        order = Path(drop_in_path("libvirtd.service")).read_text()
        units = "var-lib-libvirt-qemu-ram.mount ramshelf-clean.service"
        assert f"Wants={units}\nAfter={units}\n" in order
        libvirtd.create(domain_xml("guest", dirty_mib=32))
        wait_console("guest", "DIRTIED")
        run("sync", "--file-system", str(MEMORY))
        power_cut(libvirtd)
        run("mount", device, str(MEMORY))
        assert leftovers() != []
        start_clean_unit()
        assert leftovers() == []
        libvirtd.start()
        libvirtd.create(domain_xml("guest"))
        libvirtd.virsh("destroy", "guest")


def power_cut(libvirtd: Libvirtd) -> None:
    """Everything is gone but what is on the disks."""
    pid = qemu_pid("guest") or 0
    libvirtd.kill()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "QEMU is gone")
    for record in STATE.iterdir():
        if record.is_file():
            record.unlink()
    run("umount", str(MEMORY))


def test_a_guest_that_runs_while_libvirtd_is_stopped_keeps_its_memory(libvirtd: Libvirtd) -> None:
    """The unit runs at each start of libvirt, also when that was stopped or killed with guests."""
    with made("ext4"):
        libvirtd.create(domain_xml("guest", dirty_mib=32))
        libvirtd.create(domain_xml("dies"))
        wait_console("guest", "DIRTIED")
        refused = ramshelf("store", "clean", "--without-libvirt", ok=(1,)).stderr
        assert "[libvirt.running]" in refused
        pid = qemu_pid("dies") or 0
        libvirtd.stop()
        os.kill(pid, signal.SIGKILL)
        (MEMORY / "77-nobody").mkdir()
        start_clean_unit()
        assert sorted(name.partition("-")[2] for name in leftovers()) == ["dies", "guest"]
        libvirtd.start()
        wait_until(
            lambda: [name.partition("-")[2] for name in leftovers()] == ["guest"],
            "libvirt has cleaned",
        )
        assert libvirtd.virsh("domstate", "guest").stdout.strip() == "running"
        libvirtd.virsh("destroy", "guest")


def test_without_a_record_a_file_that_is_open_stays(libvirtd: Libvirtd) -> None:
    """QEMU that libvirt has forgotten still runs: its memory is not taken from under it."""
    with made("xfs"):
        libvirtd.create(domain_xml("guest"))
        wait_console("guest", "GUEST-UP")
        pid = qemu_pid("guest") or 0
        libvirtd.kill()
        record = STATE / "guest.xml"
        kept = record.read_bytes()
        record.unlink()
        start_clean_unit()
        assert len(leftovers()) == 1
        record.write_bytes(kept)
        libvirtd.start()
        assert qemu_pid("guest") == pid
        libvirtd.virsh("destroy", "guest")
