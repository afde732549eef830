"""Domain XML that libvirt takes and other parsers do not: such a guest is one like any other."""

import os
from pathlib import Path

import pytest

from ramshelf.core.domain.memory import parse_guest
from ramshelf.core.requirements import version
from ramshelf.system.emulators import emulator_version
from support.cli import ramshelf
from support.domains import domain_xml
from support.libvirtd import Libvirtd
from support.process import run
from support.stores import MEMORY, store

CAPABILITIES = Path("/var/cache/libvirt/qemu/capabilities")

ODD = {
    "prefix": "<a:x xmlns:a='urn:u'><b:y/></a:x>",
    "name": "<a:x xmlns:a='urn:u'><a:\N{PILE OF POO}/></a:x>",
    "text": "<a:x xmlns:a='urn:u'><![CDATA[</metadata><memory unit='KiB'>1</memory>]]></a:x>",
}


def odd(name: str, memory_mib: int, metadata: str) -> str:
    return domain_xml(name, memory_mib, top=f"<metadata>{metadata}</metadata>")


@pytest.mark.parametrize("metadata", ODD.values(), ids=ODD.keys())
def test_a_guest_with_odd_metadata_is_reserved_or_refused(
    libvirtd: Libvirtd, metadata: str
) -> None:
    with store(size_mib=200):
        ramshelf("hook", "install")
        said = libvirtd.create(odd("large", 1024, metadata), ok=(1,)).stderr
        assert "[capacity.exceeded]" in said
        assert list(MEMORY.iterdir()) == []
        libvirtd.create(odd("small", 128, metadata))
        [file] = MEMORY.rglob("*.ram")
        assert file.stat().st_size == 128 << 20
        # Another one is told what the odd neighbour has, and not that it is not understood.
        assert "[capacity.exceeded]" in libvirtd.create(domain_xml("other", 128), ok=(1,)).stderr
        ramshelf("hook", "remove")


def test_a_reference_to_an_entity_of_a_dtd_stays_in_the_metadata(libvirtd: Libvirtd) -> None:
    libvirtd.define(
        "<!DOCTYPE domain SYSTEM 'x.dtd'>" + odd("one", 64, "<x xmlns='urn:u'>&foo;</x>")
    )
    text = libvirtd.virsh("dumpxml", "one").stdout
    assert "&foo;" in text
    assert parse_guest(text).promise == 64 << 20


@pytest.mark.parametrize("name", ["web ", " web", 'it\'s <a> & "b"', "a" * 30 + " "])
def test_a_guest_whose_name_is_odd_starts(libvirtd: Libvirtd, name: str) -> None:
    escaped = name.replace("&", "&amp;").replace("<", "&lt;")
    with store():
        ramshelf("hook", "install")
        libvirtd.create(
            domain_xml("plain", 96).replace("<name>plain</name>", f"<name>{escaped}</name>")
        )
        [path] = MEMORY.iterdir()
        assert path.name.partition("-")[2] == name[:20]
        [file] = path.glob("*.ram")
        assert file.stat().st_size == 96 << 20
        libvirtd.virsh("destroy", name)
        ramshelf("hook", "remove")


def test_the_version_of_an_emulator_is_what_libvirt_has_found(libvirtd: Libvirtd) -> None:
    libvirtd.create(domain_xml("one", 64))
    said = run("/usr/bin/qemu-system-x86_64", "--version").stdout
    assert emulator_version("/usr/bin/qemu-system-x86_64") == version(said.partition("version ")[2])
    assert emulator_version("/usr/bin/qemu-system-none") is None


def test_what_is_not_root_s_is_not_taken_for_libvirt_s_cache(
    libvirtd: Libvirtd,  # noqa: ARG001 - it has the cache
) -> None:
    """The directory above is QEMU's user's, who may put another in its place."""
    emulator = "/usr/bin/qemu-system-x86_64"
    [file] = (
        path for path in CAPABILITIES.iterdir() if f"<emulator>{emulator}</" in path.read_text()
    )
    before = file.read_bytes()
    file.unlink()
    assert emulator_version(emulator) is None
    os.mkfifo(file)
    assert emulator_version(emulator) is None
    file.unlink()
    elsewhere = CAPABILITIES / "elsewhere"
    elsewhere.write_bytes(before)
    file.symlink_to(elsewhere)
    assert emulator_version(emulator) is None
    file.unlink()
    elsewhere.rename(file)
    assert emulator_version(emulator) is not None
    os.chown(file, 65534, 65534)
    assert emulator_version(emulator) is None
    os.chown(file, 0, 0)
    file.chmod(0o666)
    assert emulator_version(emulator) is None
    file.chmod(0o600)
