"""The test environment: real guests on libvirt's own memory files, isolated from the machine."""

from pathlib import Path

from support.devices import loop_device
from support.domains import console, domain_xml, qemu_pid, wait_console
from support.libvirtd import Libvirtd
from support.process import run, wait_until


def test_guest_reports_and_dirties_its_memory(libvirtd: Libvirtd) -> None:
    libvirtd.create(domain_xml("fill", 128, dirty_mib=40))
    wait_console("fill", "DIRTIED 40")
    [memory] = Path("/var/lib/libvirt/qemu/ram").glob("*/pc.ram")
    status = memory.stat()
    assert status.st_size == 128 << 20
    assert 40 << 20 < status.st_blocks * 512 < 128 << 20
    assert memory.owner() == Path("/var/lib/libvirt/qemu").owner() != "root"


def test_guest_obeys_the_power_button(libvirtd: Libvirtd) -> None:
    libvirtd.create(domain_xml("button"))
    wait_console("button", "GUEST-UP")
    libvirtd.virsh("shutdown", "button")
    wait_until(lambda: qemu_pid("button") is None, "it is off")


def test_guest_rewrites_in_rounds_and_survives_a_restart_of_libvirtd(libvirtd: Libvirtd) -> None:
    libvirtd.create(domain_xml("busy", dirty_mib=8, options="ramshelf.rewrite"))
    wait_console("busy", "ROUND 1")
    pid = qemu_pid("busy")
    libvirtd.kill()
    libvirtd.start()
    assert qemu_pid("busy") == pid is not None
    wait_console("busy", f"ROUND {console('busy').count('ROUND') + 1}")


def test_machine_is_hidden_and_spared(libvirtd: Libvirtd) -> None:
    assert libvirtd.virsh("list", "--all", "--name").stdout.split() == []
    Path("/proc/sys/vm/swappiness").write_text("123\n")
    assert Path("/proc/sys/vm/swappiness").read_text() == "123\n"
    assert run("findmnt", "--verify").status == 0


def test_loop_device_is_fully_allocated(
    host: None,  # noqa: ARG001 - asserts that none is left
) -> None:
    with loop_device(16) as device:
        assert run("blockdev", "--getsize64", device).stdout.strip() == str(16 << 20)
        back = Path(run("losetup", "--noheadings", "--output", "BACK-FILE", device).stdout.strip())
        assert back.stat().st_blocks * 512 >= 16 << 20
