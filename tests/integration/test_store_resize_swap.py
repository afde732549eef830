"""``ramshelf store resize`` of a tmpfs over a swap file: this switches swap on."""

import json
import os
from pathlib import Path

from ramshelf.core.config import Config
from ramshelf.core.store.facts import Spec
from ramshelf.core.store.kind import Kind
from ramshelf.core.units import MIB
from ramshelf.node.store import manage
from ramshelf.system.procfs import swaps
from support.cli import ramshelf
from support.devices import loop_device, own_swaps, scratch
from support.domains import domain_xml, qemu_pid, wait_console
from support.interrupted import in_child
from support.libvirtd import Libvirtd
from support.process import run
from support.stores import MEMORY, boot

AREA = scratch() / "area"
FROM, TO = 192, 320
FSTAB = Path("/etc/fstab")
PAGE = os.sysconf("SC_PAGE_SIZE")


def make() -> None:
    MEMORY.mkdir(exist_ok=True)
    manage.create(Spec(kind=Kind.SWAP, size=FROM * MIB, file=str(AREA)), Config())


def assert_large(mib: int, areas: int) -> None:
    """So many swap files of the store's are in use, allocated, and come to its size."""
    figures = os.statvfs(MEMORY)
    assert figures.f_blocks * figures.f_frsize == mib * MIB - areas * PAGE
    used = [area for area in swaps() if area.path in own_swaps()]
    assert len(used) == areas
    assert sum(area.size for area in used) == mib * MIB - areas * PAGE
    for area in used:
        status = os.stat(area.path)
        assert (status.st_mode & 0o7777, area.priority) == (0o600, 100)
        assert status.st_blocks * 512 >= status.st_size
    assert f"size={(mib * MIB - areas * PAGE) >> 10}k" in FSTAB.read_text()


def test_it_grows_under_a_running_guest_comes_back_and_leaves_nothing(hooked: Libvirtd) -> None:
    fstab = FSTAB.read_text()
    make()
    hooked.create(domain_xml("before", dirty_mib=32))
    wait_console("before", "DIRTIED")
    pid = qemu_pid("before")
    assert "[capacity.exceeded]" in hooked.create(domain_xml("after", 160), ok=(1,)).stderr
    dry = json.loads(ramshelf("store", "resize", "--size", f"{TO}M", "--dry-run", "--json").stdout)
    assert_large(FROM, 1)
    done = json.loads(ramshelf("store", "resize", "--size", f"{TO}M", "--json").stdout)
    assert done["actions"] == dry["actions"]
    assert_large(TO, 2)
    assert json.loads(ramshelf("store", "resize", "--size", f"{TO}M", "--json").stdout) == {
        **done,
        "changed": False,
        "actions": [],
    }
    hooked.create(domain_xml("after", 160, dirty_mib=32))
    wait_console("after", "DIRTIED")
    assert qemu_pid("before") == pid
    for name in ("before", "after"):
        hooked.virsh("destroy", name)
    run("umount", str(MEMORY))
    for path in own_swaps():
        run("swapoff", path)
    boot()
    assert_large(TO, 2)
    ramshelf("store", "remove")
    assert own_swaps() == []
    assert list(scratch().glob("area*")) == []
    assert FSTAB.read_text() == fstab


def test_killed_after_each_step_the_next_run_goes_on(host: None) -> None:  # noqa: ARG001
    make()
    mib, last = FROM, 0
    while True:
        mib += 64

        def resize(after_step: object, mib: int = mib) -> object:
            return manage.resize(mib * MIB, Config(), after_step=after_step)  # type: ignore[arg-type]

        ended = in_child(resize, last)
        ramshelf("store", "resize", "--size", f"{mib}M")
        assert_large(mib, last + 2)
        if ended:
            break
        last += 1
    assert last > 3
    ramshelf("store", "remove")
    assert own_swaps() == []
    assert list(scratch().glob("area*")) == []


def test_killed_after_each_step_it_can_be_removed(host: None) -> None:  # noqa: ARG001
    for last in range(6):
        make()
        in_child(lambda after_step: manage.resize(TO * MIB, Config(), after_step=after_step), last)
        ramshelf("store", "remove")
        assert own_swaps() == []
        assert list(scratch().glob("area*")) == []


def test_swap_on_a_device_is_refused(host: None) -> None:  # noqa: ARG001
    MEMORY.mkdir(exist_ok=True)
    with loop_device(FROM) as device:
        manage.create(Spec(kind=Kind.SWAP, device=device), Config())
        said = ramshelf("store", "resize", "--size", "1G", ok=(1,)).stderr
        assert "[store.no-resize]" in said
        assert "ramshelf store create" in said
        ramshelf("store", "remove")
