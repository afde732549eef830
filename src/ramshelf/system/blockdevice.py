"""Block devices: what they are, what uses them and what they carry.

That is found by sysfs, wipefs and blkid; ``/dev/disk`` needs udev and is not asked.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Iterator

from ramshelf.core.errors import ToolError
from ramshelf.core.files.mounts import Mount, covering
from ramshelf.core.store.facts import BlockDevice, Signature
from ramshelf.system.devicefacts import devices_below
from ramshelf.system.filesystem import read_text
from ramshelf.system.procfs import mounts, swaps
from ramshelf.system.run import Runner

_SYS = "/sys/class/block"
_XFS_SIZE = re.compile(r"^data +=.* bsize=(\d+) +blocks=(\d+)", re.MULTILINE)
_EXT4_SIZE = re.compile(r"^Block count: +(\d+)$.*^Block size: +(\d+)$", re.MULTILINE | re.DOTALL)
_XFS_IN_PROGRESS = 126
"""Offset of the XFS superblock's sb_inprogress, which is 1 until mkfs.xfs has finished."""


def block_device(path: str, run: Runner) -> BlockDevice | str:
    """Return the device that ``path`` names, or half a sentence that says why there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be looked at: {os.strerror(error.errno or 0)}"
    if not stat.S_ISBLK(status.st_mode):
        return "is not a block device"
    number = (os.major(status.st_rdev), os.minor(status.st_rdev))
    name = _name(number)
    if name is None:
        return "is a block device that the kernel does not have"
    real = f"/dev/{name}"
    return BlockDevice(
        path=real,
        number=number,
        size=int(_attribute(name, "size") or 0) * 512,
        read_only=_attribute(name, "ro") == "1",
        dax=_queue(name, "dax") == "1",
        users=tuple(_users(name, real)),
        signatures=signatures(real, run),
        below=devices_below(status.st_rdev),
    )


def signatures(path: str, run: Runner) -> tuple[Signature, ...]:
    """Return what wipefs finds on a device or in a file: nothing if that is empty or not there."""
    if not os.path.exists(path):
        return ()
    output = run(["wipefs", "--no-act", "--json", path]).stdout
    return parse_signatures(output, complete=not _xfs_in_progress(path))


def parse_signatures(output: str, *, complete: bool = True) -> tuple[Signature, ...]:
    """Parse ``wipefs --json``; ``complete`` says whether an XFS among these is complete."""
    if not output.strip():
        return ()
    return tuple(
        Signature(
            type=found["type"],
            uuid=found.get("uuid") or "",
            complete=complete or found["type"] != "xfs",
        )
        for found in json.loads(output)["signatures"]
    )


def _xfs_in_progress(path: str) -> bool:
    with open(path, "rb") as file:
        head = file.read(_XFS_IN_PROGRESS + 1)
    return head.startswith(b"XFSB") and head[_XFS_IN_PROGRESS:] != b"\0"


def find_by_uuid(uuid: str, run: Runner) -> str | None:
    """Return the device that carries a file system or swap area with this UUID.

    Where another one lies on it and shows the same (a linear mapping, multipath), that is the one.
    """
    argv = [
        "blkid",
        "--cache-file",
        "/dev/null",
        "--match-token",
        f"UUID={uuid}",
        "--output",
        "device",
    ]
    found = run(argv, ok=(0, 2)).stdout.split()
    return next((path for path in found if not _shown_by_another(path, found)), None)


def _shown_by_another(path: str, others: list[str]) -> bool:
    """Tell whether one of the others lies on this device, or on the disk that it is a part of."""
    device = os.path.realpath(f"{_SYS}/{_name_at(path)}")
    here = {os.path.basename(device), _disk_of(device)}
    return any(here & _all_below(_name_at(other)) for other in others)


def _name_at(path: str) -> str:
    """Return the kernel's name of the device at this path, which need not be a link to it."""
    try:
        number = os.stat(path).st_rdev
    except OSError:  # gone meanwhile
        return ""
    return _name((os.major(number), os.minor(number))) or ""


def _disk_of(device: str) -> str:
    """Return the name of the disk that a device is a part of, itself where it is whole."""
    part = os.path.exists(f"{device}/partition")
    return os.path.basename(os.path.dirname(device) if part else device)


def _all_below(name: str) -> frozenset[str]:
    below = _listdir(f"{_SYS}/{name}/slaves") if name else []
    return frozenset(below).union(*map(_all_below, below))


def loop_of(file: str) -> str | None:
    """Return the loop device that this file is attached to.

    A device that was detached while somebody looked at it, as udev does, stays for a moment with
    autoclear set and then vanishes under a new mount. It does not count, unless it is mounted
    already.
    """
    mounted = {f"{mount.device[0]}:{mount.device[1]}" for mount in mounts()}
    for name in _listdir(_SYS):
        if _attribute(name, "loop/backing_file") == file and (
            _attribute(name, "loop/autoclear") == "0" or _attribute(name, "dev") in mounted
        ):
            return f"/dev/{name}"
    return None


def file_system_size(mount: Mount, run: Runner) -> int | None:
    """Return the bytes that a mounted ext4 or xfs has; None for others, and where it cannot be had.

    statvfs(3) leaves out what it keeps for its own log and tables.
    """
    if mount.fstype not in {"ext4", "xfs"}:
        return None
    xfs = mount.fstype == "xfs"
    try:
        argv = ["xfs_growfs", "-n", mount.mount_point] if xfs else ["dumpe2fs", "-h", mount.source]
        said = run(argv).stdout
    except ToolError:
        return None
    found = (_XFS_SIZE if xfs else _EXT4_SIZE).search(said)
    return int(found[1]) * int(found[2]) if found else None


def mount_of(path: str) -> Mount | None:
    """Return the mount that ``path`` lies on."""
    return covering(mounts(), os.path.realpath(path))


def device_of(path: str) -> int:
    """Return the number of the device below the file system of ``path``.

    btrfs has numbers of its own, for which the source of the mount is looked at.
    """
    number = os.stat(path).st_dev
    mount = mount_of(path)
    if (
        _name((os.major(number), os.minor(number))) is None
        and mount
        and os.path.exists(mount.source)
    ):
        return os.stat(mount.source).st_rdev
    return number


def _users(name: str, path: str) -> Iterator[str]:
    """Yield what uses a device or a partition of it, in words; the kernel's own claim last."""
    partitions = [entry for entry in _listdir(f"{_SYS}/{name}") if entry.startswith(name)]
    active = {os.path.realpath(area.path) for area in swaps()}
    for part in (name, *partitions):
        which = "" if part == name else f"has a partition {part} that "
        number = _attribute(part, "dev")
        for mount in mounts():
            if f"{mount.device[0]}:{mount.device[1]}" == number or (
                mount.source == f"/dev/{part}" and mount.fstype == "btrfs"
            ):
                yield f"{which}is mounted at {mount.mount_point}"
        if f"/dev/{part}" in active:
            yield f"{which}is in use as swap"
        for holder in _listdir(f"{_SYS}/{part}/holders"):
            yield f"{which}is part of {holder}"
    for other in _listdir(_SYS):
        if _attribute(other, "loop/backing_file") == path:
            yield f"is the backing of {other}"
    if _claimed(path):
        yield "is in use"


def _claimed(path: str) -> bool:
    """Tell whether somebody holds the device exclusively.

    That may be a mount in any namespace, swap, RAID, LVM or a daemon.
    """
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def _name(number: tuple[int, int]) -> str | None:
    try:
        return os.path.basename(os.readlink(f"/sys/dev/block/{number[0]}:{number[1]}"))
    except OSError:
        return None


def _attribute(name: str, attribute: str) -> str | None:
    try:
        return read_text(f"{_SYS}/{name}/{attribute}").strip()
    except OSError:
        return None


def _queue(name: str, attribute: str) -> str | None:
    """Return an attribute of the request queue, which a partition has in common with its disk."""
    value = _attribute(name, f"queue/{attribute}")
    return value if value is not None else _attribute(name, f"../queue/{attribute}")


def _listdir(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
