"""``ramshelf store resize`` on real file systems, under guests that run."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from ramshelf.core.config import Config
from ramshelf.core.errors import ToolError
from ramshelf.core.plan import Action, AllocateFile, MakeDirectory
from ramshelf.core.record import replace
from ramshelf.core.store.facts import Spec
from ramshelf.core.store.kind import Kind
from ramshelf.core.units import MIB
from ramshelf.node.store import manage
from ramshelf.system.procfs import meminfo, mounts
from support.cli import ramshelf
from support.devices import loop_device, loops, scratch
from support.domains import console, domain_xml, qemu_pid, wait_console
from support.interrupted import in_child
from support.libvirtd import Libvirtd
from support.process import run
from support.stores import MEMORY, boot

AREA = scratch() / "area"
FSTAB = Path("/etc/fstab")
FROM, TO = 320, 448
"""MiB; mkfs.xfs makes nothing smaller than 300."""

CASES = {
    "ext4-file": Spec(kind=Kind.DISK, size=FROM * MIB, file=str(AREA)),
    "xfs-file": Spec(kind=Kind.DISK, size=FROM * MIB, file=str(AREA), file_system="xfs"),
    "ext4-device": Spec(kind=Kind.DISK, device="DEVICE"),
    "xfs-device": Spec(kind=Kind.DISK, device="DEVICE", file_system="xfs"),
    "ram": Spec(kind=Kind.RAM, size=FROM * MIB),
}


_CAP_SYS_RESOURCE = 1 << 24
"""ext4 grows for nobody without it (ext4_resize_begin), and some sandboxes' root has none."""


def grows(file_system: str) -> bool:
    """Whether this machine lets a mounted file system of this kind grow."""
    [mask] = [
        int(line.split()[1], 16)
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapEff:")
    ]
    return file_system != "ext4" or bool(mask & _CAP_SYS_RESOURCE)


@contextmanager
def made(wish: Spec) -> Iterator[Spec]:
    """A store as wished; what a failed test left of it is removed."""
    MEMORY.mkdir(exist_ok=True)
    with loop_device(FROM) if wish.device else nullcontext() as device:
        wish = replace(wish, device=device)
        manage.create(wish, Config())
        try:
            yield wish
        finally:
            ramshelf("store", "remove", ok=(0, 1))
            AREA.unlink(missing_ok=True)


@pytest.fixture
def spec(request: pytest.FixtureRequest, hooked: Libvirtd) -> Iterator[Spec]:
    """A case's store, with a guest on it that has written to its memory and goes on running."""
    if not grows(request.param.partition("-")[0]):
        pytest.skip("this machine lets nobody grow ext4")
    with made(CASES[request.param]) as wish:
        hooked.create(domain_xml("before", dirty_mib=32))
        wait_console("before", "DIRTIED")
        yield wish
        for name in hooked.virsh("list", "--name").stdout.split():
            hooked.virsh("destroy", name)


def grow_device(device: str, mib: int) -> None:
    """What lvextend does to a volume."""
    run("fallocate", "--length", f"{mib}MiB", loops()[device])
    run("losetup", "--set-capacity", device)


def capacity() -> int:
    return int(json.loads(ramshelf("capacity", "--json").stdout)["capacity_mib"])


def file_system_size() -> int:
    """What the store's file system says of its own size; statvfs leaves out its log and tables."""
    [mount] = [mount for mount in mounts() if mount.mount_point == str(MEMORY)]
    if mount.fstype == "tmpfs":
        figures = os.statvfs(MEMORY)
        return figures.f_blocks * figures.f_frsize
    if mount.fstype == "xfs":
        said = run("xfs_growfs", "-n", str(MEMORY)).stdout
        [(block, blocks)] = re.findall(r"^data +=.* bsize=(\d+) +blocks=(\d+)", said, re.MULTILINE)
    else:
        said = run("dumpe2fs", "-h", mount.source).stdout
        [blocks] = re.findall(r"^Block count: +(\d+)", said, re.MULTILINE)
        [block] = re.findall(r"^Block size: +(\d+)", said, re.MULTILINE)
    return int(block) * int(blocks)


def assert_large(wish: Spec, mib: int) -> None:
    """The store has this size by what the kernel says, and fstab and the boot unit say so, too."""
    assert file_system_size() == mib * MIB
    [line] = [line for line in FSTAB.read_text().splitlines() if "x-ramshelf.kind" in line]
    assert (f"size={mib << 10}k" if wish.kind.tmpfs else f"x-ramshelf.area={mib}M") in line
    if wish.file:
        status = AREA.stat()
        assert status.st_size == mib * MIB
        assert status.st_blocks * 512 >= status.st_size
        [device] = [device for device, file in loops().items() if file == wish.file]
        assert int(run("blockdev", "--getsize64", device).stdout) == status.st_size
        unit = Path("/etc/systemd/system/ramshelf-store.service").read_text()
        assert f"fallocate --length {mib * MIB} {AREA}" in unit


@pytest.mark.parametrize("spec", CASES, indirect=True)
def test_it_grows_under_a_running_guest(spec: Spec, hooked: Libvirtd) -> None:
    assert "[capacity.exceeded]" in hooked.create(domain_xml("after", 200), ok=(1,)).stderr
    before, pid, fstab = capacity(), qemu_pid("before"), FSTAB.read_text()
    size = [] if spec.device else ["--size", f"{TO}MiB"]
    if spec.device:
        grow_device(spec.device, TO)
    dry = json.loads(ramshelf("store", "resize", *size, "--dry-run", "--json").stdout)
    assert (dry["changed"], FSTAB.read_text(), capacity()) == (False, fstab, before)
    done = json.loads(ramshelf("store", "resize", *size, "--json").stdout)
    assert (done["changed"], done["actions"]) == (True, dry["actions"])
    assert_large(spec, TO)
    assert capacity() == done["capacity_mib"] > before + 0.9 * (TO - FROM)
    hooked.create(domain_xml("after", 200, dirty_mib=64))
    wait_console("after", "DIRTIED")
    assert qemu_pid("before") == pid
    again = json.loads(ramshelf("store", "resize", *size, "--json").stdout)
    assert (again["changed"], again["actions"]) == (False, [])
    if not spec.device:
        whole = manage.prepare_create(replace(spec, size=TO * MIB), Config())
        # It is the store that such a create would have made; libvirt sets its mode.
        assert all(isinstance(action, MakeDirectory) for action in whole.actions)


@pytest.mark.parametrize("spec", CASES, indirect=True)
def test_it_has_the_new_size_after_a_boot_and_nothing_of_it_is_left(
    spec: Spec, hooked: Libvirtd
) -> None:
    fstab = Path("/etc/fstab.ramshelf-backup").read_text()
    if spec.device:
        grow_device(spec.device, TO)
    ramshelf("store", "resize", "--size", f"{TO}MiB")
    hooked.virsh("destroy", "before")
    run("umount", str(MEMORY))
    for device in loops() if spec.file else ():
        run("losetup", "--detach", device)
    boot()
    assert_large(spec, TO)
    ramshelf("store", "remove")
    assert not AREA.exists()
    assert FSTAB.read_text() == fstab


def resizing(mib: int) -> Callable[[Callable[[int], None]], object]:
    return lambda after_step: manage.resize(mib * MIB, Config(), after_step=after_step)


@pytest.mark.parametrize("spec", ["ext4-file", "xfs-file", "xfs-device", "ram"], indirect=True)
def test_killed_after_each_step_the_next_run_goes_on(spec: Spec) -> None:
    """Each time it is killed a step later on its way to another 32 MiB."""
    mib, last = FROM, 0
    while True:
        mib += 32
        if spec.device:
            grow_device(spec.device, mib)
        ended = in_child(resizing(mib), last)
        assert console("before").count("DIRTIED") == 1
        ramshelf("store", "resize", "--size", f"{mib}MiB")
        assert_large(spec, mib)
        if ended:
            break
        last += 1
    assert last > 0


@pytest.mark.parametrize("spec", ["xfs-file"], indirect=True)
def test_what_an_interrupted_run_has_allocated_is_given_back(spec: Spec) -> None:
    assert not in_child(resizing(TO), 0)
    assert AREA.stat().st_size == TO * MIB
    assert unfinished() == [f"Finish it: ramshelf store resize --size {TO}MiB"]
    ramshelf("store", "resize", "--size", f"{FROM}MiB")
    assert_large(spec, FROM)
    assert unfinished() == []


def unfinished() -> list[str]:
    """What the doctor says is to be done about a resize."""
    findings = json.loads(ramshelf("doctor", "--json", ok=(0, 1, 2)).stdout)["findings"]
    return [each["hint"] for each in findings if each["code"] == "store.resize-unfinished"]


@pytest.mark.parametrize("name", ["ext4-device", "xfs-device"])
def test_one_that_was_grown_by_hand_is_put_right_as_the_doctor_says(
    host: None,  # noqa: ARG001
    name: str,
) -> None:
    """Of the file system's own size: statvfs leaves out its log, and xfs_growfs shrinks."""
    if not grows(name.partition("-")[0]):
        pytest.skip("this machine lets nobody grow ext4")
    with made(CASES[name]) as wish:
        assert wish.device
        grow_device(wish.device, TO)
        run(*(("resize2fs", wish.device) if name[0] == "e" else ("xfs_growfs", str(MEMORY))))
        assert unfinished() == [f"Finish it: ramshelf store resize --size {TO}MiB"]
        refused("--size", f"{TO - 8}MiB", code="store.shrink")
        ramshelf("store", "resize", "--size", f"{TO}MiB")
        assert_large(wish, TO)
        assert unfinished() == []


def test_where_the_file_has_no_room_nothing_changes(hooked: Libvirtd) -> None:
    """Neither where that is seen before, nor where others take the room meanwhile."""
    place = scratch() / "full"
    place.mkdir()
    area = place / "area"
    with loop_device(640) as device:
        run("mkfs.ext4", "-q", "-m", "0", device)
        run("mount", device, str(place))
        try:
            with made(replace(CASES["xfs-file"], file=str(area))):
                hooked.create(domain_xml("before", dirty_mib=32))
                wait_console("before", "DIRTIED")
                free, before = os.statvfs(place).f_bavail, FSTAB.read_text()
                refused = ramshelf("store", "resize", "--size", "2G", ok=(1,))
                assert "[store.no-room]" in refused.stderr

                def taken(_number: int, action: Action, fraction: float) -> None:
                    if isinstance(action, AllocateFile) and not fraction:
                        run("fallocate", "--length", "200MiB", str(place / "others"))

                with pytest.raises(ToolError, match="No space left") as raised:
                    manage.resize(TO * MIB, Config(), tell=taken)
                assert "store remove" not in raised.value.hint
                (place / "others").unlink()
                assert area.stat().st_size == FROM * MIB
                assert (os.statvfs(place).f_bavail, FSTAB.read_text()) == (free, before)
                ramshelf("store", "resize", "--size", f"{TO}MiB")
                assert area.stat().st_blocks * 512 >= TO * MIB
                hooked.virsh("destroy", "before")
        finally:
            run("umount", str(place))
            place.rmdir()


def refused(*options: str, code: str, status: int = 1) -> str:
    """What is said, and that nothing changes."""
    before = FSTAB.read_text(), os.statvfs(MEMORY).f_blocks, loops()
    stderr = ramshelf("store", "resize", *options, ok=(status,)).stderr
    assert f"[{code}]" in stderr
    assert (FSTAB.read_text(), os.statvfs(MEMORY).f_blocks, loops()) == before
    return stderr


def test_what_cannot_be(host: None) -> None:  # noqa: ARG001
    MEMORY.mkdir(exist_ok=True)
    refused("--size", "1G", code="store.not-made")
    whole = meminfo()["MemTotal"] // MIB
    with made(CASES["ram"]):
        assert "store remove" in refused("--size", "200M", code="store.shrink")
        refused(code="store.usage", status=255)
        refused("--size", f"{whole}MiB", code="store.exceeds-memory")
        refused("--size", "400", code="cli.usage", status=255)
        quiet = ramshelf("--quiet", "store", "resize", "--size", "352M")
        assert (quiet.stdout, quiet.stderr) == ("", "")
        said = ramshelf("store", "resize", "--size", "384M", "--verbose").stderr.splitlines()
        assert f"+ mount --options remount,size={384 << 10}k {MEMORY}" in said
        assert "+ mv /etc/.fstab.ramshelf /etc/fstab" in said
        run("umount", str(MEMORY))
        refused("--size", "1G", code="store.not-mounted")
    with made(CASES["xfs-device"]):
        assert "lvextend" in refused("--size", "1G", code="store.device-too-small")
        refused("--size", "310M", code="store.shrink")
    with made(CASES["ext4-file"]):
        refused(code="store.usage", status=255)
