"""Stores made by hand, so that the hook is tested without ``ramshelf store create``."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ramshelf.core.store.boot import LOOP_UNIT_PATH
from support.devices import forget_devices, loop_device
from support.process import run, wait_until

MEMORY = Path("/var/lib/libvirt/qemu/ram")
_FSTAB = Path("/etc/fstab")


@contextmanager
def store(
    file_system: str = "tmpfs",
    size_mib: int = 512,
    *,
    at: Path = MEMORY,
    options: str = "",
    device: str = "",
) -> Iterator[Path]:
    """Make a store: "tmpfs" (kind ram), "swap", "ext4" or "xfs", in fstab as ramshelf does it.

    The latter three are on ``device``, or on a loop device if none is given. At the end all guests
    are destroyed.
    """
    before = _FSTAB.read_text()
    at.mkdir(parents=True, exist_ok=True)
    owner = MEMORY.parent.stat()
    with ExitStack() as stack:
        if file_system == "tmpfs":
            line = f"ramshelf {at} tmpfs size={size_mib}M,x-ramshelf.kind=ram 0 0"
        elif file_system == "swap":
            device = device or stack.enter_context(loop_device(size_mib))
            run("mkswap", device)
            run("swapon", device)
            line = (
                f"ramshelf {at} tmpfs "
                f"size={size_mib}M,x-ramshelf.kind=swap,x-ramshelf.beyond-swap 0 0"
            )
        else:
            device = device or stack.enter_context(loop_device(size_mib))
            all_to_guests = ("-m", "0") if file_system == "ext4" else ()
            run(f"mkfs.{file_system}", "-q", *all_to_guests, *options.split(), device)
            line = f"{device} {at} {file_system} x-ramshelf.kind=disk 0 0"
        _FSTAB.write_text(f"{before}{line}\n")
        run("mount", str(at))
        os.chown(at, owner.st_uid, owner.st_gid)
        at.chmod(0o751)
        try:
            yield at
        finally:
            for name in run("virsh", "list", "--name", ok=(0, 1)).stdout.split("\n"):
                if name:
                    run("virsh", "destroy", name, ok=(0, 1))
            wait_until(lambda: not _mounted(at), f"{at} is unmounted")
            _FSTAB.write_text(before)


def _mounted(at: Path) -> bool:
    run("umount", str(at), ok=(0, 1, 32))
    return at.is_mount()


def boot() -> None:
    """Do what systemd does with the files, by hand and in its order."""
    unit = Path(LOOP_UNIT_PATH)
    if unit.exists():
        for command in re.findall(r"^ExecStart=/bin/sh -c '(.*)'$", unit.read_text(), re.MULTILINE):
            run("sh", "-c", command.replace("$$", "$"))
    forget_devices()
    run("swapon", "--all")
    run("mount", "--all")
    for file in Path("/etc/sysctl.d").glob("90-ramshelf.conf"):
        for key, value in re.findall(r"^vm\.(\S+) = (\d+)$", file.read_text(), re.MULTILINE):
            Path("/proc/sys/vm", key).write_text(f"{value}\n")
