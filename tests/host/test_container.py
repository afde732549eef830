"""libvirt in a container of podman's on a whole host, as kolla-ansible runs it.

The container has the volumes and options that kolla-ansible's role nova-cell gives to nova_libvirt,
what its image starts, and the volumes of docs/how-to/use-nova-in-containers.md. There is no network
to fetch kolla's image from: the root file system is the host's own below an overlay, in which
/etc/libvirt, users, fstab, /usr/local and /opt are the container's.
"""

import re
import shlex
from collections.abc import Iterator

import pytest

from support.real_host import CHECKOUT, MEMORY, RealHost, guest_xml

pytestmark = pytest.mark.soak

GUIDE = CHECKOUT / "docs/how-to/use-nova-in-containers.md"
NAME = "nova_libvirt"
ROOT = "/srv/nova_libvirt/root"
NOVA = 42436
"""The uid of kolla's user nova, which runs QEMU and which the host does not know."""
UNITS = "libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service"
UNITS += " virtlogd.socket virtlogd-admin.socket virtlogd.service"
PROFILE = "/etc/apparmor.d/usr.sbin.libvirtd"

IMAGE = f"""
set -e
mkdir -p {ROOT[:-5]}
mount -t tmpfs -o mode=755 image {ROOT[:-5]}
cd {ROOT[:-5]}
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work {NAME} root
cd root
rm -rf opt/ramshelf usr/local/lib/ramshelf usr/local/bin/ramshelf root/project
rm -rf etc/ramshelf etc/libvirt/hooks etc/libvirt/qemu/*
echo '# UNCONFIGURED FSTAB FOR BASE SYSTEM' >etc/fstab
echo nova:x:{NOVA}:{NOVA}::/var/lib/nova:/usr/sbin/nologin >>etc/passwd
echo nova:x:{NOVA}: >>etc/group
sed -i 's/^kvm:.*/&nova/' etc/group
printf 'stdio_handler = "logd"\\nuser = "nova"\\ngroup = "nova"\\n' >etc/libvirt/qemu.conf
printf 'listen_tcp = 1\\nlisten_tls = 0\\nauth_tcp = "none"\\nlisten_addr = "127.0.0.1"\\n' \
  >etc/libvirt/libvirtd.conf
printf '#!/bin/bash\\n/usr/sbin/virtlogd &\\nexec /usr/sbin/libvirtd --listen\\n' \
  >usr/local/bin/kolla_nova_libvirt_start
chmod 755 usr/local/bin/kolla_nova_libvirt_start
"""

KOLLAS = f"""podman run --detach --name {NAME}
--privileged --network host --pid host --cgroupns host --ulimit memlock=67108864:67108864
--mount type=devpts,destination=/dev/pts
--volume /lib/modules:/lib/modules:ro --volume /run:/run --volume /run/libvirt:/run/libvirt:shared
--volume /dev:/dev --volume /sys/fs/cgroup:/sys/fs/cgroup
--volume kolla_logs:/var/log/kolla --volume libvirtd:/var/lib/libvirt
--volume nova_compute:/var/lib/nova --volume nova_libvirt_qemu:/etc/libvirt/qemu"""


def volumes() -> tuple[str, ...]:
    """The volumes that the guide adds to kolla's."""
    listed = GUIDE.read_text().partition("nova_libvirt_extra_volumes:\n")[2].partition("```")[0]
    return tuple(re.findall(r'"(.+?)"', listed))


def contain(machine: RealHost, *given: str) -> None:
    """Start libvirt in a new container with these volumes beside kolla's, and wait for it."""
    machine.run(f"podman rm --force --ignore {NAME} && mkdir -p /run/libvirt")
    for volume in given:
        machine.run(f"mkdir -p {volume.partition(':')[0]}")
    added = " ".join(f"--volume {shlex.quote(volume)}" for volume in given)
    command = "/usr/local/bin/kolla_nova_libvirt_start"
    machine.run(f"{' '.join(KOLLAS.split())} {added} --rootfs {ROOT} {command}")
    wait_libvirt(machine)


def wait_libvirt(machine: RealHost) -> None:
    """Wait until the container's libvirt answers."""
    machine.wait("virsh --quiet list", "libvirt answers")


def start(machine: RealHost, name: str, memory_mib: int = 192, ok: tuple[int, ...] = (0,)) -> str:
    """Start a transient guest; return what libvirt has to say."""
    xml = guest_xml(name, memory_mib)
    return machine.run("virsh --quiet create /dev/stdin", ok=ok, stdin=xml).stderr


def promised(machine: RealHost) -> int:
    """Return how much guest memory the store has promised, in MiB."""
    return int(machine.json("capacity")["promised_mib"])


@pytest.fixture(scope="module", autouse=True)
def image(machine: RealHost) -> Iterator[None]:
    """The host has no libvirt of its own any more; kolla's bootstrap takes its profile away."""
    machine.run(f"systemctl stop {UNITS}; systemctl mask --now {UNITS}")
    machine.run(f"apparmor_parser --remove {PROFILE}")
    machine.run(
        f"cp -a /etc/libvirt/qemu.conf /root/ && echo 'user = \"+{NOVA}\"' >/etc/libvirt/qemu.conf"
    )
    machine.run(IMAGE)
    machine.run("mkdir -p /etc/ramshelf")
    machine.run("ramshelf store create --kind disk --fs ext4 --device /dev/vdb --size 1G")
    yield
    machine.run(f"podman rm --force --ignore {NAME} && podman volume prune --force")
    machine.run(f"umount {ROOT} && umount {ROOT[:-5]}")
    for noun in ("hook", "store"):
        machine.run(f"ramshelf {noun} remove")
    machine.run("mv /root/qemu.conf /etc/libvirt/")
    machine.run(f"apparmor_parser --replace {PROFILE} && systemctl unmask {UNITS}")
    machine.run("systemctl start libvirtd.socket")


@pytest.fixture
def contained(machine: RealHost) -> Iterator[None]:
    """libvirt in a container that has all that the guide says, and the hook."""
    contain(machine, *volumes())
    machine.run("ramshelf hook install")
    yield
    for guest in machine.said("virsh list --name").split():
        machine.run(f"virsh --quiet destroy {guest}")
    machine.run("ramshelf hook remove")


@pytest.mark.usefixtures("contained")
def test_guests_are_reserved_refused_and_live_through_its_restart(machine: RealHost) -> None:
    start(machine, "guest")
    assert machine.said(f"stat --format '%s %u' {MEMORY}/*-guest/pc.ram") == f"{192 << 20} {NOVA}"
    assert "[capacity.exceeded]" in start(machine, "large", 1200, ok=(1,))
    pid = machine.said("cat /run/libvirt/qemu/guest.pid")
    assert "machine-qemu" in machine.said(f"cat /proc/{pid}/cgroup")
    machine.run(f"podman restart {NAME}")
    wait_libvirt(machine)
    assert machine.said("virsh domstate guest") == "running"
    assert machine.said("cat /run/libvirt/qemu/guest.pid") == pid
    assert promised(machine) == 192
    assert "hook." not in " ".join(machine.findings())
    start(machine, "other")
    assert promised(machine) == 384
    machine.run("virsh --quiet destroy guest")
    machine.wait(f"! ls {MEMORY} | grep -e -guest", "nothing is left of it")
    assert promised(machine) == 192


@pytest.mark.usefixtures("contained")
def test_the_agent_on_the_host_sees_its_guests(machine: RealHost) -> None:
    machine.run("ramshelf agent install")
    sees_guests(machine, "journalctl -u ramshelf-agent -o cat")
    machine.run("ramshelf agent remove")


@pytest.mark.usefixtures("contained")
def test_an_agent_in_a_container_of_its_own_sees_them(machine: RealHost) -> None:
    guide = GUIDE.read_text().partition("### The agent in a container")[2]
    [command] = re.findall(r"    (podman run(?:.+\\\n)+.+)\n", guide)
    machine.run(command.replace("IMAGE", f"--rootfs {ROOT}"))
    sees_guests(machine, "podman logs ramshelf_agent 2>&1")
    machine.run("podman rm --force ramshelf_agent")


def sees_guests(machine: RealHost, log: str) -> None:
    """Wait until the agent, whose log that command shows, has seen one start and end."""
    start(machine, "seen")
    machine.wait(f"{log} | grep 'guest-started.*seen'", "the agent logs it")
    machine.run("kill -KILL $(cat /run/libvirt/qemu/seen.pid)")
    machine.wait(f"{log} | grep 'guest-stopped.*seen'", "the agent logs its end")
    machine.wait(f"! ls {MEMORY} | grep -e -seen", "nothing is left of it")
    assert '"hook.' not in machine.said(f"{log} | grep began || :")


@pytest.mark.parametrize(
    ("lacking", "code"),
    [
        ("/etc/libvirt/hooks", "hook.not-called"),
        ("/usr/local/lib/ramshelf", "hook.broken"),
        (MEMORY, "hook.other-view"),
        ("/etc/ramshelf", "hook.other-view"),
    ],
)
def test_a_volume_that_it_lacks_is_missed(machine: RealHost, lacking: str, code: str) -> None:
    machine.run(
        "printf '[ramshelf]\\nhost_reserved_memory_mb = 700\\n' >/etc/ramshelf/ramshelf.conf"
    )
    contain(machine, *(each for each in volumes() if not each.startswith(f"{lacking}:")))
    assert f"[{code}]" in machine.run("ramshelf hook install", ok=(1,)).stderr
    found = machine.findings()
    assert {"hook.unseen", "hook.broken", "hook.other-view"} & found.keys()
    if lacking == MEMORY:
        assert "[store.not-mounted]" in start(machine, "refused", ok=(1,))
    machine.run("ramshelf hook remove; rm /etc/ramshelf/ramshelf.conf")


def test_without_python_in_it_guests_are_refused(machine: RealHost) -> None:
    contain(machine, *volumes())
    machine.run(f"podman exec {NAME} mv /usr/bin/python3 /usr/bin/python3.away")
    assert "[hook.no-python]" in machine.run("ramshelf hook install", ok=(1,)).stderr
    assert "[hook.broken]" in start(machine, "refused", ok=(1,))
    machine.run(f"podman exec {NAME} mv /usr/bin/python3.away /usr/bin/python3")
    assert "calls it" in machine.said("ramshelf hook install")
    machine.run("ramshelf hook remove")


@pytest.mark.parametrize("mode", ["shared", "private"])
def test_a_store_that_is_mounted_later_is_seen_where_it_is_shared(
    machine: RealHost, mode: str
) -> None:
    machine.run(f"umount {MEMORY}")
    kept = tuple(each for each in volumes() if not each.startswith(f"{MEMORY}:"))
    contain(machine, *kept, f"{MEMORY}:{MEMORY}:{mode}")
    machine.run(f"mount {MEMORY}")
    if mode == "shared":
        machine.run("ramshelf hook install")
        start(machine, "guest")
        assert promised(machine) == 192
        machine.run("virsh --quiet destroy guest")
    else:
        assert "[hook.other-view]" in machine.run("ramshelf hook install", ok=(1,)).stderr
        assert "[store.not-mounted]" in start(machine, "guest", ok=(1,))
    machine.run("ramshelf hook remove")
