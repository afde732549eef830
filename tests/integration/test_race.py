"""Twenty guests want the place of five at the same time."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from support.cli import ramshelf
from support.domains import domain_xml
from support.libvirtd import Libvirtd
from support.stores import MEMORY, store

GUEST_MIB = 64


@pytest.mark.parametrize(
    ("file_system", "store_mib"), [("tmpfs", 5 * GUEST_MIB + 60), ("ext4", 400), ("xfs", 440)]
)
def test_exactly_as_many_start_as_fit(libvirtd: Libvirtd, file_system: str, store_mib: int) -> None:
    ramshelf("hook", "install")
    with store(file_system, store_mib), ThreadPoolExecutor(20) as pool:
        ended = list(
            pool.map(
                lambda number: libvirtd.create(
                    domain_xml(f"guest{number:02}", GUEST_MIB), ok=(0, 1)
                ),
                range(20),
            )
        )
        assert [run.status for run in ended].count(0) == 5
        assert all("[capacity.exceeded]" in run.stderr for run in ended if run.status)
        running = libvirtd.virsh("list", "--name").stdout.split()
        assert len(running) == 5
        left = [path for path in MEMORY.iterdir() if path.name != "lost+found"]
        assert sorted(path.name.partition("-")[2] for path in left) == sorted(running)
        assert {
            file.name: file.stat().st_size >> 20 for path in left for file in path.iterdir()
        } == {"pc.ram": GUEST_MIB}
