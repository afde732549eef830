"""What ``ramshelf store create`` refuses: one sentence, a code, and nothing is changed."""

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ramshelf.system.procfs import meminfo
from support.cli import RAMSHELF, ramshelf
from support.devices import loop_device, loops, own_swaps, scratch
from support.process import run

MEMORY = Path("/var/lib/libvirt/qemu/ram")
SWAP = ("--kind", "swap")
DISK = ("--kind", "disk")


@pytest.fixture(autouse=True)
def memory(host: None) -> None:  # noqa: ARG001 - the host is reset after
    MEMORY.mkdir(exist_ok=True)


@pytest.fixture
def device() -> Iterator[str]:
    with loop_device(128) as device:
        yield device


@contextmanager
def unchanged(*devices: str) -> Iterator[None]:
    """Nothing on the host is other than before, and not a byte on the devices."""

    def state() -> object:
        etc = {path: path.read_bytes() for path in Path("/etc").rglob("*") if path.is_file()}
        mounts = Path("/proc/self/mountinfo").read_text()
        contents = [hashlib.sha256(Path(device).read_bytes()).hexdigest() for device in devices]
        return etc, mounts, own_swaps(), loops(), contents, sorted(os.listdir(scratch()))

    before = state()
    yield
    assert state() == before


def refused(
    code: str, *options: str, devices: tuple[str, ...] = (), status: int = 1
) -> dict[str, object]:
    with unchanged(*devices):
        stderr = ramshelf("store", "create", *options, "--json", ok=(status,)).stderr
    error: dict[str, object] = json.loads(stderr[stderr.index("{") :])["error"]
    assert error["code"] == code, error
    assert error["hint"] or status == 1
    return error


def partition_table(device: str) -> None:
    """An MBR with one Linux partition at 1 MiB, 1 MiB large."""
    entry = struct.pack("<BBHBBHII", 0, 0, 0, 0x83, 0, 0, 2048, 2048)
    with open(device, "r+b") as file:
        file.write(b"\0" * 446 + entry + b"\0" * 48 + b"\x55\xaa")


def test_device_that_carries_anything(device: str) -> None:
    for make in (
        ("mkfs.ext4", "-q", device),
        ("mkswap", device),
        ("mkfs.btrfs", "--quiet", "--force", device),
    ):
        run(*make)
        refused("store.device-not-empty", *SWAP, "--device", device, devices=(device,))
    run("wipefs", "--all", device)
    partition_table(device)
    error = refused("store.device-not-empty", *DISK, "--device", device, devices=(device,))
    assert "dos" in str(error["message"])
    refused(
        "store.usage",
        *SWAP,
        "--device",
        device,
        "--wipe",
        "/dev/null",
        devices=(device,),
        status=255,
    )
    ramshelf("store", "create", *SWAP, "--device", device, "--wipe", device)
    again = ramshelf("store", "create", *SWAP, "--device", device, "--wipe", device).stdout
    assert "is already what you ask for.\nIt can hold 128 MiB of guest memory" in again
    ramshelf("store", "remove")


def test_device_that_is_in_use(device: str) -> None:
    wipe = ("--wipe", device)
    run("mkfs.ext4", "-q", device)
    place = scratch() / "mounted"
    place.mkdir()
    run("mount", device, str(place))
    try:
        error = refused("store.device-in-use", *SWAP, "--device", device, *wipe)
        assert f"mounted at {place}" in str(error["message"])
        # Seen from another mount namespace, only the kernel's exclusive claim tells.
        hidden = run(
            *("unshare", "--mount", "sh", "-c"),
            f"umount {place} && exec {RAMSHELF} store create --kind swap --device {device} --wipe "
            f"{device}",
            ok=(1,),
        )
        assert "[store.device-in-use]" in hidden.stderr
    finally:
        run("umount", str(place))
        place.rmdir()
    run("mkswap", device)
    run("swapon", device)
    error = refused("store.device-in-use", *DISK, "--device", device, *wipe)
    assert "swap" in str(error["message"])
    run("swapoff", device)
    run("wipefs", "--all", device)
    above = run("losetup", "--find", "--show", device).stdout.strip()
    try:
        refused("store.device-in-use", *SWAP, "--device", device, devices=(device,))
    finally:
        run("losetup", "--detach", above)


def test_device_that_is_none(device: str) -> None:
    file = scratch() / "plain"
    file.write_text("data")
    for path in ("/dev/null", str(file), "/dev/none"):
        refused("store.not-a-block-device", *SWAP, "--device", path, status=1)
    file.unlink()
    for path in ("loop0", "/dev/../dev/loop0", "/dev/a b", f"{device},", ""):
        refused("store.path", *SWAP, "--device", path, status=255)


def test_device_that_cannot_hold_it(device: str) -> None:
    refused(
        "store.device-too-small", *SWAP, "--device", device, "--size", "200M", devices=(device,)
    )
    refused("store.too-small", *SWAP, "--device", device, "--size", "10M", devices=(device,))
    refused("store.too-small", *DISK, "--fs", "xfs", "--device", device, devices=(device,))
    refused("store.no-dax", "--kind", "dax", "--device", device, devices=(device,))
    run("blockdev", "--setro", device)
    try:
        refused("store.device-read-only", *SWAP, "--device", device, devices=(device,))
    finally:
        run("blockdev", "--setrw", device)


def test_device_over_a_sparse_file() -> None:
    file = scratch() / "sparse"
    run("truncate", "--size", "128M", str(file))
    device = run("losetup", "--find", "--show", str(file)).stdout.strip()
    try:
        error = refused("store.thin", *SWAP, "--device", device)
        assert "sparse" in str(error["message"])
    finally:
        run("losetup", "--detach", device)
        file.unlink()


def test_file_that_cannot_be(tmp_path: Path) -> None:
    there = scratch() / "there"
    there.write_text("data")
    refused("store.file-exists", *SWAP, "--size", "96M", "--file", str(there))
    there.unlink()
    for kind in (SWAP, DISK):
        error = refused("store.not-a-file", *kind, "--size", "96M", "--file", str(scratch()))
        assert f"--file {scratch()}/ramshelf." in str(error["hint"])
    error = refused("store.not-a-file", *SWAP, "--size", "96M", "--file", "/dev/null")
    assert "no ordinary file" in str(error["message"])
    refused(
        "store.file-directory-missing", *SWAP, "--size", "96M", "--file", f"{scratch()}/none/area"
    )
    refused("store.no-room", *SWAP, "--size", "100T", "--file", f"{scratch()}/area")
    refused("store.file-system", *SWAP, "--size", "96M", "--file", "/run/area")
    link = scratch() / "link"
    link.symlink_to(tmp_path)
    refused("store.symbolic-link", *SWAP, "--size", "96M", "--file", f"{link}/area")
    link.unlink()


def test_wishes_that_make_no_sense() -> None:
    for options in (
        ("--kind", "ram"),
        ("--kind", "ram", "--size", "64M", "--file", "/srv/area"),
        (*SWAP, "--size", "64M"),
        (*SWAP, "--size", "64M", "--file", "/srv/area", "--device", "/dev/loop0"),
        (*SWAP, "--file", "/srv/area"),
        (*SWAP, "--size", "64M", "--file", "/srv/area", "--fs", "xfs"),
        (*SWAP, "--size", "64M", "--file", "/srv/area", "--tmpfs-size", "64M"),
        (*DISK, "--size", "64M", "--file", "/srv/area", "--tmpfs-size", "128M"),
        ("--kind", "dax", "--size", "64M", "--file", "/srv/area"),
    ):
        refused("store.usage", *options, status=255)
    for options in (
        ("--kind", "floppy", "--size", "1G"),
        ("--kind", "ram", "--size", "64"),
        ("--size", "1G"),
    ):
        refused("cli.usage", *options, status=255)


def test_more_ram_than_there_is() -> None:
    whole = meminfo()["MemTotal"] >> 20
    refused("store.exceeds-memory", "--kind", "ram", "--size", f"{whole}MiB")


def test_places_that_are_taken(device: str) -> None:
    (MEMORY / "1-guest").mkdir()
    refused("store.mount-point-not-empty", *SWAP, "--device", device, devices=(device,))
    (MEMORY / "1-guest").rmdir()
    run("mount", "-t", "tmpfs", "other", str(MEMORY))
    refused("store.mount-point-busy", *SWAP, "--device", device, devices=(device,))
    run("umount", str(MEMORY))
    refused(
        "store.parent-missing",
        *SWAP,
        "--device",
        device,
        "--directory",
        "/none/ram",
        devices=(device,),
    )


def test_all_reasons_at_once(device: str) -> None:
    run("mkswap", device)
    (MEMORY / "1-guest").mkdir()
    error = refused(
        "store.mount-point-not-empty", "--kind", "dax", "--device", device, devices=(device,)
    )
    also = error["facts"]["also"]  # type: ignore[index]
    assert [other["code"] for other in also] == ["store.device-not-empty", "store.no-dax"]
    (MEMORY / "1-guest").rmdir()


def test_not_root() -> None:
    as_nobody = ("setpriv", "--reuid", "65534", "--clear-groups")
    for verb in (("create", "--kind", "ram", "--size", "64M"), ("remove",), ("clean",)):
        ended = run(*as_nobody, RAMSHELF, "store", *verb, ok=(1,))
        assert "Traceback" not in ended.stderr
        assert ended.stderr.startswith("ramshelf: ")


def test_beyond_its_swap_is_told_and_marked(device: str) -> None:
    made = ramshelf("store", "create", *SWAP, "--device", device, "--tmpfs-size", "512M")
    assert "warning: The store is 512 MiB over 128 MiB of swap" in made.stderr
    assert "x-ramshelf.beyond-swap" in Path("/etc/fstab").read_text()
    shown = json.loads(ramshelf("store", "show", "--json").stdout)
    assert (shown["size_mib"], shown["capacity_mib"]) == (512, 512)
    ramshelf("store", "remove")
