"""system/pagecache: what is in RAM of a file, by both system calls."""

import errno
import mmap
import os
from pathlib import Path

import pytest

from ramshelf.core.units import MIB
from ramshelf.system import pagecache
from support.files import usage


@pytest.fixture
def memory_file(tmp_path: Path) -> Path:
    """64 MiB, of which 8 in the middle and half a page at the end were written."""
    path = tmp_path / "pc.ram"
    with path.open("wb") as file:
        file.truncate(64 * MIB + mmap.PAGESIZE // 2)
        file.seek(16 * MIB)
        file.write(b"x" * 8 * MIB)
        file.seek(64 * MIB)
        file.write(b"x")
    return path


EXPECTED = 8 * MIB + mmap.PAGESIZE


def test_only_what_was_written_is_in_ram_and_looking_changes_nothing(memory_file: Path) -> None:
    blocks = memory_file.stat().st_blocks
    assert pagecache.resident(usage(memory_file)) == EXPECTED
    assert pagecache.resident(usage(memory_file)) == EXPECTED
    assert memory_file.stat().st_blocks == blocks


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP])
def test_without_cachestat_mincore_says_the_same(
    memory_file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def old_kernel(_descriptor: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pagecache, "_cachestat", old_kernel)
    monkeypatch.setattr(pagecache, "_WINDOW", 3 * MIB)
    assert pagecache.resident(usage(memory_file)) == EXPECTED


def test_of_a_file_on_persistent_memory_cachestat_is_never_asked(
    memory_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel would die of it. That such files are told apart is seen in tests/host."""

    def deadly(*_: int) -> None:
        pytest.fail("cachestat was called")

    monkeypatch.setattr(pagecache, "_is_dax", lambda _: True)
    monkeypatch.setattr(pagecache, "_ask", deadly)
    assert pagecache.resident(usage(memory_file)) == EXPECTED
    assert pagecache.dirty(usage(memory_file)) is None
    with memory_file.open("rb") as file:
        assert pagecache.in_ram(file.fileno(), 16 * MIB, MIB) == b"\x01" * (MIB // mmap.PAGESIZE)


def test_errors_are_oserrors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pagecache.resident(usage(tmp_path / "none"))
    (tmp_path / "empty").touch()
    assert pagecache.resident(usage(tmp_path / "empty")) == 0
