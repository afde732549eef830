"""The documentation, typed literally: what an operator reads is what works."""

from collections.abc import Iterator

import pytest

from support.real_host import MEMORY, RealHost, guest_xml
from support.typed import Page

pytestmark = pytest.mark.soak

CONF = "/etc/ramshelf/ramshelf.conf"
WARNED = (0, 1)
"""A virtual machine is no host without warnings."""


@pytest.fixture(autouse=True)
def srv(machine: RealHost) -> Iterator[None]:
    """A file system at /srv that is large enough for the pages' sizes; nothing is left."""
    machine.run("mkfs.ext4 -q /dev/vdb && mount /dev/vdb /srv")
    yield
    machine.remove_guests()
    for noun in ("agent", "hook", "store"):
        machine.run(f"ramshelf {noun} remove")
    machine.run(f"umount /srv && wipefs --quiet --all /dev/vdb && rm -f {CONF}")


def test_the_tutorial(machine: RealHost) -> None:
    with Page(machine, "tutorial/first-guest.md") as page:
        assert "mkswap" in page.type("ramshelf store create").stdout
        assert not machine.holds("[ -e /srv/ramshelf.swap ]")
        page.type("ramshelf store create")
        page.type("ramshelf hook install")
        page.type("ramshelf doctor", WARNED)
        page.skip("apt-get install")  # the image has it
        for begin in ("mkdir", "cp", "head", "cat > /tmp/tutorial/init", "chmod", "cd", "cp"):
            page.type(begin)
        page.type("cat > /tmp/first.xml")
        machine.run("grep kvm /tmp/first.xml")
        page.type("ramshelf guest start /tmp/first.xml")
        page.type("until grep written")
        assert "first" in page.type("ramshelf guest list").stdout
        assert allocated(machine, "first") > 600 << 10
        page.type("ramshelf store show")
        assert machine.json("capacity")["promised_mib"] == 1024
        page.type("sed")
        assert "MiB" in page.type("ramshelf guest start /tmp/second.xml", (1,)).stderr
        assert "[capacity.exceeded]" in page.type("ramshelf xml apply", (1,)).stderr
        assert "dropped unwritten" in page.type("ramshelf guest stop").stdout
        page.type("ramshelf store show")
        page.type("virsh undefine")
        page.type("ramshelf hook remove")
        page.type("ramshelf store remove")
        page.type("rm -r /tmp/tutorial")
        page.type("rm /var/lib/libvirt/images")
    assert not machine.holds("[ -e /srv/ramshelf.swap ]")


def test_prepare_a_store(machine: RealHost) -> None:
    remove = "ramshelf store remove"
    with Page(machine, "how-to/prepare-a-store.md") as page:
        page.type("ramshelf store create --kind swap --device")
        machine.run(remove)
        page.type("ramshelf store create --kind swap --size")
        assert machine.json("capacity")["total_mib"] > 250 << 10
        machine.run(remove)
        page.type("ramshelf store create --kind disk --device")
        machine.run(remove)
        page.type("ramshelf store create --kind disk --fs xfs")
        machine.run(remove)
        page.type("ndctl")
        page.type("ramshelf store create --kind dax")
        machine.run(f"findmnt --noheadings --output OPTIONS {MEMORY} | grep -w dax=always")
        machine.run(remove)
        page.type("ramshelf store create --kind disk --size")
        page.type("ramshelf store show")
        page.type("ramshelf hook install")
        page.type("ramshelf doctor", WARNED)
        before = machine.json("capacity")["total_mib"]
        assert "resize2fs" in page.type("ramshelf store resize").stdout
        grow = page.take("ramshelf store resize")
        machine.run(grow)
        assert machine.json("capacity")["total_mib"] > before + (40 << 10)
        machine.run(remove)
        machine.run(
            "ramshelf store create --kind disk --fs xfs --size 256G --file /srv/ramshelf.img"
        )
        machine.run(grow)
        assert machine.json("capacity")["total_mib"] > 290 << 10


def test_use_virsh(machine: RealHost) -> None:
    machine.run("ramshelf store create --kind swap --device /dev/nvme1n1")
    machine.run("ramshelf hook install && qemu-img create -q -f qcow2 /srv/web.qcow2 1G")
    machine.run("virsh --quiet net-start default")
    with Page(machine, "how-to/use-virsh.md") as page:
        backing = page.take("<memoryBacking>").replace(" ", "").splitlines()
        page.type("virt-install")
        defined = machine.said("virsh dumpxml --inactive web").replace(" ", "")
        assert all(line in defined for line in backing)
        page.type("virsh start web")
        assert machine.json("capacity")["promised_mib"] == 4096
        page.type("virsh shutdown web")
        machine.run("virsh destroy web")  # with an empty disk there is nobody to obey
        page.type("virsh dumpxml")
        page.type("virsh start web")
        machine.run("sleep 20")  # until its firmware has found nothing to boot
        before = allocated(machine, "web")
        page.type("virsh dump")
        assert allocated(machine, "web") > before
        page.type("ramshelf guest trim web")
        assert allocated(machine, "web") <= before
    machine.run("virsh --quiet net-destroy default")


def allocated(machine: RealHost, guest: str) -> int:
    """Return the KiB of a guest's memory that are allocated on the store."""
    return int(machine.said(f"du --total {MEMORY}/*-{guest}/pc.ram | tail -n 1 | cut -f1"))


def test_run_the_agent(machine: RealHost) -> None:
    machine.run("ramshelf store create --kind disk --device /dev/nvme1n1 && ramshelf hook install")
    with Page(machine, "how-to/run-the-agent.md") as page:
        assert "[Service]" in page.type("ramshelf agent install --dry-run").stdout
        page.type("ramshelf agent install")
        assert "active (running)" in page.type("systemctl status").stdout
        assert '"started"' in page.type("journalctl -u ramshelf-agent").stdout
        page.type("systemd-analyze security")
        page.type("journalctl -u ramshelf-agent -p err")
        page.type("systemctl reload ramshelf-agent")
        machine.wait("curl -s localhost:10177/metrics | grep -q ramshelf_store", "it has looked")
        page.type("curl")
        foreground = page.take("ramshelf agent run")
        page.type("ramshelf agent remove")
        ended = machine.run(f"timeout --preserve-status --signal INT 60 {foreground}", (0, 130))
        assert '"stopped"' in ended.stderr


def test_after_a_power_loss(machine: RealHost) -> None:
    machine.run("ramshelf store create --kind disk --device /dev/nvme1n1")
    machine.run("ramshelf hook install && ramshelf agent install && umount /srv")
    gone = f"{MEMORY}/900-gone"
    machine.define(guest_xml("web1"))
    machine.run("virsh --quiet start web1")
    machine.power_cut()
    machine.wait_booted()
    machine.run("mount /dev/vdb /srv && systemctl stop ramshelf-agent")
    machine.run(f"mkdir {gone} && truncate -s 1M {gone}/pc.ram && chown -R libvirt-qemu: {gone}")
    with Page(machine, "how-to/after-a-power-loss.md") as page:
        assert gone in page.type("ramshelf store clean --dry-run").stdout
        page.type("ramshelf store clean")
        assert not machine.holds(f"[ -e {gone} ]")
        page.type("ramshelf store show")
        page.type("ramshelf doctor", WARNED)
        machine.run(f"umount {MEMORY}")
        page.type("systemctl --failed")
        assert "store.not-mounted" in page.type("ramshelf doctor", (2,)).stdout
        page.type("mount")
        page.skip("systemctl start nova-compute")  # there is none here
    machine.run("virsh --quiet start web1")


def test_bypass_the_hook(machine: RealHost) -> None:
    machine.run("ramshelf store create --kind ram --size 128M && ramshelf hook install")
    machine.define(guest_xml("web1"))
    assert "[capacity.exceeded]" in machine.run("virsh start web1", (1,)).stderr
    with Page(machine, "how-to/bypass-the-hook.md") as page:
        said = page.type("ramshelf hook bypass --for 30min").stdout
        assert page.take("The hook is bypassed") in said
        page.type("virsh start web1")
        said = page.type("ramshelf hook status").stdout
        page.skip("…", "bypassed")
        assert "guests that passed: 1" in said
        machine.run("virsh destroy web1")
        said = page.type("ramshelf hook bypass --end").stdout
        assert page.take("The hook is no longer bypassed") in said
    assert "[capacity.exceeded]" in machine.run("virsh start web1", (1,)).stderr


def test_use_nova_conf(machine: RealHost) -> None:
    machine.run("ramshelf store create --kind disk --device /dev/nvme1n1 && mkdir -p /etc/nova")
    machine.run("mkdir -p /etc/ramshelf")
    with Page(machine, "how-to/use-nova-conf.md") as page:
        for section in ("[DEFAULT]", "[libvirt]"):
            machine.run("cat >>/etc/nova/nova.conf", stdin=page.take(section) + "\n")
        assert "1048576" in page.type("ramshelf doctor", (1, 2)).stdout
        machine.run(f"cat >{CONF}", stdin=page.take("[ramshelf]") + "\n")
    machine.run("ramshelf doctor", (1, 2))
    machine.run("rm -r /etc/nova")
