"""The fill test: all guests that a store admits use all of their memory at once, and none dies."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from ramshelf.core.units import MIB
from ramshelf.system.filesystem import size_and_used
from ramshelf.system.procfs import swaps
from support.cgroup import memory_limit
from support.cli import ramshelf
from support.devices import loop_device, own_swaps
from support.domains import domain_xml, qemu_pid, wait_console
from support.libvirtd import Libvirtd
from support.onstore import memory_files

STORE_MIB = 512
GUEST_MIB = 150
MEMORY = Path("/var/lib/libvirt/qemu/ram")

KINDS = {
    "swap": ("swap",),
    "ram": ("ram",),
    "ext4": ("disk", "--fs", "ext4"),
    "xfs": ("disk", "--fs", "xfs"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_admitted_guests_fill_their_memory(libvirtd: Libvirtd, kind: str) -> None:
    with _store(kind):
        guests = _start_all(libvirtd)
        pids = {name: qemu_pid(name) for name in guests}
        for name in guests:
            wait_console(name, "DIRTIED")
        _all_alive(libvirtd, pids)
        size, used = size_and_used(MEMORY)
        assert used <= size
        for file in memory_files():
            assert file.stat().st_size == GUEST_MIB * MIB
            assert file.stat().st_blocks * 512 > 0.9 * GUEST_MIB * MIB
        _stop_all(libvirtd, guests)


def test_guests_that_are_swapped_out_live_on(libvirtd: Libvirtd) -> None:
    """All guests rewrite all of their memory again, with RAM for half of it."""
    with _store("swap"), memory_limit(libvirtd.pid, 400):
        guests = _start_all(libvirtd, "ramshelf.rewrite")
        pids = {name: qemu_pid(name) for name in guests}
        for name in guests:
            wait_console(name, "ROUND 1")
        [area] = [area for area in swaps() if area.path in own_swaps()]
        assert area.used > 50 * MIB
        _all_alive(libvirtd, pids)
        _stop_all(libvirtd, guests)


@contextmanager
def _store(kind: str) -> Iterator[None]:
    with nullcontext("") if kind == "ram" else loop_device(STORE_MIB + 4) as device:
        where = ("--device", device) if device else ()
        ramshelf("store", "create", "--kind", *KINDS[kind], "--size", f"{STORE_MIB}MiB", *where)
        ramshelf("hook", "install")
        yield
        ramshelf("hook", "remove")
        ramshelf("store", "remove")


def _start_all(libvirtd: Libvirtd, options: str = "") -> list[str]:
    """Start guests until one is refused; the names of those that run."""
    guests: list[str] = []
    while True:
        name = f"fill{len(guests)}"
        xml = domain_xml(name, GUEST_MIB, dirty_mib="all", options=options)
        if libvirtd.create(xml, ok=(0, 1)).status:
            assert STORE_MIB * 0.8 - GUEST_MIB < len(guests) * GUEST_MIB <= STORE_MIB
            return guests
        guests.append(name)


def _all_alive(libvirtd: Libvirtd, pids: dict[str, int | None]) -> None:
    for name, pid in pids.items():
        assert libvirtd.virsh("domstate", name).stdout.strip() == "running"
        assert qemu_pid(name) == pid is not None


def _stop_all(libvirtd: Libvirtd, guests: list[str]) -> None:
    for name in guests:
        libvirtd.virsh("destroy", name)
