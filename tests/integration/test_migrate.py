"""``ramshelf guest migrate`` between two real hosts."""

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import CLOCK_BOOTTIME, clock_gettime
from typing import Any
from uuid import uuid4

import pytest

from ramshelf.core.errors import RefusedError
from ramshelf.core.hook.script import SCRIPT
from ramshelf.core.placement import Claim
from ramshelf.node.migration.claim import moved_claim
from ramshelf.node.migration.destination import announce, look_at_move
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.placement import Placement
from ramshelf.system.settings import load_config
from support.cli import RAMSHELF, ramshelf
from support.domains import FILE_BACKED, console, domain_xml, wait_console
from support.libvirtd import Libvirtd
from support.moving import allocated_here, goes_on_there, hold, let_go, moves_running
from support.process import HANG, run, wait_until
from support.second_host import SecondHost, second_host
from support.stores import MEMORY, store

pytestmark = pytest.mark.filterwarnings("default")
"""Placement's own dependencies warn."""

CONF = Path("/etc/ramshelf/ramshelf.conf")


@pytest.fixture
def hooked(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    """A libvirtd with ramshelf's hook and a store."""
    with store("tmpfs", 512):
        ramshelf("hook", "install")
        yield libvirtd


@pytest.fixture
def second() -> Iterator[SecondHost]:
    """Another host, with a tmpfs of 300 MiB; nothing of a probe is left there at the end."""
    with second_host("tmpfs", 300) as host:
        yield host
        wait_until(
            lambda: "ramshelf-probe" not in host.shell("ls /var/log/libvirt/qemu"),
            "the probes' logs are gone",
        )


def check(second: SecondHost, name: str, *more: str, ok: tuple[int, ...] = (0, 1)) -> Any:
    ended = ramshelf("guest", "migrate", name, second.uri, "--check", "--json", *more, ok=ok)
    return {"status": ended.status, **json.loads(ended.stdout)}


def migrate(
    second: SecondHost, name: str, *more: str, network: bool = False, ok: tuple[int, ...] = (0,)
) -> Any:
    """The document of a migration, or of why there was none."""
    uri, migrate_uri = second.uri, second.migrate_uri
    if network:
        uri, migrate_uri = second.tcp_uri, second.tcp_migrate_uri
    options = () if "--offline" in more else ("--migrate-uri", migrate_uri)
    ended = ramshelf("guest", "migrate", name, uri, *options, *more, "--json", ok=ok)
    return json.loads(ended.stdout) if ended.status == 0 else json.loads(ended.stderr)["error"]


def reasons(verdict: Any) -> set[str]:
    """Of all reasons those that do not bar postcopy alone, which is the kernel's to allow."""
    return {reason["code"] for reason in verdict["reasons"] if reason["bars"] != ["postcopy"]}


def running(libvirtd: Libvirtd) -> list[str]:
    return libvirtd.virsh("list", "--name").stdout.split()


def defined(libvirtd: Libvirtd) -> list[str]:
    return libvirtd.virsh("list", "--all", "--name").stdout.split()


def start(libvirtd: Libvirtd, name: str, memory_mib: int = 128, **more: Any) -> None:
    libvirtd.define(domain_xml(name, memory_mib, **more))
    libvirtd.virsh("start", name)
    wait_console(name, "GUEST-UP")


def test_a_guest_moves_live(hooked: Libvirtd, second: SecondHost) -> None:
    start(
        hooked,
        "one",
        memory_backing="<source type='file'/><access mode='shared'/><allocation mode='immediate'/>",
    )
    verdict = check(second, "one", ok=(0,))
    assert (verdict["live"], verdict["cold"], reasons(verdict)) == (True, True, set())
    assert running(hooked) == ["one"]
    assert second.guests() == []

    moved = migrate(second, "one")
    assert (moved["name"], moved["host"], moved["how"]) == ("one", "second", "live")
    assert moved["sent_mib"] > 1
    assert moved["downtime_ms"] is not None
    assert defined(hooked) == []
    assert list(MEMORY.iterdir()) == []
    assert second.virsh("list", "--name", "--persistent").split() == ["one"]
    assert second.memory_mib("one")[0] == 128
    there = second.virsh("dumpxml", "one")
    assert "<allocation mode='ondemand'/>" in there  # the policy of that host
    assert "<discard/>" in there
    assert "Kernel panic" not in console("one")


@contextmanager
def writing(libvirtd: Libvirtd, second: SecondHost) -> Iterator[None]:
    """A transient guest that rewrites its memory all the time, here or there."""
    libvirtd.create(domain_xml("one", 160, dirty_mib=32, options="ramshelf.rewrite"))
    try:
        wait_console("one", "ROUND 1")
        yield
    finally:
        for host in (libvirtd, second):
            host.virsh("destroy", "one", ok=(0, 1))


def test_options_reach_libvirt(hooked: Libvirtd, second: SecondHost) -> None:
    """With QEMU before 9.0 by a guest that is suspended, which no option needs to slow down."""
    with writing(hooked, second):
        hold(hooked, "one")
        migrate(second, "one", "--auto-converge", "--parallel", "2", network=True)
        assert running(hooked) == []
        assert second.guests() == ["one"]
        assert second.virsh("list", "--name", "--persistent").split() == []
        let_go(second, "one")
        goes_on_there(second, "one", "ROUND")


def test_postcopy(hooked: Libvirtd, second: SecondHost) -> None:
    """A guest that is suspended would arrive without postcopy, so this one runs.

    With QEMU before 9.0 it may be damaged.
    """
    with writing(hooked, second):
        verdict = check(second, "one", "--postcopy")
        assert verdict["live"]
        if not verdict["postcopy"]:  # This depends on the kernel.
            assert [reason["code"] for reason in verdict["reasons"]] == ["migration.userfaultfd"]
            assert verdict["status"] == 1
        second.shell("echo 'user = \"root\"' >>/etc/libvirt/qemu.conf")
        second.kill_libvirtd()
        second.start_libvirtd()
        assert check(second, "one", "--postcopy", ok=(0,))["postcopy"]
        # The guest writes faster than this: without postcopy it would never arrive.
        migrate(second, "one", "--postcopy", "--bandwidth", "16")
        assert second.guests() == ["one"]
        second.wait_running("one")
        if moves_running():
            goes_on_there(second, "one", "ROUND")


@pytest.mark.parametrize(
    ("file_system", "emulator", "expected"),
    [
        ("xfs", "/usr/bin/qemu-system-x86_64", ["source", "access", "allocation"]),
        ("tmpfs", "/usr/bin/qemu-system-x86_64", ["source", "access", "allocation", "discard"]),
        ("tmpfs", "/nonexistent", ["source", "access", "allocation", "discard"]),
    ],
)
def test_the_policy_of_a_store(
    libvirtd: Libvirtd, file_system: str, emulator: str, expected: list[str]
) -> None:
    del libvirtd
    devices = f"<emulator>{emulator}</emulator>"
    backing = f"{FILE_BACKED}<allocation mode='immediate'/><discard/>"
    with store(file_system):
        ramshelf("hook", "install")
        said = run(
            SCRIPT,
            "one",
            "migrate",
            "begin",
            "-",
            stdin=domain_xml("one", memory_backing=backing, devices=devices),
        )
        children = ET.fromstring(said.stdout).iterfind("memoryBacking/*")  # noqa: S314 - our own
        assert [child.tag for child in children] == expected
        assert "mode='ondemand'" in said.stdout
        other = domain_xml("two", memory_backing="<discard/>", devices=devices)
        assert run(SCRIPT, "two", "migrate", "begin", "-", stdin=other).stdout == ""
        refused = run(SCRIPT, "two", "start", "begin", "-", stdin=other, ok=(1,))
        assert (refused.stdout, "[migration.becomes-file-backed]" in refused.stderr) == ("", True)
        assert run(SCRIPT, "two", "migrate", "begin", "-", stdin="<domain>").stdout == ""
        ramshelf("hook", "remove")


def test_what_cannot_be_is_refused_before_anything_moves(
    hooked: Libvirtd, second: SecondHost
) -> None:
    start(hooked, "large", 320)
    start(hooked, "plain", memory_backing="")
    verdict = check(second, "large")
    assert (verdict["status"], verdict["live"], verdict["cold"]) == (1, False, False)
    assert reasons(verdict) == {"capacity.exceeded"}
    refused = migrate(second, "large", ok=(1,))
    assert refused["code"] == "migration.refused"
    assert refused["facts"]["reasons"][0]["code"] == "capacity.exceeded"

    verdict = check(second, "plain")
    assert (verdict["status"], verdict["live"], verdict["cold"]) == (1, False, True)
    assert reasons(verdict) == {"migration.becomes-file-backed"}
    assert check(second, "plain", "--offline")["status"] == 0
    assert migrate(second, "plain", ok=(1,))["code"] == "migration.refused"
    assert "[migration.becomes-file-backed]" in by_virsh(hooked, second, "plain")

    second.shell("mv /etc/libvirt/hooks/qemu.d/ramshelf /run/ramshelf/hook")
    assert reasons(check(second, "plain", ok=(1,))) == {"migration.no-hook"}
    second.shell(
        "mv /run/ramshelf/hook /etc/libvirt/hooks/qemu.d/ramshelf; rm "
        "/var/log/libvirt/qemu/ramshelf-probe-*"
    )
    assert sorted(running(hooked)) == ["large", "plain"]
    assert second.virsh("list", "--all", "--name").split() == []


def by_virsh(libvirtd: Libvirtd, second: SecondHost, name: str) -> str:
    """What virsh says when it cannot move a guest."""
    route = (second.uri, "--migrateuri", second.migrate_uri)
    return libvirtd.virsh("migrate", "--live", name, *route, ok=(1,)).stderr


def test_where_file_backed_memory_is_off(hooked: Libvirtd, second: SecondHost) -> None:
    second.run(
        "sh",
        "-c",
        f"mkdir -p {CONF.parent}; cat >{CONF}",
        stdin="[libvirt]\nfile_backed_memory = 0\n",
    )
    start(hooked, "one")
    assert reasons(check(second, "one", ok=(1,))) == {"migration.becomes-anonymous"}
    assert "[migration.becomes-anonymous]" in by_virsh(hooked, second, "one")
    assert (running(hooked), second.guests()) == (["one"], [])


@contextmanager
def on_its_way(
    libvirtd: Libvirtd, second: SecondHost, name: str, *, mib_a_second: int = 1
) -> "Iterator[subprocess.Popen[str]]":
    """A guest that migrates so slowly that it does not arrive."""
    argv = (RAMSHELF, "guest", "migrate", name, second.uri, "--migrate-uri", second.migrate_uri)
    with subprocess.Popen(
        [*argv, "--bandwidth", str(mib_a_second), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: sends(libvirtd, name), f"{name} is on its way")
        yield process


def sends(libvirtd: Libvirtd, name: str) -> bool:
    return "Data processed" in libvirtd.virsh("domjobinfo", name).stdout


def test_ctrl_c_leaves_the_guest_here_as_it_was(hooked: Libvirtd, second: SecondHost) -> None:
    """What was read of its memory is given back, too."""
    start(hooked, "one", 256, options="ramshelf.count")
    touched = allocated_here("one")
    hooked.virsh("migrate-setmaxdowntime", "one", "1")  # so that it never ends
    with on_its_way(hooked, second, "one", mib_a_second=16) as process:
        wait_until(lambda: allocated_here("one") > touched + 64, "it is read")
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=HANG)[1]
    assert process.returncode == 130
    assert json.loads(said)["error"]["code"] == "cli.interrupted"
    assert hooked.virsh("domstate", "one").stdout.strip() == "running"
    wait_until(lambda: second.guests() == [], "it has gone there")
    assert second.directories() == []
    assert second.capacity()["promised_mib"] == 0
    wait_until(lambda: allocated_here("one") < touched + 32, "it is trimmed")


def test_a_guest_moves_cold_and_is_converted(hooked: Libvirtd, second: SecondHost) -> None:
    start(hooked, "plain", memory_backing="")
    moved = migrate(second, "plain", "--offline", "--timeout", "0.5")
    assert moved["how"] == "cold"
    assert defined(hooked) == []
    assert second.virsh("list", "--name", "--persistent").split() == ["plain"]
    assert second.memory_mib("plain")[0] == 128


def test_a_guest_that_does_not_start_there_comes_back(hooked: Libvirtd, second: SecondHost) -> None:
    second.shell("rm /run/guest/initramfs")  # what it needs besides the store
    start(hooked, "one")
    error = migrate(second, "one", "--offline", "--timeout", "0.5", ok=(1,))
    assert "initramfs" in error["message"]
    assert running(hooked) == ["one"]
    assert second.virsh("list", "--all", "--name").split() == []
    assert second.directories() == []


def test_a_guest_becomes_anonymous_where_there_is_no_store(
    hooked: Libvirtd, second: SecondHost
) -> None:
    second.shell(f"umount {MEMORY}; sed -i '/ramshelf/d' /etc/fstab")
    start(hooked, "one")
    assert reasons(check(second, "one", ok=(1,))) == {"migration.becomes-anonymous"}
    migrate(second, "one", "--offline", "--timeout", "0.5")
    assert "memoryBacking" not in second.virsh("dumpxml", "one")


MOVES_COLD = """
import os, signal, sys
from ramshelf.core.config import Config
from ramshelf.core.errors import RamshelfError
from ramshelf.node.migration.cold import move_cold
from ramshelf.node.migration.destination import look_at_move
from ramshelf.system.hypervisor import Hypervisor
def signalled(step):
    if step == sys.argv[2]:
        os.kill(os.getpid(), int(sys.argv[3]))
with Hypervisor("qemu:///system") as here, Hypervisor(sys.argv[1], elsewhere=True) as there:
    try:
        move = look_at_move(here, there, Config(), "one")
        move_cold(here, there, Config(), move, timeout=float(sys.argv[4]), after_step=signalled)
    except RamshelfError as error:
        sys.exit(error.code)
"""
"""A cold move that gets a signal after a step."""


def move_cold_until(
    step: str,
    number: signal.Signals,
    second: SecondHost,
    *,
    status: int = -signal.SIGKILL,
    timeout: float = 0,
) -> str:
    """What it says on stderr; ``timeout``: for the guest to stop."""
    argv = (sys.executable, "-c", MOVES_COLD, second.uri, step, str(int(number)), str(timeout))
    return run(*argv, ok=(status,)).stderr.strip()


def guarded() -> list[str]:
    """The ends to which guards have brought guests."""
    path = Path("/run/ramshelf/hook.log")
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    return [event for event in events if event.startswith("move-")]


def wait_guarded(*events: str) -> None:
    wait_until(lambda: len(guarded()) >= len(events), "the guard has brought it to an end")
    assert guarded() == list(events)


def assert_only_here(hooked: Libvirtd, second: SecondHost) -> None:
    assert running(hooked) == ["one"]
    assert second.virsh("list", "--all", "--name").split() == []
    assert second.directories() == []


def test_a_killed_cold_move_comes_to_an_end(hooked: Libvirtd, second: SecondHost) -> None:
    start(hooked, "one")
    expected: list[str] = []
    for step, timeout in (("ask", 90), ("stop", 0), ("define", 0)):
        move_cold_until(step, signal.SIGKILL, second, timeout=timeout)
        expected.append("move-undone")
        wait_guarded(*expected)
        assert_only_here(hooked, second)
    assert second.capacity()["promised_mib"] == 0
    move_cold_until("start", signal.SIGKILL, second)
    wait_guarded(*expected, "move-finished")
    assert defined(hooked) == []
    assert list(MEMORY.iterdir()) == []
    assert second.virsh("list", "--name", "--persistent").split() == ["one"]
    assert second.memory_mib("one")[0] == 128


def test_a_cold_move_that_is_killed_while_the_guest_starts_there(
    hooked: Libvirtd, second: SecondHost
) -> None:
    start(hooked, "one")
    hook = "/etc/libvirt/hooks/qemu.d/slow"
    slow = (
        '[ "$2" = start ] || exit 0\ntouch /run/starts\nuntil [ -e /run/go ]; do sleep 0.1; done\n'
    )
    second.run("sh", "-ec", f"cat >{hook}; chmod 755 {hook}", stdin=f"#!/bin/sh\n{slow}")
    argv = (RAMSHELF, "guest", "migrate", "one", second.uri, "--offline", "--timeout", "0.5")
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: "starts" in second.shell("ls /run"), "it starts there")
        finally:
            process.kill()
    second.shell("touch /run/go")
    wait_guarded("move-finished")
    assert second.guests() == ["one"]
    assert defined(hooked) == []


def test_ctrl_c_while_a_transient_guest_is_asked_to_stop(
    hooked: Libvirtd, second: SecondHost
) -> None:
    """It shuts down all the same, and is there again."""
    hooked.create(domain_xml("one"))
    wait_console("one", "GUEST-UP")
    assert move_cold_until("ask", signal.SIGINT, second, status=1, timeout=90) == "cli.interrupted"
    wait_guarded("move-undone")
    assert_only_here(hooked, second)


def veto_starts(shell: Callable[[str], object]) -> None:
    """Another hook refuses all guests."""
    path = "/etc/libvirt/hooks/qemu.d/veto"
    shell(f"printf '#!/bin/sh\\n[ \"$2\" != start ]\\n' >{path}; chmod 755 {path}")


def test_a_guest_that_starts_nowhere(hooked: Libvirtd, second: SecondHost) -> None:
    start(hooked, "one")
    veto_starts(second.shell)
    veto_starts(lambda script: run("sh", "-ec", script))
    error = migrate(second, "one", "--offline", "--timeout", "0.5", ok=(1,))
    assert error["code"] == "migration.stranded"
    assert running(hooked) == []
    assert defined(hooked) == ["one"]
    assert second.virsh("list", "--all", "--name").split() == []
    assert guarded() == []


def test_a_libvirtd_that_dies_there_and_comes_again(hooked: Libvirtd, second: SecondHost) -> None:
    start(hooked, "one")
    argv = (sys.executable, "-c", MOVES_COLD, second.uri, "define", str(int(signal.SIGSTOP)), "0")
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        os.waitpid(process.pid, os.WUNTRACED)
        second.kill_libvirtd()
        process.send_signal(signal.SIGCONT)
        said = process.communicate(timeout=HANG)[1]
    assert said.strip() == "migration.unknown"
    assert running(hooked) == []
    second.start_libvirtd()
    wait_guarded("move-undone")
    assert_only_here(hooked, second)


def test_a_guest_with_a_snapshot_stays_defined(hooked: Libvirtd, second: SecondHost) -> None:
    hooked.define(domain_xml("one"))
    definition = hooked.virsh("dumpxml", "one", "--inactive").stdout
    snapshot = (
        "<domainsnapshot><name>first</name><state>shutoff</state><creationTime>1</creationTime>"
        f"{definition}</domainsnapshot>"
    )
    hooked.virsh("snapshot-create", "one", "/dev/stdin", "--redefine", stdin=snapshot)
    [note] = migrate(second, "one", "--offline")["notes"]
    assert note["code"] == "migration.still-defined"
    assert second.virsh("list", "--all", "--name").split() == ["one"]
    assert defined(hooked) == ["one"]
    hooked.virsh("snapshot-delete", "one", "first", "--metadata")


@contextmanager
def placement_of(host: str) -> Iterator[Placement]:
    with Placement(load_config((), ()), host) as placement:
        yield placement


def claims() -> tuple[dict[str, int], dict[str, int]]:
    """MiB by guest that Placement has here, and there."""
    with placement_of(run("virsh", "hostname").stdout.strip()) as here:
        return held(here), held(here.of("second"))


def held(placement: Placement) -> dict[str, int]:
    return {uuid: share.memory_mib for uuid, share in placement.observe().allocations.items()}


@pytest.fixture
def shared(second: SecondHost, embedded_file: Path) -> SecondHost:
    """The second host; both own their providers in one Placement."""
    embedded_file.unlink(missing_ok=True)
    conf = (
        "[ramshelf]\nplacement = embedded\nplacement_owner = true\nplacement_database = "
        f"{embedded_file}\n"
    )
    CONF.parent.mkdir(exist_ok=True)
    CONF.write_text(conf)
    second.run("sh", "-c", f"mkdir -p {CONF.parent}; cat > {CONF}", stdin=conf)
    report(second)
    return second


def report(second: SecondHost) -> None:
    """What the agents of both hosts do again and again."""
    ramshelf("placement", "report")
    second.run(RAMSHELF, "--connect", second.uri, "placement", "report")


def test_the_claim_moves_where_there_is_room(hooked: Libvirtd, shared: SecondHost) -> None:
    uuid, other = start_claimed(hooked, "one"), str(uuid4())
    with placement_of("second") as placement:
        placement.claim(Claim(uuid=other, name="other", memory_mib=200))
        assert reasons(check(shared, "one", ok=(1,))) == {"placement.full"}
        assert migrate(shared, "one", ok=(1,))["code"] == "migration.refused"
        with Hypervisor(hooked.uri) as here, Hypervisor(shared.uri, elsewhere=True) as there:
            config = load_config((), ())
            moving = look_at_move(here, there, config, "one").guest
            with (  # somebody claims it just before
                pytest.raises(RefusedError, match="no 128 MiB"),
                moved_claim(here, there, config, uuid=uuid, guest=moving),
            ):
                pass
        assert running(hooked) == ["one"]
        assert claims() == ({uuid: 128}, {other: 200})
        placement.release(other)
    migrate(shared, "one")
    assert claims() == ({}, {uuid: 128})


def start_claimed(libvirtd: Libvirtd, name: str) -> str:
    """Start a guest with its claim; its UUID."""
    libvirtd.define(domain_xml(name))
    ramshelf("guest", "start", name)
    uuid = libvirtd.virsh("domuuid", name).stdout.strip()
    assert claims() == ({uuid: 128}, {})
    return uuid


def test_the_claim_of_a_killed_migration_is_put_right(hooked: Libvirtd, shared: SecondHost) -> None:
    uuid = start_claimed(hooked, "one")
    with on_its_way(hooked, shared, "one") as process:
        process.kill()
        process.wait()
        report(shared)
        assert claims() == ({uuid: 128}, {uuid: 128})  # it is still on its way
    hooked.virsh("migrate-setspeed", "one", "10000")
    wait_until(lambda: running(hooked) == [], "it has moved")
    report(shared)
    assert claims() == ({}, {uuid: 128})
    shared.wait_running("one")


def test_a_claim_is_left_alone_until_its_guest_has_come(
    hooked: Libvirtd, shared: SecondHost
) -> None:
    del hooked
    uuid = str(uuid4())
    with Hypervisor(shared.uri, elsewhere=True) as there:
        announce(there, uuid)
    with placement_of("second") as placement:
        placement.claim(Claim(uuid=uuid, name="coming", memory_mib=100))
    report(shared)
    assert claims() == ({}, {uuid: 100})
    until = shared.shell(f"cd /run/ramshelf/coming; echo {uuid}.*").strip().partition(".")[2]
    assert int(until) > clock_gettime(CLOCK_BOOTTIME)
    shared.shell(f"cd /run/ramshelf/coming; mv {uuid}.{until} {uuid}.1")  # that is long ago
    report(shared)
    assert claims() == ({}, {})
    assert shared.shell("ls /run/ramshelf/coming") == ""
