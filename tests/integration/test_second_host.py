"""The second host itself: it is apart, it can be harmed, and it leaves nothing behind."""

import pytest

from support.devices import loops
from support.domains import domain_xml
from support.libvirtd import Libvirtd
from support.process import run, wait_until
from support.second_host import SecondHost, second_host
from support.stores import MEMORY


@pytest.mark.parametrize("file_system", ["xfs", "swap"])
def test_it_is_apart(libvirtd: Libvirtd, file_system: str) -> None:
    with second_host(file_system, 320) as second:
        fstype = "tmpfs" if file_system == "swap" else file_system
        assert second.shell(f"findmnt -no FSTYPE {MEMORY}").strip() == fstype
        assert not MEMORY.is_mount()
        second.run("virsh", "create", "/dev/stdin", stdin=domain_xml("guest"))
        assert second.memory_mib("guest")[0] == 128
        assert libvirtd.virsh("list", "--name").stdout.split() == []
        second.wait_console("guest", "GUEST-UP")
        second.kill_libvirtd()
        second.start_libvirtd()
        assert second.guests() == ["guest"]
        second.kill_qemu("guest")
        wait_until(lambda: second.guests() == [], "libvirt has seen the guest's end")
        second.shell(f"fallocate -l 100M {MEMORY}/filling; umount --lazy {MEMORY}")
        second.kill_libvirtd()
    assert (loops(), MEMORY.is_mount()) == ({}, False)


def test_its_network_can_be_cut(libvirtd: Libvirtd) -> None:  # noqa: ARG001 - resets the host
    def reaches(second: SecondHost) -> bool:
        ended = run("timeout", "5", "virsh", "--connect", second.tcp_uri, "list", ok=(0, 1, 124))
        return ended.status == 0

    with second_host() as second:
        assert reaches(second)
        with second.cut_off():
            assert not reaches(second)
            assert second.guests() == []
        wait_until(lambda: reaches(second), "it is reached again")
