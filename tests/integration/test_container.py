"""libvirt in a container, as kolla runs it, and ramshelf on the host.

The container shares /run, libvirt's state and the host's processes; of the rest it has what
docs/how-to/use-nova-in-containers.md says. Its libvirt's configuration is its own.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.agent import agent
from support.cli import ramshelf
from support.domains import FILE_BACKED, domain_xml, qemu_pid, wait_console
from support.libvirtd import Libvirtd
from support.onstore import assert_reserved, capacity, wait_recorded
from support.process import wait_until
from support.stores import MEMORY, store

CONF = Path("/etc/ramshelf/ramshelf.conf")
HOOKS, COPY = "/etc/libvirt/hooks", "/usr/local/lib/ramshelf"
DISCARDED = f"{FILE_BACKED}<discard/>"


@contextmanager
def container(libvirtd: Libvirtd, tmp_path: Path, *volumes: str) -> Iterator[None]:
    """Run libvirt's daemon where /etc and /usr/local are the container's, but for the volumes."""
    etc = tmp_path / "etc"
    shutil.copytree("/etc/libvirt", etc, symlinks=True, ignore=shutil.ignore_patterns("hooks"))
    (etc / "hooks").mkdir()
    Path(COPY).mkdir(parents=True, exist_ok=True)
    script = ["mkdir -p /run/volumes", "mount -t tmpfs volumes /run/volumes"]
    for number, volume in enumerate(volumes):
        script += [f"mkdir /run/volumes/{number}", f"mount --bind {volume} /run/volumes/{number}"]
    script += [f"mount --bind {etc} /etc/libvirt", "mount -t tmpfs local /usr/local/lib"]
    for hidden in ("/etc/ramshelf", "/etc/nova"):
        script += [f"mkdir -p {hidden}", f"mount -t tmpfs hidden {hidden}"]
    for number, volume in enumerate(volumes):
        script += [f"mkdir -p {volume}", f"mount --bind /run/volumes/{number} {volume}"]
    with libvirtd.seeing(" && ".join(script)):
        yield


def test_the_hook_works_in_it(libvirtd: Libvirtd, tmp_path: Path) -> None:
    with store("ext4", 400), container(libvirtd, tmp_path, HOOKS, COPY):
        assert "calls it" in ramshelf("hook", "install").stdout
        libvirtd.create(domain_xml("guest", 128, memory_backing=DISCARDED))
        assert_reserved("guest", 128)
        wait_recorded("guest", "started")
        assert "[capacity.exceeded]" in libvirtd.create(domain_xml("large", 400), ok=(1,)).stderr
        pid = qemu_pid("guest")
        libvirtd.restart()
        assert libvirtd.virsh("domstate", "guest").stdout.strip() == "running"
        assert (qemu_pid("guest"), capacity()["promised_mib"]) == (pid, 128)
        wait_console("guest", "GUEST-UP")
        libvirtd.create(domain_xml("other", 64))
        libvirtd.virsh("destroy", "guest")
        wait_until(lambda: capacity()["promised_mib"] == 64, "its place is free")
        assert [path.name for path in MEMORY.glob("*-guest")] == []
        ramshelf("hook", "remove")


def test_the_agent_on_the_host_works_beside_it(libvirtd: Libvirtd, tmp_path: Path) -> None:
    with store("ext4", 400), container(libvirtd, tmp_path, HOOKS, COPY):
        ramshelf("hook", "install")
        with agent() as running:
            assert not [event for event in running.events() if event.startswith("began hook.")]
            libvirtd.create(domain_xml("guest", 64))
            running.wait_log("guest-started", guest="guest")
            pid = qemu_pid("guest")
            assert pid is not None
            libvirtd.kill()
            os.kill(pid, signal.SIGKILL)
            libvirtd.start()
            running.wait_log("guest-stopped", guest="guest")
            wait_until(lambda: not list(MEMORY.glob("*-guest")), "nothing is left of it")
        ramshelf("hook", "remove")


@pytest.mark.parametrize(
    ("volumes", "code"),
    [((COPY,), "hook.not-called"), ((HOOKS,), "hook.broken")],
    ids=["no-hooks", "no-copy"],
)
def test_what_it_lacks_is_said(
    libvirtd: Libvirtd, tmp_path: Path, volumes: tuple[str, ...], code: str
) -> None:
    with store("ext4", 400), container(libvirtd, tmp_path, *volumes):
        said = ramshelf("hook", "install", ok=(1,)).stderr
        assert f"[{code}]" in said
        assert "hint: " in said
        ramshelf("hook", "remove")


def test_a_hook_that_sees_no_store_and_no_configuration_says_so(
    libvirtd: Libvirtd, tmp_path: Path
) -> None:
    """The store is mounted when the container is there, and no volume has the configuration."""
    CONF.parent.mkdir(parents=True, exist_ok=True)
    CONF.write_text(
        "[ramshelf]\nhost_reserved_memory_mb = 300\n[libvirt]\nfile_backed_memory = 300\n"
    )
    with container(libvirtd, tmp_path, HOOKS, COPY), store("ext4", 400):
        said = ramshelf("hook", "install", ok=(1,)).stderr
        assert "[hook.other-view]" in said
        assert "it sees no store (store.not-mounted), and here is a disk store" in said
        assert "file_backed_memory is not set for it, and set here" in said
        assert "host_reserved_memory_mb is 1024 for it, and 300 here" in said
        assert ramshelf("hook", "status", ok=(1,)).stdout.count("and here is a disk store") == 1
        assert '"hook.other-view"' in ramshelf("doctor", "--json", ok=(2,)).stdout
        refused = libvirtd.create(domain_xml("guest", 64), ok=(1,)).stderr
        assert "[store.not-mounted]" in refused
        ramshelf("hook", "remove")
    CONF.unlink()
