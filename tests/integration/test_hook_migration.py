"""An incoming migration comes through the destination's hook, from one real libvirtd to another."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ramshelf.core.hook.script import SCRIPT
from support.agent import CONF
from support.cli import ramshelf
from support.devices import scratch
from support.domains import console, domain_xml, wait_console
from support.libvirtd import Libvirtd
from support.process import run
from support.second_host import SecondHost, second_host
from support.stores import MEMORY, store


@pytest.fixture
def destination() -> Iterator[SecondHost]:
    with second_host("tmpfs", 300) as host:
        yield host


def migrate(
    libvirtd: Libvirtd, destination: SecondHost, name: str, ok: tuple[int, ...] = (0,)
) -> str:
    return libvirtd.virsh(
        "migrate",
        "--live",
        name,
        destination.uri,
        "--migrateuri",
        destination.migrate_uri,
        ok=ok,
    ).stderr


def test_a_guest_that_comes_is_reserved_or_refused(
    libvirtd: Libvirtd, destination: SecondHost
) -> None:
    with store("xfs"):
        ramshelf("hook", "install")
        for name in ("one", "two"):
            libvirtd.create(domain_xml(name, 160, dirty_mib=16))
            wait_console(name, "DIRTIED")
        migrate(libvirtd, destination, "one")
        assert libvirtd.virsh("list", "--name").stdout.split() == ["two"]
        assert destination.run("virsh", "list", "--name").split() == ["one"]
        size = destination.run("sh", "-c", f"stat -c %s {MEMORY}/*-one/pc.ram")
        assert int(size) == 160 << 20
        assert '"reserved"' in destination.run("cat", "/run/ramshelf/hook.log")

        said = migrate(libvirtd, destination, "two", ok=(1,))
        assert "Guest two needs 160 MiB of file-backed memory, 20 MiB more than are free" in said
        assert libvirtd.virsh("domstate", "two").stdout.strip() == "running"
        assert len(destination.run("ls", str(MEMORY)).split()) == 1
        assert {path.name.partition("-")[2] for path in MEMORY.iterdir()} == {"two"}
        assert "Kernel panic" not in console("two")
        ramshelf("hook", "remove")


def test_a_guest_that_comes_gets_the_policy_and_nobody_runs_its_emulator(
    libvirtd: Libvirtd, destination: SecondHost
) -> None:
    """Whoever may send a guest names a program, which root never runs.

    Root does not even ask it for its version.
    """
    emulator, trace = scratch() / "emulator", scratch() / "trace"
    trace.touch()
    trace.chmod(0o666)
    emulator.write_text(
        f'#!/bin/sh\necho "$(id -u) $*" >>{trace}\nexec /usr/bin/qemu-system-x86_64 "$@"\n'
    )
    emulator.chmod(0o755)
    odd = "<metadata><a:x xmlns:a='urn:u'><b:y/><a:\N{PILE OF POO}/></a:x></metadata>"
    devices = f"<emulator>{emulator}</emulator>"
    with store("tmpfs"):
        ramshelf("hook", "install")
        libvirtd.create(domain_xml("one", 96, dirty_mib=16, top=odd, devices=devices))
        wait_console("one", "DIRTIED")
        trace.write_text("")
        migrate(libvirtd, destination, "one")
        calls = [line.partition(" ") for line in trace.read_text().splitlines()]
        assert any("-incoming" in words for _, _, words in calls)  # by libvirt, as QEMU's user
        assert "0" not in {user for user, _, _ in calls}
        assert not any(words.startswith("--version") for _, _, words in calls)
        # Its version is known all the same, by libvirt's cache: discard costs nothing on tmpfs.
        defined = destination.virsh("dumpxml", "one")
        assert "<discard/>" in defined
        assert "<b:y/>" in defined
        ramshelf("hook", "remove")


def test_a_definition_that_moves_alone_is_taken_whatever_backs_its_memory(
    libvirtd: Libvirtd, destination: SecondHost
) -> None:
    """Nothing runs. One that comes running is refused, also where a definition of it lies there."""
    libvirtd.define(domain_xml("plain", 64, memory_backing=""))
    libvirtd.define(domain_xml("backed", 64))
    move_definition(libvirtd, destination, "plain")
    destination.virsh("start", "plain")  # as any other of this host's, and at once
    destination.virsh("destroy", "plain")

    libvirtd.virsh("start", "plain")
    for _ in range(2):
        said = migrate(libvirtd, destination, "plain", ok=(1,))
        assert "[migration.becomes-file-backed]" in said
    move_definition(libvirtd, destination, "backed")
    assert destination.guests() == []

    destination.run(
        "sh",
        "-c",
        f"mkdir -p {CONF.parent}; cat >{CONF}",
        stdin="[libvirt]\nfile_backed_memory = 0\n",
    )
    libvirtd.define(domain_xml("other", 64))
    move_definition(libvirtd, destination, "other")
    assert "<source type='file'/>" in destination.virsh("dumpxml", "other")
    assert destination.virsh("list", "--all", "--name").split() == ["backed", "other", "plain"]
    assert destination.shell("ls /run/ramshelf/arriving").split() == ["other"]


def move_definition(libvirtd: Libvirtd, destination: SecondHost, name: str) -> None:
    route = (destination.uri, "--migrateuri", destination.migrate_uri)
    libvirtd.virsh("migrate", "--offline", "--persistent", name, *route)


@pytest.mark.usefixtures("libvirtd")
def test_a_start_long_after_the_definition_came_is_none_of_a_guest_that_comes() -> None:
    """As where libvirt took a definition and did not keep it."""
    noted = Path("/run/ramshelf/arriving")
    plain = domain_xml("one", 64, memory_backing="")

    def call(operation: str, name: str, ok: int = 0) -> None:
        run(SCRIPT, name, operation, "begin", "-", stdin=plain, ok=(ok,))

    with store("tmpfs"):
        ramshelf("hook", "install")
        call("migrate", "soon")
        call("start", "soon", ok=1)
        call("migrate", "late")
        second, _, definition = (noted / "late").read_text().partition(" ")
        (noted / "late").write_text(f"{int(second) - 60} {definition}")
        call("start", "late")
        call("migrate", "another")
        assert [path.name for path in noted.iterdir()] == ["another"]
        ramshelf("hook", "remove")
