"""A disk store whose device fails: guests whose memory the kernel could not write are named."""

import fcntl
import json
import mmap
import os
import random
import struct
from contextlib import closing, suppress
from pathlib import Path

import pytest

from support.agent import agent
from support.cli import RAMSHELF, ramshelf
from support.devices import failing_device
from support.domains import domain_xml
from support.libvirtd import Libvirtd
from support.process import run
from support.stores import MEMORY, store

GOINGDOWN, NO_LOG_FLUSH = 0x8004587D, 2
"""XFS_IOC_GOINGDOWN, which ext4 has too (EXT4_IOC_SHUTDOWN)."""

CODES = {"store.write-errors", "store.write-errors-unknown", "store.memory-lost"}


@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
def test_memory_that_could_not_be_written_is_told_with_its_guest(
    libvirtd: Libvirtd, file_system: str
) -> None:
    ramshelf("hook", "install")
    with failing_device(400) as failing, store(file_system, 400, device=failing.device):
        libvirtd.create(domain_xml("lost", 64))
        libvirtd.create(domain_xml("sound", 64))
        with agent() as running:
            memory = memory_of("lost")
            failing.fail(memory)
            write_back(memory)
            write_back(memory_of("sound"))
            line = running.wait_log("began", code="store.write-errors")
            assert f"guests' memory to the store ({failing.device})" in line["message"]
            running.wait_log("began", code="store.memory-lost", subject="lost")
            running.wait_metric("ramshelf_store_write_errors_total", lambda value: value > 0)
            assert found() == [("store.memory-lost", "lost"), ("store.write-errors", None)]
            libvirtd.virsh("destroy", "lost")
            libvirtd.create(domain_xml("lost", 64))  # on ext4 with the inodes of the one before
            assert found() == [("store.write-errors", None)]
            running.wait_log("ended", code="store.memory-lost")
            for name in ("lost", "sound"):
                libvirtd.virsh("destroy", name)
            run("umount", str(MEMORY))
            run("mount", str(MEMORY))
            running.wait_log("ended", code="store.write-errors")
        assert found() == []


def test_pages_for_which_ext4_finds_no_room_are_told_with_their_guest(libvirtd: Libvirtd) -> None:
    """The device is sound, and nobody who opens and syncs the file is told: only the log tells."""
    ramshelf("hook", "install")
    with store("ext4", 320):
        device = Path(
            run("findmnt", "--noheadings", "--output", "SOURCE", str(MEMORY)).stdout.strip()
        )
        Path(f"/sys/fs/ext4/{device.name}/reserved_clusters").write_text("0")
        libvirtd.create(domain_xml("lost", 192))
        libvirtd.virsh("suspend", "lost")
        assert found() == []
        with (MEMORY / "stranger").open("wb", buffering=0) as stranger:
            with suppress(OSError):
                while stranger.write(bytes(mmap.PAGESIZE)):
                    pass
            os.fsync(stranger.fileno())
        with memory_of("lost").open("r+b") as file, closing(mmap.mmap(file.fileno(), 0)) as mapped:
            mapped.madvise(mmap.MADV_RANDOM)  # reading around would have whole folios written
            pages = list(range(0, len(mapped) // mmap.PAGESIZE, 2))
            random.Random(1).shuffle(pages)  # noqa: S311 - the same order each time
            for page in pages:
                mapped[page * mmap.PAGESIZE] = 1
            with suppress(OSError):
                mapped.flush()
        assert found() == [("store.memory-lost", "lost"), ("store.write-errors", None)]


@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
def test_a_store_that_has_shut_down_is_told_though_it_cannot_be_looked_at(
    libvirtd: Libvirtd, file_system: str
) -> None:
    libvirtd.restart()
    with store(file_system, 320):
        with agent() as running:
            directory = os.open(MEMORY, os.O_RDONLY)
            try:
                fcntl.ioctl(directory, GOINGDOWN, struct.pack("I", NO_LOG_FLUSH))
            finally:
                os.close(directory)
            running.wait_log("began", code="store.write-errors")
        assert found() == [("store.write-errors", None)]


def test_without_the_kernels_log_failed_writes_are_called_unknown(libvirtd: Libvirtd) -> None:
    with store("ext4", 320):
        libvirtd.restart()
        masked = 'mount --bind /dev/null /dev/kmsg && exec "$0" doctor --json'
        doctor = run("unshare", "--mount", "sh", "-c", masked, RAMSHELF, ok=(1, 2))
        [told] = [each for each in json.loads(doctor.stdout)["findings"] if each["code"] in CODES]
        assert (told["code"], told["severity"]) == ("store.write-errors-unknown", "info")
        assert "/dev/kmsg: no such device" in told["message"]


def memory_of(name: str) -> Path:
    """The memory file of a guest that runs."""
    [directory] = MEMORY.glob(f"*-{name}")
    return directory / "pc.ram"


def write_back(memory: Path) -> None:
    """Write to the memory's last page, as the guest may, and have the kernel write it to disk."""
    with memory.open("r+b") as file, closing(mmap.mmap(file.fileno(), 0)) as mapped:
        mapped[-mmap.PAGESIZE :] = b"ramshelf" * (mmap.PAGESIZE // 8)
        if memory == memory_of("lost"):
            with pytest.raises(OSError, match="No space left on device"):
                os.fsync(file.fileno())
        else:
            os.fsync(file.fileno())


def found() -> list[tuple[str, str | None]]:
    """What the doctor finds of writes that failed: the codes, and the guests."""
    findings = json.loads(ramshelf("doctor", "--json", ok=(1, 2)).stdout)["findings"]
    return sorted(
        (each["code"], each["facts"].get("guest")) for each in findings if each["code"] in CODES
    )
