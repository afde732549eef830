"""The block devices below a file system or a swap area, down to the hardware, by sysfs."""

import os
import re
from pathlib import Path

from ramshelf.core.errors import ToolError
from ramshelf.core.files.mounts import covering
from ramshelf.core.host import Device, Unknown
from ramshelf.system.filesystem import read_text
from ramshelf.system.procfs import is_ram_disk, mounts, on_ram_file_system
from ramshelf.system.run import run

_NETWORK_NAMES = {"nbd": "nbd", "rbd": "Ceph", "drbd": "DRBD", "etherd": "ATA over Ethernet"}
_THIN_TARGETS = {"thin": "a thin volume", "vdo": "a VDO volume", "snapshot": "a snapshot"}
_THIN_LAYERS = {"-tpool": "thin", "-vpool": "vdo", "-cow": "snapshot"}
"""How the dm/uuid ends of what LVM puts below a volume of such a target.

See its lib/activate/dev_manager.c.
"""
_THICK = ("LVM-", "CRYPT-", "mpath-")
"""How the dm/uuid begins of devices that are as large as what is below them, but for the above."""
_COPY_ON_WRITE = ("btrfs", "zfs", "bcachefs")
_VIRTUAL_DISKS = ("vd", "xvd")
"""How the names of a hypervisor's disks begin.

They call themselves rotating, whatever they are.
"""


def devices_below(number: int) -> tuple[Device, ...]:
    """Return the device of this number (st_dev, st_rdev) and all devices below it.

    There are none for what is no block device. Raises OSError.
    """
    found: dict[str, Device] = {}
    waiting = [number]
    while waiting:
        device = waiting.pop()
        node = _node(device)
        if not node.exists():
            continue
        node = node.resolve()
        disk = node.parent if (node / "partition").exists() else node
        if disk.name in found:
            continue
        backing = read_text(disk / "loop/backing_file", "").rstrip("\n")
        found[disk.name] = _device(disk, backing)
        waiting += [_number(slave) for slave in _entries(disk / "slaves")]
        if backing and os.path.exists(backing):
            waiting.append(os.stat(backing).st_dev)
    return tuple(found.values())


def block_name(number: int) -> str:
    """Return the kernel's name for the device of this number, such as sda1 or dm-0.

    It is the name that stands in the kernel's log.
    """
    return _node(number).resolve().name


def _node(number: int) -> Path:
    return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")


def _device(disk: Path, backing: str) -> Device:
    name = disk.name
    letters = name.rstrip("0123456789")
    done = read_text(disk / "device/iodone_cnt", "").strip()
    errors = read_text(disk / "device/ioerr_cnt", "").strip()
    thin: str | Unknown = ""
    if (disk / "loop").is_dir():
        thin = _sparse(backing)
    elif (disk / "dm").is_dir():
        thin = _thin(disk)
    elif letters == "zd":
        thin = Unknown("a ZFS volume may be sparse")
    # What lies on other devices says of itself what they say, of which some do not know.
    itself = not (backing or name.startswith(_VIRTUAL_DISKS) or _entries(disk / "slaves"))
    return Device(
        name=name,
        rotational=read_text(disk / "queue/rotational", "0").strip() == "1" and itself,
        network=_network(disk, letters),
        thin=thin,
        in_ram=is_ram_disk(name) or (bool(backing) and on_ram_file_system(backing)),
        direct_io=read_text(disk / "loop/dio", "0").strip() == "1" if backing else None,
        errors=int(errors, 16) if errors else None,
        commands=int(done, 16) if done else None,
    )


def _network(disk: Path, letters: str) -> str:
    if letters in _NETWORK_NAMES:
        return _NETWORK_NAMES[letters]
    if re.search(r"/session\d+/", str(disk)):
        return "iSCSI"
    if "/rport-" in str(disk):
        return "Fibre Channel"
    for transport in [disk / "device/transport", *(disk / "device").glob("nvme*/transport")]:
        fabric = read_text(transport, "pcie").strip()
        if fabric != "pcie":
            return f"NVMe over {fabric}"
    return ""


def _sparse(backing: str) -> str | Unknown:
    try:
        status = os.stat(backing)
    except OSError as error:
        return Unknown(f"{backing}: {os.strerror(error.errno or 0).lower()}")
    if status.st_blocks * 512 < status.st_size:
        return f"a loop device over the sparse file {backing}"
    mount = covering(mounts(), os.path.realpath(backing))
    if mount is not None and mount.fstype in _COPY_ON_WRITE:
        return f"a loop device over a file on {mount.fstype}, which copies on write"
    if on_ram_file_system(backing):  # that is worse, and is reported by itself
        return ""
    if mount is None or not _node(status.st_dev).exists():
        return Unknown(f"{backing} lies on {mount.fstype if mount else 'an unknown file system'}")
    return ""


def _thin(disk: Path) -> str | Unknown:
    """Return what makes a device of the device mapper a thin one, '' where nothing does.

    Device mapper tells its targets only to who has CAP_SYS_ADMIN. What LVM, cryptsetup and
    multipath have made shows by its dm/uuid, and by those of what lies below it.
    """
    below = [read_text(slave / "dm/uuid", "").strip() for slave in _entries(disk / "slaves")]
    for layer, target in _THIN_LAYERS.items():
        if any(uuid.endswith(layer) for uuid in below):
            return _THIN_TARGETS[target]
    if read_text(disk / "dm/uuid", "").startswith(_THICK):
        return ""
    name = read_text(disk / "dm/name", "").strip()
    try:
        table = run(["dmsetup", "table", name], timeout=5).stdout
    except ToolError as error:
        return Unknown(str(error))
    for line in table.splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[2] in _THIN_TARGETS:
            return _THIN_TARGETS[fields[2]]
    return ""


def _entries(directory: Path) -> list[Path]:
    return sorted(entry.resolve() for entry in directory.iterdir()) if directory.is_dir() else []


def _number(node: Path) -> int:
    major, _, minor = read_text(node / "dev").strip().partition(":")
    return os.makedev(int(major), int(minor))


def file_system_errors(fstype: str, device: tuple[int, int]) -> int | None:
    """Return the errors that the file system has counted since it was made or checked.

    Only ext4 keeps count.
    """
    if fstype != "ext4":
        return None
    name = block_name(os.makedev(*device))
    text = read_text(f"/sys/fs/ext4/{name}/errors_count", "").strip()
    return int(text) if text else None
