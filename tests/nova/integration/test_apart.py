"""A nova-compute that may do little, by an ordinary user in a container.

The container sees of libvirt only its socket.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import ramshelf
from support.domains import qemu_pid
from support.libvirtd import Libvirtd
from support.nova.cloud import Cloud, cloud, nova_user
from support.nova.conf import NOVA_CONF, Settings
from support.onstore import allocates_at_start, assert_reserved, capacity, memory_files
from support.process import wait_until
from support.stores import store

LIBVIRTD_CONF = Path("/etc/libvirt/libvirtd.conf")
AS_SHIPPED = 'unix_sock_group = "libvirt"\nunix_sock_rw_perms = "0770"\nauth_unix_rw = "none"\n'
"""Debian's and Ubuntu's: members of the group libvirt need no password."""

CONTAINER = """
for hidden in /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /run/ramshelf; do
  mkdir -p $hidden
  mount -t tmpfs hidden $hidden
done
exec "$@"
"""


STOCK, OURS = "libvirt.LibvirtDriver", "ramshelf.FileBackedLibvirtDriver"


@pytest.fixture(
    scope="module",
    params=[("user", STOCK), ("container", STOCK), ("container", OURS)],
    ids=["user-stock", "container-stock", "container-ours"],
)
def prepared(libvirtd: Libvirtd, request: pytest.FixtureRequest) -> Iterator[Cloud]:
    before = LIBVIRTD_CONF.read_text()
    LIBVIRTD_CONF.write_text(before + AS_SHIPPED)
    libvirtd.restart()
    where, driver = request.param
    wrapper = ("unshare", "--mount", "bash", "-ec", CONTAINER, "container")
    more: Settings = {"DEFAULT": {"compute_driver": driver}, "libvirt": {"file_backed_memory": 512}}
    with (
        store("xfs", 768),
        cloud(more, user=nova_user(), wrapper=wrapper if where == "container" else ()) as running,
    ):
        ramshelf("hook", "install")
        yield running
    LIBVIRTD_CONF.write_text(before)
    libvirtd.restart()


def test_it_needs_nothing_of_the_store_s(prepared: Cloud) -> None:
    """Boot, reboot, suspend and resume, resize and delete a server.

    libvirt and its hook do what touches the store.
    """
    server = prepared.boot()
    assert_reserved(server.domain, 128)
    # Without an answer from the hook, ramshelf's driver would do as Nova's own does.
    assert allocates_at_start(server.domain) == (
        f"compute_driver = {STOCK}" in NOVA_CONF.read_text()
    )
    pid = qemu_pid(server.domain)
    prepared.compute.act(server, "reboot", {"type": "HARD"})
    wait_until(lambda: qemu_pid(server.domain) not in {None, pid}, "it is rebooted")
    prepared.compute.wait(server, "ACTIVE")
    assert_reserved(server.domain, 128)
    prepared.compute.act(server, "suspend")
    prepared.compute.wait(server, "SUSPENDED")
    prepared.compute.act(server, "resume")
    prepared.compute.wait(server, "ACTIVE")
    assert_reserved(server.domain, 128)
    prepared.compute.act(server, "resize", {"flavorRef": prepared.compute.flavor(160)})
    prepared.compute.wait(server, "VERIFY_RESIZE")
    prepared.compute.act(server, "confirmResize")
    prepared.compute.wait(server, "ACTIVE")
    assert_reserved(server.domain, 160)
    prepared.clear()
    assert memory_files() == []
    assert capacity()["promised_mib"] == 0
