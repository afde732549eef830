"""What goes wrong while a guest moves by virsh: one guest runs on, and no host promises it twice.

The guest leaves a store of kind ext4 for one of tmpfs. What libvirt itself leaves is told by each
test; the agent's next look, or ``ramshelf store clean``, leaves nothing of it.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.cli import RAMSHELF
from support.domains import console, domain_xml, last_words
from support.libvirtd import Libvirtd
from support.moving import (
    Moving,
    check_said,
    directories_here,
    goes_on_here,
    goes_on_there,
    guests_here,
    hold,
    let_go,
    migrate,
    moving,
    promised_here,
    start,
)
from support.process import run, wait_until
from support.second_host import SecondHost, second_host
from support.stores import MEMORY, store

GUEST_MIB = 160
ROOM_MIB = 320


@contextmanager
def two_hosts(libvirtd: Libvirtd, there: str = "tmpfs") -> Iterator[SecondHost]:
    """A guest runs here, and there is the second host."""
    with store("ext4", ROOM_MIB), second_host(there, ROOM_MIB) as second:
        start(libvirtd, GUEST_MIB)
        yield second


@contextmanager
def midway(libvirtd: Libvirtd, second: SecondHost) -> Iterator[Moving]:
    """The guest is on its way."""
    with moving(libvirtd, second.uri, second.migrate_uri) as one:
        assert second.capacity()["promised_mib"] == promised_here() == GUEST_MIB
        yield one


def stayed(libvirtd: Libvirtd, second: SecondHost) -> None:
    """The guest runs here as before, and nothing of it is left there."""
    assert guests_here(libvirtd) == ["guest"]
    wait_until(lambda: second.guests() == [], "nothing runs there")
    assert libvirtd.virsh("domstate", "guest").stdout.strip() == "running"
    goes_on_here()
    check_said(console("guest"))
    assert promised_here() == GUEST_MIB
    second.run(RAMSHELF, "store", "clean")
    assert (second.directories(), second.capacity()["promised_mib"]) == ([], 0)


def went(libvirtd: Libvirtd, second: SecondHost) -> None:
    """The guest goes on there, also if it was held, and nothing of it is left here."""
    assert (guests_here(libvirtd), second.guests()) == ([], ["guest"])
    before = last_words("guest")
    let_go(second)
    goes_on_there(second)
    check_said(before, second.console("guest"))
    assert (directories_here(), promised_here()) == ([], 0)
    assert second.capacity()["promised_mib"] == GUEST_MIB


def test_a_store_that_is_full(hooked: Libvirtd) -> None:
    with two_hosts(hooked) as second:
        second.run("virsh", "create", "/dev/stdin", stdin=domain_xml("other", 200))
        assert "[capacity.exceeded]" in migrate(hooked, second, ok=(1,))
        second.virsh("destroy", "other")
        stayed(hooked, second)


def test_a_store_that_is_not_mounted(hooked: Libvirtd) -> None:
    """Without the hook the guest would come to lie on the root file system."""
    with two_hosts(hooked) as second:
        second.run("umount", str(MEMORY))
        assert "[store.not-mounted]" in migrate(hooked, second, ok=(1,))
        second.run("mount", str(MEMORY))
        stayed(hooked, second)


@pytest.mark.parametrize("there", [pytest.param("xfs", marks=pytest.mark.soak), "tmpfs"])
def test_a_store_that_somebody_fills_meanwhile(hooked: Libvirtd, there: str) -> None:
    """On a disk the extents are the guest's; on a tmpfs QEMU is killed, and the guest stays here.

    In the case of the tmpfs it runs all the time; in the other it moves suspended with QEMU before
    9.0.
    """
    with two_hosts(hooked, there) as second:
        if there == "xfs":
            hold(hooked)
        with midway(hooked, second) as one:
            second.shell(f"cat /dev/zero > {MEMORY}/filling || :")
            one.hurry()
            assert one.ended() == (0 if there == "xfs" else 1)
        second.shell(f"rm {MEMORY}/filling")
        (went if there == "xfs" else stayed)(hooked, second)


def test_a_libvirtd_that_dies_there(hooked: Libvirtd) -> None:
    """QEMU there waits for a libvirtd that knows it; the one that comes back ends it."""
    with two_hosts(hooked) as second:
        with midway(hooked, second) as one:
            second.kill_libvirtd()
            one.hurry()
            assert one.ended() == 1
            goes_on_here()
            assert len(second.directories()) == 1
            second.start_libvirtd()
        stayed(hooked, second)


@pytest.fixture
def impatient() -> Iterator[None]:
    """Let TCP and libvirtd give up a connection after seconds.

    Usually TCP does so after minutes, and libvirtd after half of one.
    """
    before = _RETRIES.read_text()
    _RETRIES.write_text("3")
    yield
    _RETRIES.write_text(before)


_RETRIES = Path("/proc/sys/net/ipv4/tcp_retries2")


def test_a_network_that_is_cut(hooked: Libvirtd, impatient: None) -> None:  # noqa: ARG001
    with two_hosts(hooked) as second:
        with moving(hooked, second.tcp_uri, second.tcp_migrate_uri) as one, second.cut_off():
            assert one.ended() == 1, one.said
            goes_on_here()
            wait_until(lambda: second.guests() == [], "libvirtd there gives it up")
        stayed(hooked, second)


def test_a_qemu_that_dies_at_the_switch_over(hooked: Libvirtd) -> None:
    """The libvirtd here is held, so that QEMU waits for its word with the guest stopped."""
    with two_hosts(hooked) as second:
        with midway(hooked, second) as one:
            hooked.virsh("migrate-setspeed", "guest", "64")
            os.kill(hooked.pid, signal.SIGSTOP)
            wait_still()
            second.kill_qemu("guest")
            os.kill(hooked.pid, signal.SIGCONT)
            assert one.ended() == 1
        stayed(hooked, second)


def wait_still() -> None:
    """Wait until the guest has said nothing for a while: it is stopped."""
    said = ""

    def still() -> bool:
        nonlocal said
        before, said = said, console("guest")
        run("sleep", "2")
        return before == said

    wait_until(still, "the guest is stopped")


def test_a_virsh_that_is_killed(hooked: Libvirtd) -> None:
    with two_hosts(hooked) as second:
        with midway(hooked, second) as one:
            one.process.kill()
            one.hurry()
            wait_until(lambda: not under_way(hooked), "libvirt has done with it")
        stayed(hooked, second)


def under_way(libvirtd: Libvirtd) -> bool:
    return "Outgoing" in libvirtd.virsh("domjobinfo", "guest", ok=(0, 1)).stdout


def test_it_is_aborted(hooked: Libvirtd) -> None:
    with two_hosts(hooked) as second:
        with midway(hooked, second) as one:
            hooked.virsh("domjobabort", "guest")
            assert one.ended() == 1
        stayed(hooked, second)
