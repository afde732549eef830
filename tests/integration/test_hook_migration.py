"""An incoming migration comes through the destination's hook, from one real libvirtd to another."""

from collections.abc import Iterator

import pytest

from support.cli import ramshelf
from support.devices import scratch
from support.domains import console, domain_xml, wait_console
from support.libvirtd import Libvirtd
from support.second_host import SecondHost, second_host
from support.stores import MEMORY, store


@pytest.fixture
def destination() -> Iterator[SecondHost]:
    with second_host("tmpfs", 300) as host:
        yield host


def migrate(libvirtd: Libvirtd, destination: SecondHost, name: str, ok: tuple[int, ...] = (0,)) -> str:
    return libvirtd.virsh(
        "migrate",
        "--live",
        name,
        destination.uri,
        "--migrateuri",
        destination.migrate_uri,
        ok=ok,
        timeout=120,
    ).stderr


def test_a_guest_that_comes_is_reserved_or_refused(libvirtd: Libvirtd, destination: SecondHost) -> None:
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
    """Whoever may send a guest names a program: root never runs it, not even to ask for its version."""
    emulator, trace = scratch() / "emulator", scratch() / "trace"
    trace.touch()
    trace.chmod(0o666)
    emulator.write_text(f'#!/bin/sh\necho "$(id -u) $*" >>{trace}\nexec /usr/bin/qemu-system-x86_64 "$@"\n')
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
