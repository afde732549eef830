"""Files measured, written whole and locked; who holds them; guests' directories."""

import mmap
import os
import threading
from pathlib import Path

import pytest

from ramshelf.core.errors import RefusedError
from ramshelf.core.reservation import Reservation
from ramshelf.core.units import MIB
from ramshelf.system.filesystem import file_usages, store_lock
from ramshelf.system.memoryfiles import allocate, create, empty, observe_directory, opened, remove
from ramshelf.system.procfs import holders, parse_maps

MAPS = """\
55d0-55d1 r-xp 00002000 fe:01 1311 /usr/bin/qemu-system-x86_64
7f00-7f80 rw-s 00000000 00:33 42 /var/lib/libvirt/qemu/ram/3-a guest/pc.ram
7f90-7f91 rw-p 00000000 00:00 0 [heap]
7f92-7f93 ---p 00000000 00:00 0
"""


def test_the_lock_is_for_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "lock"
    with store_lock(path), pytest.raises(RefusedError) as caught, store_lock(path, timeout=0.05):
        pass
    assert caught.value.code == "store.locked"
    with store_lock(path, timeout=0):
        pass


def test_the_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    order: list[str] = []
    with store_lock(path):
        waiting = threading.Thread(target=lambda: _append(path, order))
        waiting.start()
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def _append(path: Path, order: list[str]) -> None:
    with store_lock(path, timeout=30):
        order.append("second")


def test_holders(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(b"x" * mmap.PAGESIZE)
    assert holders([str(path), str(tmp_path / "gone")]) == ()
    with path.open("r+b") as file:
        assert holders([str(path)]) == (os.getpid(),)
        mapped = mmap.mmap(file.fileno(), 0)
    assert holders([str(path)]) == (os.getpid(),)
    mapped.close()
    assert holders([str(path)]) == ()


def test_maps() -> None:
    assert parse_maps(MAPS) == {(0xFE, 1, 1311), (0, 0x33, 42)}


def test_memory_files(tmp_path: Path) -> None:
    guest = tmp_path / "3-guest"
    guest.mkdir()
    directory = observe_directory(str(guest))
    assert (directory.uid, directory.files, directory.others) == (os.getuid(), (), ())
    create(directory, Reservation(name="pc.ram", size=2 * MIB, allocate=True))
    create(directory, Reservation(name="dimm0", size=MIB, allocate=False))
    dimm, main = observe_directory(str(guest)).files
    assert (main.apparent, main.allocated >= 2 * MIB) == (2 * MIB, True)
    assert (dimm.apparent, dimm.allocated) == (MIB, 0)
    allocate(dimm)
    assert {usage.allocated >= usage.apparent for usage in file_usages(tmp_path)} == {True}
    with pytest.raises(FileExistsError):
        create(directory, Reservation(name="pc.ram", size=MIB, allocate=False))
    remove(directory, ("dimm0", "dimm0"))
    assert [usage.path for usage in file_usages(tmp_path)] == [str(guest / "pc.ram")]


def test_what_is_written_stays_when_it_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "pc.ram"
    path.write_bytes(b"memory of a running guest")
    os.truncate(path, MIB)
    [usage] = file_usages(tmp_path)
    allocate(usage)
    assert path.read_bytes().rstrip(b"\0") == b"memory of a running guest"


def test_a_directory_is_emptied_and_no_link_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    guest = tmp_path / "3-guest"
    (guest / "deep" / "er").mkdir(parents=True)
    (guest / "deep" / "er" / "file").touch()
    (guest / "pc.ram").touch()
    (guest / "link").symlink_to(outside)
    os.mkfifo(guest / "pipe")
    empty(observe_directory(str(guest)))
    assert list(guest.iterdir()) == []
    assert (outside / "precious").exists()
    guest.rmdir()
    guest.symlink_to(outside)
    with pytest.raises(OSError, match="Not a directory"), opened(str(guest)):
        pass
