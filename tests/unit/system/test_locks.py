"""Locks between processes, and what becomes of them when their files are removed."""

import os
import threading
from pathlib import Path

import pytest

from ramshelf.core.errors import RefusedError
from ramshelf.system import locks
from ramshelf.system.filesystem import have_directory
from ramshelf.system.locks import open_locked, store_lock
from support.process import wait_until


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


def test_a_lock_whose_file_was_removed_counts_for_nobody_who_waited(tmp_path: Path) -> None:
    path = tmp_path / "made" / "lock"
    held = open_locked(path)
    got: list[int] = []
    waiting = threading.Thread(target=lambda: got.append(open_locked(path)))
    waiting.start()
    wait_until(lambda: _open_here(path) == 2, "the other one has opened it")
    path.unlink()
    path.parent.rmdir()
    os.close(held)
    waiting.join()
    assert os.path.samestat(os.fstat(got[0]), path.stat())
    with pytest.raises(BlockingIOError):
        open_locked(path, timeout=0)
    os.close(got[0])


def _open_here(path: Path) -> int:
    """Return how many descriptors of this process are of the file."""
    return [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()].count(str(path))


def test_a_directory_that_is_removed_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "made" / "lock"
    removals = [path.parent.rmdir]

    def have_directory_for_a_moment(directory: str, mode: int) -> None:
        have_directory(directory, mode)
        if removals:
            removals.pop()()

    monkeypatch.setattr(locks, "have_directory", have_directory_for_a_moment)
    os.close(open_locked(path))
    assert path.exists()
    assert removals == []


def test_nobody_else_can_lock_a_file_that_was_open_to_all(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch(mode=0o644)
    os.close(open_locked(path))
    assert path.stat().st_mode & 0o777 == 0o600
