"""Loop devices, swap and mounts: they are the kernel's, so each test undoes its own."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ramshelf.system.procfs import swaps
from support.process import run, wait_until


def scratch() -> Path:
    """Return the directory on disk that ``scripts/isolated`` clears at the end."""
    return Path(tempfile.gettempdir())


def unmount(at: str) -> None:
    """Unmount a file system, and try again for up to 10 seconds while it is in use.

    A process that has ended, or one that looks at the file system, may still hold a file there.
    """
    wait_until(
        lambda: run("umount", at, ok=(0, 1, 32)).status == 0, f"{at} is unmounted", timeout=10
    )


@contextmanager
def loop_device(size_mib: int) -> Iterator[str]:
    """Yield a block device: "/dev/loopN" over a fully allocated file, with direct I/O."""
    with tempfile.NamedTemporaryFile(prefix="loop", dir=scratch()) as file:
        run("fallocate", "--length", f"{size_mib}MiB", file.name)
        device = run("losetup", "--find", "--show", "--direct-io=on", file.name).stdout.strip()
        try:
            yield device
        finally:
            release(device)


class FailingDevice:
    """A loop device over a file on a tmpfs of its own, from which the room can be taken."""

    def __init__(self, device: str, image: Path) -> None:
        self.device = device
        self._image = image

    def fail(self, file: Path) -> None:
        """Make all writes to the blocks of this file fail from now on, as on a bad spot of a disk.

        All other writes succeed. The file's extents, none of which was ever written, become holes
        of the image, and the tmpfs is made no larger than what it holds.
        """
        for line in run("filefrag", "-b4096", "-v", str(file)).stdout.splitlines():
            number, _, extent = line.partition(":")
            if number.strip().isdecimal():
                begin, length = extent.split(":")[1].split("..")[0], extent.split(":")[2]
                place = ("--offset", f"{int(begin) * 4}KiB", "--length", f"{int(length) * 4}KiB")
                run("fallocate", "--punch-hole", *place, str(self._image))
        held = self._image.stat().st_blocks // 2
        run("mount", "-o", f"remount,size={held}k", str(self._image.parent))


@contextmanager
def failing_device(size_mib: int) -> Iterator[FailingDevice]:
    """Yield a block device of which parts can be made to fail."""
    with tempfile.TemporaryDirectory(prefix="failing", dir=scratch()) as directory:
        run("mount", "-t", "tmpfs", "failing", directory)
        try:
            image = Path(directory) / "image"
            run("fallocate", "--length", f"{size_mib}MiB", str(image))
            device = run("losetup", "--find", "--show", str(image)).stdout.strip()
            try:
                yield FailingDevice(device, image)
            finally:
                release(device)
        finally:
            unmount(directory)


_ZRAM = Path("/sys/class/zram-control")


@contextmanager
def zram_device(size_mib: int) -> Iterator[str]:
    """Yield a block device of compressed RAM, for tests that fill large stores.

    Pages that repeat one word cost next to nothing on it. No store that ramshelf makes may lie
    there: the doctor says so.
    """
    if not _ZRAM.is_dir() and "CI" not in os.environ:
        import pytest  # noqa: PLC0415 - the demo has none, and needs no zram

        pytest.skip("the kernel has no zram")
    number = int((_ZRAM / "hot_add").read_text())
    try:
        Path(f"/sys/block/zram{number}/disksize").write_text(f"{size_mib}M")
        yield f"/dev/zram{number}"
    finally:

        def gone() -> bool:
            try:
                (_ZRAM / "hot_remove").write_text(str(number))
            except OSError as error:  # Whoever looks at new devices has it open.
                if error.errno != errno.EBUSY:
                    raise
                return False
            return True

        wait_until(gone, f"zram{number} is removed")


def release(device: str) -> None:
    """Switch off swap on a loop device, detach it, and wait until the kernel has let it go."""
    if any(area.path == device for area in swaps()):
        run("swapoff", device)

    def gone() -> bool:
        run("losetup", "--detach", device, ok=(0, 1))
        return device not in loops()

    wait_until(gone, f"{device} is detached")


def loops() -> dict[str, str]:
    """Return the loop devices whose file lies in the scratch directory, and that file."""
    lines = run(
        "losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"
    ).stdout.splitlines()
    pairs = (line.split(None, 1) for line in lines if len(line.split(None, 1)) == 2)
    return {device: back for device, back in pairs if back.startswith(f"{scratch()}/")}


@contextmanager
def no_swap() -> Iterator[None]:
    """Make /proc/swaps show no swap, whatever swap the machine has."""
    seen = Path("/run/no-swaps")
    seen.write_text(Path("/proc/swaps").read_text().splitlines(keepends=True)[0])
    run("mount", "--bind", str(seen), "/proc/swaps")
    try:
        yield
    finally:
        run("umount", "/proc/swaps")


def own_swaps() -> list[str]:
    """Return the active swap on a file in the scratch directory, or on a loop device over one."""
    return [
        area.path
        for area in swaps()
        if area.path.startswith(f"{scratch()}/") or area.path in loops()
    ]


def release_all() -> None:
    """Release all loop devices and all swap that a test made."""
    for path in own_swaps():
        run("swapoff", path)
    for device in loops():
        release(device)


def forget_devices() -> None:
    """Have libblkid forget what a device carried, which it believes for two seconds.

    There is no udev here to ask.
    """
    shutil.rmtree("/run/blkid", ignore_errors=True)
