"""What somebody puts in the place of a memory file is a file that is not there."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ramshelf.system.storetree import open_file


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    "plant",
    [Path.mkdir, lambda path: path.symlink_to("other"), bind, os.mkfifo, lambda _: None],
    ids=["directory", "link", "socket", "fifo", "nothing"],
)
@pytest.mark.parametrize("writable", [False, True], ids=["read", "write"])
def test_what_is_no_regular_file_is_not_found(
    tmp_path: Path, plant: Callable[[Path], object], *, writable: bool
) -> None:
    (tmp_path / "other").write_text("another's memory")
    plant(tmp_path / "pc.ram")
    parent = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(FileNotFoundError):
            open_file(parent, "pc.ram", writable=writable)
        with open_file(parent, "other", writable=writable):
            pass
    finally:
        os.close(parent)
