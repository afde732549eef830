"""Files measured, written whole; who holds them; guests' directories."""

import mmap
import os
from pathlib import Path

import pytest

from ramshelf.core.errors import RefusedError
from ramshelf.core.guest.reservation import Reservation
from ramshelf.core.units import MIB
from ramshelf.system.filesystem import make_directory
from ramshelf.system.memoryfiles import allocate, create, empty, put_away, remove
from ramshelf.system.procfs import holders_of, parse_maps
from ramshelf.system.storetree import open_memory
from support.files import observed, opened, usage

MAPS = """\
55d0-55d1 r-xp 00002000 fe:01 1311 /usr/bin/qemu-system-x86_64
7f00-7f80 rw-s 00000000 00:33 42 /var/lib/libvirt/qemu/ram/3-a guest/pc.ram
7f90-7f91 rw-p 00000000 00:00 0 [heap]
7f92-7f93 ---p 00000000 00:00 0
"""


def test_a_directory_is_made_behind_roots_links_only(tmp_path: Path) -> None:
    outside, ours, theirs = (tmp_path / name for name in ("outside", "ours", "theirs"))
    for path in (outside, ours, theirs):
        path.mkdir()
    for path in (ours, theirs):
        (path / "link").symlink_to(outside)
    theirs.chmod(0o777)
    me = {"uid": os.getuid(), "gid": os.getgid(), "mode": 0o750}
    make_directory(str(ours / "link" / "made"), **me)
    assert (outside / "made").stat().st_mode & 0o777 == 0o750
    make_directory(str(ours / "link" / "made"), **me)
    for name in ("link/planted", "link"):
        with pytest.raises(RefusedError) as caught:
            make_directory(str(theirs / name), **me)
        assert caught.value.code == "file.link"
    assert [path.name for path in outside.iterdir()] == ["made"]


def test_holders(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(b"x" * mmap.PAGESIZE)
    status = path.stat()
    wanted = {(os.major(status.st_dev), os.minor(status.st_dev), status.st_ino)}
    assert holders_of(wanted) == holders_of(set()) == ()
    with path.open("r+b") as file:
        assert holders_of(wanted) == (os.getpid(),)
        mapped = mmap.mmap(file.fileno(), 0)
    assert holders_of(wanted) == (os.getpid(),)
    mapped.close()
    assert holders_of(wanted) == ()


def test_maps() -> None:
    assert parse_maps(MAPS) == {(0xFE, 1, 1311), (0, 0x33, 42)}


def test_memory_files(tmp_path: Path) -> None:
    guest = tmp_path / "3-guest"
    guest.mkdir()
    with opened(guest) as (parent, directory):
        assert (directory.uid, directory.files, directory.others) == (os.getuid(), (), ())
        made = create(parent, directory, Reservation(name="pc.ram", size=2 * MIB))
        create(parent, directory, Reservation(name="dimm0", size=MIB))
        dimm, main = observed(guest).files
        assert (main.apparent, main.allocated, main.inode) == (2 * MIB, 0, made.inode)
        for file in (dimm, main):
            allocate(parent, file)
        assert all(file.allocated >= file.apparent for file in observed(guest).files)
        with pytest.raises(FileExistsError):
            create(parent, directory, Reservation(name="pc.ram", size=MIB))
        remove(parent, ("dimm0", "dimm0"))
        assert [file.name for file in observed(guest).files] == ["pc.ram"]


def test_what_is_written_stays_when_it_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "pc.ram"
    path.write_bytes(b"memory of a running guest")
    os.truncate(path, MIB)
    with opened(tmp_path) as (parent, directory):
        allocate(parent, directory.files[0])
    assert path.read_bytes().rstrip(b"\0") == b"memory of a running guest"


def test_what_was_put_in_the_place_of_a_file_is_not_opened(tmp_path: Path) -> None:
    memory, foreign = tmp_path / "pc.ram", tmp_path / "foreign"
    memory.touch()
    foreign.touch()
    seen = usage(memory)
    with opened(tmp_path) as (parent, _):
        for number, put in enumerate(("fifo", "link", "file", "directory")):
            memory.rename(tmp_path / f"moved{number}")
            if put == "fifo":
                os.mkfifo(memory)
            elif put == "link":
                memory.symlink_to(foreign)
            elif put == "file":
                memory.touch()
            else:
                memory.mkdir()
            with pytest.raises(OSError, match=r"pc\.ram"):
                allocate(parent, seen)
            with pytest.raises(FileNotFoundError):
                open_memory(seen)


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
    with opened(guest) as (parent, directory):
        assert [file.name for file in directory.files] == ["pc.ram"]
        assert directory.others == ("deep", "link", "pipe")
        empty(parent)
    assert list(guest.iterdir()) == []
    assert (outside / "precious").exists()


def test_no_name_keeps_a_directory_from_being_emptied(tmp_path: Path) -> None:
    (tmp_path / ".removed-1" / "x" / "y").mkdir(parents=True)
    (tmp_path / "pc.ram" / "x").mkdir(parents=True)
    with opened(tmp_path) as (parent, _):
        put_away(parent, "pc.ram")
        assert not (tmp_path / "pc.ram").exists()
        empty(parent)
        assert list(tmp_path.iterdir()) == []
        for number in range(30):
            (tmp_path / str(number)).touch()
        with pytest.raises(OSError, match="more than is removed"):
            empty(parent, most=20)


def test_no_depth_is_too_deep_to_be_removed(tmp_path: Path) -> None:
    """QEMU's user can make paths that are longer than any that can be named."""
    guest = tmp_path / "3-guest"
    guest.mkdir()
    here = os.getcwd()
    os.chdir(guest)
    try:
        for _ in range(300):
            os.mkdir("n" * 200)
            os.chdir("n" * 200)
    finally:
        os.chdir(here)
    with opened(guest) as (parent, _):
        empty(parent)
    assert list(guest.iterdir()) == []
