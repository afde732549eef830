"""Every ending, on every kind of store: nothing of the guest is left, and nothing of it is written.

Beside each guest runs its paired control: the same guest on a store of its own that is made alike, dirty for
the same time, and not ended. What is written to the control's device meanwhile is background writeback. (A
tmpfs has none: there all that is written to the swap counts.)
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ramshelf.core.units import MIB
from support.cli import ramshelf
from support.counters import device_of, written
from support.devices import loop_device, own_swaps, scratch
from support.domains import IMAGE, domain_xml, qemu_pid, wait_console
from support.libvirtd import Libvirtd
from support.process import run, wait_until
from support.stores import MEMORY, store

STORES = ("ext4", "xfs", "tmpfs", "swap")
SIZE_MIB = 320
GUEST_MIB = 192
DIRTY_MIB = 96
MKFS = {"ext4": "-E lazy_itable_init=0,lazy_journal_init=0"}


def guest_stop(_: Libvirtd) -> None:
    assert json.loads(ramshelf("guest", "stop", "guest", "--json").stdout)["how"] == "shut down"


def guest_stop_now(_: Libvirtd) -> None:
    ramshelf("guest", "stop", "guest", "--now")


def destroy(libvirtd: Libvirtd) -> None:
    libvirtd.virsh("destroy", "guest")


def shutdown(libvirtd: Libvirtd) -> None:
    libvirtd.virsh("shutdown", "guest")


def poweroff_inside(_: Libvirtd) -> None:
    """The guest does it by itself."""


def crash(_: Libvirtd) -> None:
    os.kill(qemu_pid("guest") or 0, signal.SIGSEGV)


def kill(_: Libvirtd) -> None:
    os.kill(qemu_pid("guest") or 0, signal.SIGKILL)


def kill_without_libvirtd(libvirtd: Libvirtd) -> None:
    """What lies there until libvirtd is back, it finds and removes."""
    pid = qemu_pid("guest") or 0
    libvirtd.kill()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "QEMU is gone")
    assert list(MEMORY.glob("*-guest/pc.ram")) != []
    libvirtd.start()


def restart_meanwhile(libvirtd: Libvirtd) -> None:
    """libvirtd restarts while the guest shuts down."""
    libvirtd.virsh("shutdown", "guest")
    libvirtd.restart()


ENDINGS: tuple[Callable[[Libvirtd], None], ...] = (
    guest_stop,
    guest_stop_now,
    destroy,
    shutdown,
    poweroff_inside,
    crash,
    kill,
    kill_without_libvirtd,
    restart_meanwhile,
)


@pytest.mark.parametrize("file_system", STORES)
@pytest.mark.parametrize("end", ENDINGS, ids=lambda end: end.__name__.replace("_", "-"))
def test_an_ending_leaves_and_writes_nothing(
    libvirtd: Libvirtd, file_system: str, end: Callable[[Libvirtd], None]
) -> None:
    ramshelf("hook", "install")
    options = "ramshelf.poweroff" if end is poweroff_inside else ""
    xml = domain_xml("guest", GUEST_MIB, dirty_mib=DIRTY_MIB, options=options)
    with measured(file_system) as figures:
        libvirtd.create(xml)
        figures.control_is_dirty()
        if end is not poweroff_inside:
            wait_console("guest", "DIRTIED", timeout=60)
        end(libvirtd)
        wait_until(gone, "the guest is gone", timeout=60)
        assert libvirtd.virsh("list", "--name").stdout.strip() == ""
        assert json.loads(ramshelf("capacity", "--json").stdout)["promised_mib"] == 0
        assert figures.by_ending() <= DIRTY_MIB * MIB // 100


def gone() -> bool:
    """Whether nothing of the guest is left on the store."""
    return not [path for path in MEMORY.iterdir() if path.name != "lost+found"]


class Figures:
    """What has been written to the store's device since the guest started, less what was to the control's."""

    def __init__(self, file_system: str, control: "Control | None") -> None:
        self._device = device_of(file_system)
        self._control = control
        sync()
        self._before = self._written()

    def control_is_dirty(self) -> None:
        """Wait until the control has dirtied its memory."""
        if self._control:
            self._control.wait_dirtied()

    def by_ending(self) -> int:
        """Bytes; what the store's file system still had to write is written."""
        sync()
        return self._written() - self._before

    def _written(self) -> int:
        return written(self._device) - (written(self._control.device) if self._control else 0)


def sync() -> None:
    """What the store still has to write is written; others' file systems are left alone."""
    run("sync", "--file-system", str(MEMORY))
    run("sync", *own_swaps(), str(MEMORY))  # mkswap's


@contextmanager
def measured(file_system: str) -> Iterator[Figures]:
    """A store, and where it has a file system of its own a control that starts now."""
    with ExitStack() as stack:
        stack.enter_context(store(file_system, SIZE_MIB, options=MKFS.get(file_system, "")))
        disk = file_system in {"ext4", "xfs"}
        yield Figures(file_system, stack.enter_context(control(file_system)) if disk else None)


class Control:
    """The same guest by QEMU alone, which nobody ends while it is looked at."""

    def __init__(self, directory: Path) -> None:
        self.device = os.stat(directory).st_dev
        self._console = scratch() / "control.console"
        self._console.write_text("")
        memory = directory / "pc.ram"
        with memory.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, GUEST_MIB * MIB)
        run("sync", "--file-system", str(directory))
        argv = f"""
            qemu-system-x86_64 -nodefaults -display none -accel tcg -m {GUEST_MIB}
            -object memory-backend-file,id=pc.ram,mem-path={memory},share=on,size={GUEST_MIB}M
            -machine pc,memory-backend=pc.ram -serial file:{self._console}
            -kernel {IMAGE}/vmlinuz -initrd {IMAGE}/initramfs -append
        """
        words = f"console=ttyS0 quiet panic=-1 ramshelf.dirty={DIRTY_MIB}"
        self._qemu = subprocess.Popen([*argv.split(), words])

    def wait_dirtied(self) -> None:
        wait_until(
            lambda: "DIRTIED" in self._console.read_text(errors="replace"), "the control is dirty", timeout=60
        )

    def end(self) -> None:
        self._qemu.kill()
        self._qemu.wait()


@contextmanager
def control(file_system: str) -> Iterator[Control]:
    """A control on a file system of its own, made as the store's is."""
    at = scratch() / "control"
    at.mkdir()
    with loop_device(SIZE_MIB) as device:
        run(f"mkfs.{file_system}", "-q", *MKFS.get(file_system, "").split(), device)
        run("mount", device, str(at))
        with ExitStack() as stack:
            stack.callback(run, "umount", str(at))
            guest = Control(at)
            stack.callback(guest.end)
            yield guest
    at.rmdir()
