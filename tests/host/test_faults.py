"""What sleeps, hangs or is missing on a real host: libvirt, a store's device; on device mapper."""

from collections.abc import Iterator

import pytest

from support.real_host import MEMORY, RealHost, guest_xml

MAPPED = "/dev/mapper/mapped"
MAP = """
sectors=$(blockdev --getsz /dev/vdb)
dmsetup create mapped --table "0 $((sectors - 2048)) linear /dev/vdb 2048"
"""
SYSTEMD = "/etc/systemd/system.conf.d"
PARTITION = r"""
import struct
with open("/var/tmp/disk", "r+b") as disk:
    disk.seek(446)
    disk.write(struct.pack("<4xBxxxII", 0x83, 2048, 65536))
    disk.seek(510)
    disk.write(b"\x55\xaa")
"""
FIND = """
import sys
from ramshelf.core.record import replace
from ramshelf.system.blockdevice import find_by_uuid
from ramshelf.system.run import run

def reversed_(*argv, **how):
    ended = run(*argv, **how)
    return replace(ended, stdout=" ".join(reversed(ended.stdout.split())))

print(find_by_uuid(sys.argv[1], run), find_by_uuid(sys.argv[1], reversed_))
"""


@pytest.fixture(scope="module", autouse=True)
def store(machine: RealHost) -> Iterator[None]:
    """A disk store on a device of the device mapper, with hook and agent."""
    machine.run(MAP)
    machine.run(f"ramshelf store create --kind disk --fs ext4 --device {MAPPED} --size 1G")
    machine.run("ramshelf hook install && ramshelf agent install")
    yield
    for noun in ("agent", "hook", "store"):
        machine.run(f"ramshelf {noun} remove")
    machine.run("dmsetup remove mapped")


def test_a_volume_over_a_virtual_disk_is_neither_rotating_nor_thin(machine: RealHost) -> None:
    assert not {"store.rotational", "store.thin", "store.thin-unknown"} & machine.findings().keys()
    machine.wait("curl -sf 127.0.0.1:10177/metrics | grep -q 'ramshelf_store'", "the agent serves")
    assert "store.thin" not in machine.said("journalctl -u ramshelf-agent -o cat")


def test_what_lies_on_top_is_found_by_its_uuid(machine: RealHost) -> None:
    """A partition of a disk behind multipath: the kernel shows the one of the path, too."""
    machine.run("truncate -s 64M /var/tmp/disk && python3 -", stdin=PARTITION)
    machine.run(
        "losetup -P /dev/loop7 /var/tmp/disk && udevadm settle && mkfs.ext4 -q /dev/loop7p1 && "
        "dmsetup create path --table '0 131072 linear /dev/loop7 0' && "
        "dmsetup create top --table '0 65536 linear /dev/mapper/path 2048' && udevadm settle"
    )
    try:
        uuid = machine.said("blkid -s UUID -o value /dev/mapper/top")
        shown = machine.said(f"blkid --cache-file /dev/null -t UUID={uuid} -o device").split()
        assert set(shown) == {"/dev/loop7p1", "/dev/mapper/top"}
        found = machine.run(f"/opt/ramshelf/bin/python - {uuid}", stdin=FIND).stdout
        assert found.split() == ["/dev/mapper/top"] * 2
    finally:
        machine.run("dmsetup remove top path; losetup -d /dev/loop7; rm /var/tmp/disk")


def test_the_hook_is_installed_while_libvirt_sleeps(machine: RealHost) -> None:
    """Its socket wakes it; it read which hooks there are before this one was there."""
    machine.run("ramshelf hook remove && systemctl stop libvirtd.service")
    assert machine.said("systemctl is-active libvirtd.socket") == "active"
    assert "calls it" in machine.said("ramshelf hook install")
    machine.define(guest_xml("first"))
    machine.run("virsh --quiet start first")
    assert machine.json("capacity")["promised_mib"] == 192
    machine.run("virsh --quiet destroy first && virsh --quiet undefine first")


def test_the_doctor_answers_while_the_device_hangs(machine: RealHost) -> None:
    """Over ssh it has answered once nobody is left who could write; the metrics are served."""
    machine.run("dmsetup suspend mapped && dmsetup resume mapped")  # ext4 empties its journal
    machine.run("dmsetup suspend --nolockfs mapped && echo 3 >/proc/sys/vm/drop_caches")
    try:
        found = machine.findings()
        machine.run("curl -sf 127.0.0.1:10177/metrics")
    finally:
        machine.run("dmsetup resume mapped")
    assert "does not answer" in found["store.mount-unknown"]["message"]


def test_the_doctor_answers_while_libvirt_hangs(machine: RealHost) -> None:
    machine.run("virsh --quiet list")  # so that it runs
    machine.run("pkill -STOP -x libvirtd")
    try:
        found = machine.findings()
    finally:
        machine.run("pkill -CONT -x libvirtd")
    assert "did not answer" in found["versions.libvirt-unreachable"]["message"]


def test_without_the_store_s_device_a_boot_ends_and_other_guests_start(machine: RealHost) -> None:
    """Nobody maps the device at this boot."""
    machine.define(guest_xml("plain", memory_backing=""))
    machine.define(guest_xml("on-store"))
    machine.run("virsh --quiet autostart plain && virsh --quiet autostart on-store")
    machine.run(
        f"mkdir -p {SYSTEMD} && cat >{SYSTEMD}/test.conf",
        stdin="[Manager]\nDefaultDeviceTimeoutSec=40s\n",  # systemd itself waits for 90 s
    )
    machine.reboot()
    machine.run(f"rm {SYSTEMD}/test.conf")
    assert machine.wait_booted() in {"running", "degraded"}
    machine.run("systemctl is-active ramshelf-agent libvirtd.socket")
    machine.wait("virsh domstate plain | grep -q running", "plain runs")
    assert "[store.not-mounted]" in machine.run("virsh start on-store", ok=(1,)).stderr
    assert "store.not-mounted" in machine.findings()
    machine.wait("journalctl -b -u ramshelf-agent | grep -q store.not-mounted", "the agent says so")
    machine.run(f"{MAP} mount {MEMORY} && virsh start on-store")
    machine.remove_guests()
