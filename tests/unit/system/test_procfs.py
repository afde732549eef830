"""Swap counts where what goes there leaves RAM, by sysfs."""

import os
import pathlib

import pytest

from ramshelf.system.procfs import device_number, node_in_ram

DEVICES = {
    "zram0": (),
    "ram12": (),
    "nvme0n1": (),
    "rampart1": (),
    "dm-0": ("nvme0n1",),
    "dm-1": ("zram0",),
    "dm-2": ("nvme0n1", "dm-1"),
    "md127": ("nvme0n1", "dm-0"),
}
"""Block devices, and what each lies on."""


@pytest.fixture
def block(tmp_path: pathlib.Path) -> pathlib.Path:
    """Directories as in /sys/block: slaves/ with links, and the partitions of a disk in it."""
    for name in DEVICES:
        (tmp_path / name / "slaves").mkdir(parents=True)
    for name, below in DEVICES.items():
        for each in below:
            (tmp_path / name / "slaves" / each).symlink_to(tmp_path / each)
    for disk, partition in (("nvme0n1", "nvme0n1p3"), ("ram12", "ram12p1"), ("dm-1", "dm-1p1")):
        (tmp_path / disk / partition).mkdir()
        (tmp_path / disk / partition / "partition").write_text("1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("node", "in_ram"),
    [
        ("zram0", True),
        ("ram12", True),
        ("ram12/ram12p1", True),
        ("dm-1", True),
        ("dm-2", True),
        ("dm-1/dm-1p1", True),
        ("nvme0n1", False),
        ("nvme0n1/nvme0n1p3", False),
        ("dm-0", False),
        ("md127", False),
        ("rampart1", False),
        ("not-there", False),
    ],
)
def test_what_lies_on_ram_whatever_is_in_between(
    block: pathlib.Path,
    node: str,
    in_ram: bool,  # noqa: FBT001 - a column of the table
) -> None:
    (block / "by-number").symlink_to(block / node)
    assert node_in_ram(str(block / "by-number")) is in_ram


def test_a_loop_device_lies_where_its_file_does(tmp_path: pathlib.Path) -> None:
    (tmp_path / "loop0/loop").mkdir(parents=True)
    backing = tmp_path / "loop0/loop/backing_file"
    backing.write_text("/dev/shm/none (deleted)\n")
    assert not node_in_ram(str(tmp_path / "loop0"))
    backing.write_text("/dev/null\n")  # on a devtmpfs, or a tmpfs in a container
    assert node_in_ram(str(tmp_path / "loop0"))


def test_a_device_whose_path_is_not_seen_is_known_by_its_name(tmp_path: pathlib.Path) -> None:
    name = next(pathlib.Path("/sys/class/block").iterdir()).name
    number = device_number(f"/nowhere/{name}")
    assert (
        pathlib.Path("/sys/class/block") / name / "dev"
    ).read_text().strip() == f"{os.major(number)}:{os.minor(number)}"
    assert device_number(str(tmp_path)) == tmp_path.stat().st_dev
    with pytest.raises(FileNotFoundError):
        device_number(str(tmp_path / "none"))
