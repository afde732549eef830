"""A store is recognised for what it is, however its operator has put it there.

A guest really runs on it.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from ramshelf.system.filesystem import first_link, follow, resolved
from ramshelf.system.procfs import disk_swaps, swaps
from support.cli import ramshelf
from support.devices import loop_device, release, scratch, unmount
from support.domains import domain_xml, wait_console
from support.libvirtd import Libvirtd
from support.onstore import assert_reserved, capacity
from support.process import run
from support.stores import MEMORY

FSTAB = Path("/etc/fstab")
CONF = Path("/etc/ramshelf/ramshelf.conf")
ZRAM = Path("/sys/class/zram-control")


@pytest.fixture
def hooked(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    """At the end no guest is left on what the test has mounted."""
    ramshelf("hook", "install")
    yield libvirtd
    libvirtd.reset()


def to_guests(*paths: Path) -> None:
    """Give directories to QEMU's user, as libvirtd does with its own."""
    owner = MEMORY.parent.stat()
    for path in paths:
        run("chown", f"{owner.st_uid}:{owner.st_gid}", str(path))
        path.chmod(0o751)


def in_fstab(*lines: str) -> None:
    FSTAB.write_text(FSTAB.read_text() + "".join(f"{line}\n" for line in lines))


def findings() -> dict[str, list[str]]:
    """What the doctor says, by code."""
    found: dict[str, list[str]] = {}
    for finding in json.loads(ramshelf("doctor", "--json", ok=(0, 1, 2)).stdout)["findings"]:
        found.setdefault(finding["code"], []).append(finding["message"])
    return found


def runs(libvirtd: Libvirtd, name: str, *, dirty_mib: int = 0) -> None:
    """A guest starts on the store, reserved by the hook, and its kernel comes up."""
    libvirtd.create(domain_xml(name, 128, dirty_mib=dirty_mib))
    wait_console(name, "GUEST-UP")
    assert_reserved(name, 128)


@contextmanager
def swap_on_zram(size_mib: int) -> Iterator[str]:
    """Swap that the kernel compresses and keeps in RAM, on a device of its own."""
    number = (ZRAM / "hot_add").read_text().strip()
    device = f"/dev/zram{number}"
    try:
        Path(f"/sys/block/zram{number}/disksize").write_text(f"{size_mib}M")
        run("mkswap", device)
        run("swapon", device)
        yield device
    finally:
        release_zram(number)


@contextmanager
def xfs_at(place: Path, size_mib: int = 320) -> Iterator[str]:
    """XFS on a loop device there, in fstab as its operator would have it; gives the device."""
    with loop_device(size_mib) as device:
        run("mkfs.xfs", "-q", device)
        place.mkdir()
        in_fstab(f"{device} {place} xfs defaults 0 0")
        run("mount", str(place))
        yield device
        unmount(str(place))


def release_zram(number: str) -> None:
    if f"/dev/zram{number}" in {area.path for area in swaps()}:
        run("swapoff", f"/dev/zram{number}")
    (ZRAM / "hot_remove").write_text(number)


@contextmanager
def swap_on_tmpfs(size_mib: int) -> Iterator[str]:
    """Swap on a loop device over a file that lies on a tmpfs."""
    file = Path("/run/in-ram")
    run("fallocate", "--length", f"{size_mib}MiB", str(file))
    device = run("losetup", "--find", "--show", str(file)).stdout.strip()
    try:
        run("mkswap", device)
        run("swapon", device)
        yield device
    finally:
        release(device)
        file.unlink()


@pytest.mark.parametrize("swap_in_ram", [swap_on_zram, swap_on_tmpfs])
def test_swap_that_stays_in_ram_makes_no_room(
    hooked: Libvirtd, tmp_path: Path, swap_in_ram: Callable[[int], AbstractContextManager[str]]
) -> None:
    before = sum(area.size for area in disk_swaps())
    with loop_device(200) as device, swap_in_ram(300) as ram:
        run("mkswap", device)
        run("swapon", device)
        # The machine may have swap, too; the first page of an area is the kernel's.
        room = (before + (200 << 20) - os.sysconf("SC_PAGE_SIZE")) >> 20
        in_fstab(f"store {MEMORY} tmpfs size={room + 400}M,x-ramshelf.kind=swap 0 0")
        run("mount", str(MEMORY))
        to_guests(MEMORY)
        assert capacity()["total_mib"] == room
        shown = json.loads(ramshelf("store", "show", "--json").stdout)
        assert (shown["capacity_mib"], shown["limited_by"]) == (room, "swap")
        assert device in {area["path"] for area in shown["swap"]}
        assert ram not in {area["path"] for area in shown["swap"]}
        said = hooked.create(domain_xml("large", room + 1), ok=(1,)).stderr
        assert f"capacity {room} MiB, promised 0 MiB" in said
        runs(hooked, "small")
        found = findings()
        assert f"swap store at {MEMORY}: {room} MiB, 128 MiB promised." in found["store.ok"]
        assert f"{Path(ram).name} below the store is RAM." in found["store.in-ram"]
        assert not any(ram in message for message in found.get("store.swap-no-boot", []))
        CONF.parent.mkdir(exist_ok=True)
        CONF.write_text(
            "[ramshelf]\nplacement_owner = true\nplacement = embedded\n"
            f"placement_database = {tmp_path}/own.sqlite\n"
        )
        assert json.loads(ramshelf("placement", "report", "--json").stdout)["total_mib"] == room
        CONF.unlink()
        hooked.reset()
        unmount(str(MEMORY))


def test_swap_in_ram_alone_makes_no_store_of_kind_swap(hooked: Libvirtd) -> None:
    with swap_on_zram(300):
        run("mount", "-t", "tmpfs", "-o", "size=300M", "store", str(MEMORY))
        to_guests(MEMORY)
        if not disk_swaps():  # of the machine's own
            assert capacity()["store"]["kind"] == "ram"
        unmount(str(MEMORY))
        in_fstab(f"store {MEMORY} tmpfs size=300M,x-ramshelf.kind=swap 0 0")
        run("mount", str(MEMORY))
        room = sum(area.size for area in disk_swaps()) >> 20
        assert capacity()["total_mib"] == min(room, 300)
        hooked.create(domain_xml("one", 128), ok=(0,) if room >= 128 else (1,))
        if not room:
            assert "store.no-swap" in findings()
        hooked.reset()
        unmount(str(MEMORY))


def test_a_tmpfs_with_noswap_is_ram_whatever_swap_there_is(hooked: Libvirtd) -> None:
    with loop_device(260) as device:
        run("mkswap", device)
        run("swapon", device)
        run("mount", "-t", "tmpfs", "-o", "size=600M,noswap", "store", str(MEMORY))
        to_guests(MEMORY)
        figures = capacity()
        assert (figures["store"]["kind"], figures["total_mib"]) == ("ram", 600)
        runs(hooked, "guest")
        assert any(
            message.startswith(f"ram store at {MEMORY}: 600 MiB")
            for message in findings()["store.ok"]
        )
        hooked.virsh("destroy", "guest")
        unmount(str(MEMORY))

        in_fstab(f"store {MEMORY} tmpfs size=250M,noswap,x-ramshelf.kind=swap 0 0")
        run("mount", str(MEMORY))
        to_guests(MEMORY)
        said = hooked.create(domain_xml("guest", 128), ok=(1,)).stderr
        assert f"The tmpfs at {MEMORY} is mounted with noswap" in said
        assert "[store.not-mounted]" in said
        assert "store.not-mounted" in findings()
        assert "[store.not-mounted]" in ramshelf("capacity", ok=(1,)).stderr
        unmount(str(MEMORY))
        FSTAB.write_text(FSTAB.read_text().replace("noswap,", ""))
        run("mount", str(MEMORY))
        to_guests(MEMORY)
        assert capacity()["store"]["kind"] == "swap"
        runs(hooked, "again")
        hooked.reset()
        unmount(str(MEMORY))


def test_a_directory_that_fstab_binds_to_libvirts_place(hooked: Libvirtd) -> None:
    fast = scratch() / "fast"
    with xfs_at(fast) as device:
        (fast / "ram").mkdir()
        in_fstab(f"{fast}/ram {MEMORY} none bind 0 0")
        assert "[store.not-mounted]" in hooked.create(domain_xml("early", 128), ok=(1,)).stderr
        run("mount", str(MEMORY))
        to_guests(MEMORY)
        shown = json.loads(ramshelf("store", "show", "--json").stdout)
        assert (shown["kind"], shown["mount_point"], shown["device"]) == (
            "disk",
            str(MEMORY),
            device,
        )
        runs(hooked, "guest")
        assert list((fast / "ram").glob("*-guest/pc.ram"))
        figures = capacity()
        assert (figures["promised_mib"], figures["used_mib"]) == (128, 128)
        assert 128 < figures["total_mib"] < 320
        found = findings()
        assert found["store.ok"]
        assert (
            not {"store.not-mounted", "store.no-boot", "guest.elsewhere", "guest.not-reserved"}
            & found.keys()
        )
        assert "[capacity.exceeded]" in hooked.create(domain_xml("large", 256), ok=(1,)).stderr
        hooked.virsh("destroy", "guest")
        assert list((fast / "ram").iterdir()) == []
        unmount(str(MEMORY))

        unmount(str(fast))
        (fast / "ram").mkdir()  # of the file system below
        run("mount", str(MEMORY))
        run("mount", str(fast))
        said = hooked.create(domain_xml("late", 128), ok=(1,)).stderr
        assert "[store.not-mounted]" in said
        unmount(str(MEMORY))
        unmount(str(fast))
        (fast / "ram").rmdir()
        run("mount", str(fast))


def test_a_guest_counts_in_whichever_place_of_the_file_system_it_lies(hooked: Libvirtd) -> None:
    fast = scratch() / "fast"
    with xfs_at(fast):
        (fast / "ram").mkdir()
        (fast / "libvirt/qemu").mkdir(parents=True)
        to_guests(fast / "libvirt", fast / "libvirt/qemu")
        hooked.set_qemu_conf(f'\nmemory_backing_dir = "{fast}"\n')
        hooked.create(domain_xml("before", 128))
        in_fstab(f"{fast}/ram {MEMORY} none bind 0 0")
        run("mount", str(MEMORY))
        to_guests(MEMORY)
        hooked.set_qemu_conf("")
        assert capacity()["promised_mib"] == 128
        hooked.create(domain_xml("beside", 64))
        assert capacity()["promised_mib"] == 192
        assert "[capacity.exceeded]" in hooked.create(domain_xml("large", 128), ok=(1,)).stderr
        hooked.reset()
        unmount(str(MEMORY))


@contextmanager
def tmpfs_at(place: Path, entry: str = "") -> Iterator[None]:
    """A tmpfs of 400 MiB, by an entry of fstab's or by hand."""
    place.mkdir(parents=True, exist_ok=True)
    if entry:
        in_fstab(entry)
        run("mount", entry.split()[1])
    else:
        run("mount", "-t", "tmpfs", "-o", "size=400M", "store", str(place))
    try:
        yield
    finally:
        unmount(str(place))


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "store /run/link/fast tmpfs size=400M,x-ramshelf.kind=ram 0 0",
        "/run/link/slow /run/link/fast none bind 0 0",
    ],
)
def test_a_directory_behind_roots_own_links(hooked: Libvirtd, entry: str) -> None:
    place = Path("/run/data/fast")
    Path("/run/link").symlink_to("./data")
    with tmpfs_at(Path("/run/data/slow")), tmpfs_at(place, entry):
        place.chmod(0o755)
        hooked.set_qemu_conf('\nmemory_backing_dir = "/run/link/fast"\n')
        hooked.create(domain_xml("guest", 128))
        wait_console("guest", "GUEST-UP")
        [file] = (place / "libvirt/qemu").glob("*-guest/pc.ram")
        assert file.stat().st_size == 128 << 20
        figures = capacity()
        assert (figures["total_mib"], figures["promised_mib"]) == (400, 128)
        assert figures["store"]["mount_point"] == str(place)
        found = findings()
        assert found["store.ok"]
        assert found["guest.ok"]
        about_guests = {code for code in found if code.startswith("guest.")}
        assert about_guests - {"guest.unconfined"} == {"guest.ok"}
        assert (
            not {"store.not-mounted", "store.symbolic-link", "store.stale", "store.owner"}
            & found.keys()
        )
        assert not entry or "store.no-boot" not in found
        assert "[capacity.exceeded]" in hooked.create(domain_xml("large", 300), ok=(1,)).stderr
        hooked.virsh("destroy", "guest")
        assert list((place / "libvirt/qemu").iterdir()) == []
        stale = place / "libvirt/qemu/77-dead"
        stale.mkdir()
        ramshelf("store", "clean")
        assert not stale.exists()
        hooked.set_qemu_conf("")
        hooked.reset()
    Path("/run/link").unlink()


def test_a_link_from_another_disk_is_followed_and_one_on_the_store_is_not(hooked: Libvirtd) -> None:
    disk, place = Path("/run/disk"), Path("/run/data/fast")
    with xfs_at(disk), tmpfs_at(place):
        place.chmod(0o755)
        (disk / "link").symlink_to(place)
        hooked.set_qemu_conf(f'\nmemory_backing_dir = "{disk}/link"\n')
        hooked.create(domain_xml("guest", 64))
        assert capacity()["store"]["mount_point"] == str(place)
        assert len(list(place.glob("libvirt/qemu/*-guest/pc.ram"))) == 1
        hooked.virsh("destroy", "guest")
        (disk / "inner").mkdir()
        (disk / "link").unlink()
        (disk / "link").symlink_to("inner")
        hooked.restart()
        said = hooked.create(domain_xml("guest", 64), ok=(1,)).stderr
        assert "[guest.directory-missing]" in said
        hooked.set_qemu_conf("")
        hooked.reset()


def test_a_link_that_qemus_user_could_have_made_is_named_and_not_followed(hooked: Libvirtd) -> None:
    place = Path("/run/data/fast")
    with tmpfs_at(place):
        to_guests(place)
        (place / "77-dead").mkdir()
        MEMORY.rmdir()
        MEMORY.symlink_to(place)
        try:
            said = hooked.create(domain_xml("guest", 128), ok=(1,)).stderr
            assert f"{MEMORY} is a symbolic link" in said
            assert "[store.symbolic-link]" in said
            assert "[store.symbolic-link]" in ramshelf("capacity", ok=(1,)).stderr
            assert any(str(MEMORY) in message for message in findings()["store.symbolic-link"])
            ramshelf("store", "clean", ok=(0, 1))
            assert [each.name for each in place.iterdir()] == ["77-dead"]
        finally:
            MEMORY.unlink()
            MEMORY.mkdir()
            to_guests(MEMORY)


def test_links_are_followed_as_far_as_root_alone_can_have_made_them(hooked: Libvirtd) -> None:
    del hooked
    top = Path("/run/links")
    (top / "real/deep").mkdir(parents=True)
    (top / "guests").mkdir()
    (top / "open").mkdir()
    to_guests(top / "guests")
    (top / "open").chmod(0o1777)
    (top / "absolute").symlink_to(top / "real")
    (top / "relative").symlink_to("real/../absolute/deep")
    (top / "real/deep/up").symlink_to("../..")
    (top / "loop").symlink_to("loop")
    (top / "out").symlink_to("guests/..")
    for theirs in ("guests", "open"):
        (top / theirs / "link").symlink_to(top / "real")
    assert resolved(f"{top}/absolute/x") == f"{top}/real/x"
    assert resolved(f"{top}/relative/up/real") == f"{top}/real"
    assert follow(f"{top}/absolute/deep") == (f"{top}/real/deep", (f"{top}/absolute",))
    (top / "given").symlink_to(top / "real")
    # As if it was made when the directory was somebody's.
    os.chown(top / "given", 64055, -1, follow_symlinks=False)
    for path in ("/", f"{top}/real/deep", f"{top}/given/x", "no/path"):
        assert follow(path) == (path, ())
    for path in ("guests/link/x", "open/link/x", "loop/x", "missing/x/y", "out/link"):
        assert resolved(f"{top}/{path}") == f"{top}/{path}"
    assert first_link(f"{top}/guests/link/x") == f"{top}/guests/link"
    assert first_link(f"{top}/real/deep") == ""
