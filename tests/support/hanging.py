"""A disk that hangs for as long as a test wants, and comes back: a loop device over a file of FUSE.

The file is served by this program, ``hanging.py DIRECTORY BACKING``, which is stopped meanwhile.
Whoever waits for the disk then waits as for one that is dead: no signal ends the wait.
"""

import ctypes
import enum
import errno
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if __name__ != "__main__":
    from support.devices import unmount
    from support.process import run, wait_until

_FILE = 2
_NAME = "disk"
_IN, _OUT = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
_PLACE = struct.Struct("<QQI")
_WRITE_IN = 40
_DIRECT_IO = 1


class _Asked(enum.IntEnum):
    """What the kernel asks for (linux/fuse.h)."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    WRITE = 16
    INIT = 26
    INTERRUPT = 36
    BATCH_FORGET = 42


class Disk:
    """The disk: ``device`` is its path."""

    def __init__(self, device: str, server: subprocess.Popen[bytes]) -> None:
        self.device = device
        self._server = server

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let nothing be read or written meanwhile that is not in RAM."""
        run("blockdev", "--flushbufs", self.device)
        self._server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.send_signal(signal.SIGCONT)


@contextmanager
def hanging_disk(directory: Path, size_mib: int) -> Iterator[Disk]:
    """Yield a disk of this size, which needs ``directory`` for itself."""
    served, backing = directory / "served", directory / "backing"
    served.mkdir()
    with backing.open("wb") as file:
        file.truncate(size_mib << 20)
    with subprocess.Popen([sys.executable, __file__, str(served), str(backing)]) as server:
        try:
            wait_until((served / _NAME).exists, "the disk is served")
            device = run("losetup", "--find", "--show", str(served / _NAME)).stdout.strip()
            try:
                with open(device, "rb"):
                    # It goes with its last user, though the tests be killed: whoever looks for
                    # what they left cannot tell by the file that it is theirs.
                    run("losetup", "--detach", device)
                    yield Disk(device, server)
            finally:
                unmount(str(served))
        finally:
            server.kill()


def _serve(directory: str, backing: str) -> None:
    """Answer the kernel's requests until the file system is unmounted."""
    kernel = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={kernel},rootmode=40000,user_id=0,group_id=0"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"hanging", directory.encode(), b"fuse", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "fuse")
    disk = os.open(backing, os.O_RDWR)
    while True:
        try:
            asked = os.read(kernel, 1 << 21)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            raise
        _, operation, unique, node, *_ = _IN.unpack_from(asked)
        if operation in {_Asked.FORGET, _Asked.BATCH_FORGET, _Asked.INTERRUPT}:
            continue
        said = _answer(disk, operation, node, asked[_IN.size :])
        number, content = (said, b"") if isinstance(said, int) else (0, said)
        os.write(kernel, _OUT.pack(_OUT.size + len(content), -number, unique) + content)


def _answer(disk: int, operation: int, node: int, asked: bytes) -> bytes | int:
    """Return what a request is answered, or the number of an error."""
    said: bytes | int = errno.ENOSYS
    match operation:
        case _Asked.INIT:
            said = struct.pack("<IIIIHHII32x", 7, 31, 1 << 17, 0, 12, 9, 1 << 17, 1)
        case _Asked.LOOKUP if asked.rstrip(b"\0") == _NAME.encode():
            said = struct.pack("<5Q", _FILE, 0, 0, 0, 0) + _attributes(disk, _FILE)
        case _Asked.LOOKUP:
            said = errno.ENOENT
        case _Asked.GETATTR:
            said = bytes(16) + _attributes(disk, node)
        case _Asked.OPEN:
            said = struct.pack("<QII", 1, _DIRECT_IO, 0)
        case _Asked.READ:
            _, offset, size = _PLACE.unpack_from(asked)
            said = os.pread(disk, size, offset)
        case _Asked.WRITE:
            _, offset, size = _PLACE.unpack_from(asked)
            said = struct.pack("<II", os.pwrite(disk, asked[_WRITE_IN:][:size], offset), 0)
    return said


def _attributes(disk: int, node: int) -> bytes:
    size = os.fstat(disk).st_size if node == _FILE else 0
    mode = 0o100600 if node == _FILE else 0o40700
    return struct.pack("<6Q10I", node, size, size >> 9, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
