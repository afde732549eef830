"""Random guests: ramshelf promises no less than their QEMU maps, by libvirt's own word for it."""

import contextlib
import json
import shlex
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import libvirt
import pytest

from ramshelf.core.domain.memory import Guest, parse_guest
from ramshelf.core.errors import InputError
from ramshelf.core.hook.call import concerned
from ramshelf.core.units import KIB, MIB
from support.domainfuzz import random_domain
from support.libvirtd import Libvirtd
from support.process import run
from support.stores import MEMORY

HUGE = "/run/hugepages"
HOOK = Path("/etc/libvirt/hooks/qemu.d/fuzz")
GIVEN = Path("/run/fuzz.xml")
ROUNDS = [
    pytest.param("ci", 1000),
    *(pytest.param(f"soak {part}", 10_000, marks=pytest.mark.soak) for part in range(10)),
]


@pytest.fixture
def connection(libvirtd: Libvirtd) -> Iterator[Any]:
    """To a libvirtd that takes guests with huge pages, too."""
    for size in ("2M", "1G"):
        Path(f"{HUGE}/{size}").mkdir(parents=True)
        run("mount", "-t", "hugetlbfs", "-o", f"pagesize={size}", "none", f"{HUGE}/{size}")
    libvirtd.set_qemu_conf(f'\nhugetlbfs_mount = ["{HUGE}/2M", "{HUGE}/1G"]\n')
    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open(libvirtd.uri)
    yield connection
    connection.close()


@pytest.mark.parametrize(("seed", "rounds"), ROUNDS)
def test_a_random_guest_is_promised_what_its_qemu_maps(
    connection: Any, seed: str, rounds: int
) -> None:
    seen: Counter[str] = Counter()
    for number in range(rounds):
        xml = random_domain(Random(f"{seed} {number}"))  # noqa: S311 - to be had again
        read_or_refuse(xml)
        try:
            command = Command(connection.domainXMLToNative("qemu-argv", xml, 0))
            formatted = defined(connection, xml)
        except libvirt.libvirtError:
            continue
        guest = parse_guest(formatted)
        assert wrong(guest, formatted, command) == [], (
            f"{seed} {number}: {xml}\n{formatted}\n{command.words}"
        )
        seen.update(features(guest, formatted, command))
    # What was never seen was never tried.
    for feature in (
        "accepted",
        "mapped",
        "huge",
        "mixed",
        "locked",
        "device",
        "hotplug",
        "odd metadata",
    ):
        assert seen[feature] > rounds // 500, seen
    assert seen["accepted"] > rounds // 3, seen


def test_a_random_guest_is_promised_it_by_what_the_hook_is_given(
    connection: Any, libvirtd: Libvirtd
) -> None:
    """The XML of a guest that starts differs from that of a definition.

    Here a hook ends the start.
    """
    HOOK.parent.mkdir(parents=True, exist_ok=True)
    HOOK.write_text(f'#!/bin/sh\n[ "$2" = start ] || exit 0\ncat >{GIVEN}\nexit 1\n')
    HOOK.chmod(0o755)
    libvirtd.reload()
    given = 0
    for number in range(100):
        xml = random_domain(Random(f"given {number}"))  # noqa: S311 - to be had again
        GIVEN.unlink(missing_ok=True)
        with contextlib.suppress(libvirt.libvirtError):
            command = Command(connection.domainXMLToNative("qemu-argv", xml, 0))
            connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)
        if GIVEN.exists():
            given += 1
            text = GIVEN.read_text()
            assert wrong(parse_guest(text), text, command) == [], (
                f"{number}: {xml}\n{text}\n{command.words}"
            )
    assert given > 30


class Command:
    """A command line of QEMU's."""

    def __init__(self, text: str) -> None:
        self.words = shlex.split(text.replace("\\\n", " "))
        objects = [json.loads(word) for word in self.after("-object") if word.startswith("{")]
        self.memory = [each for each in objects if each["qom-type"].startswith("memory-backend-")]

    def after(self, option: str) -> list[str]:
        """The arguments of an option."""
        return [
            word
            for before, word in zip(self.words, self.words[1:], strict=False)
            if before == option
        ]

    @property
    def mapped(self) -> int:
        """Bytes of the files below the memory backing directory."""
        return sum(size for path, size in self.files if path.startswith(f"{MEMORY}/"))

    @property
    def huge(self) -> int:
        """Bytes that use huge pages."""
        of_memfd: int = sum(each["size"] for each in self.memory if each.get("hugetlb"))
        return of_memfd + sum(size for path, size in self.files if path.startswith(HUGE))

    @property
    def files(self) -> list[tuple[str, int]]:
        """Paths of memory that is not anonymous, and its bytes.

        On an old machine there is one without a backend.
        """
        size = self.after("-m")[0].removeprefix("size=").partition(",")[0]
        main = int(size[:-1]) * KIB if size.endswith("k") else int(size) * MIB
        backends = [(each["mem-path"], each["size"]) for each in self.memory if "mem-path" in each]
        return [(path, main) for path in self.after("-mem-path")] + backends

    @property
    def legacy(self) -> bool:
        """Whether it is of an old machine type, whose NUMA cells may have no own backends."""
        return any(",mem=" in words for words in self.after("-numa"))

    @property
    def discards(self) -> bool:
        """Whether QEMU discards some of it when it ends."""
        return any(each.get("discard-data") for each in self.memory)

    @property
    def locked(self) -> bool:
        """Whether QEMU locks all its memory."""
        return "mem-lock=on" in self.after("-overcommit")

    @property
    def device(self) -> bool:
        """Whether a device may use all of it."""
        marks = ('"vfio-pci"', '"driver":"nvme"', "vhost-vdpa")
        return any(mark in word for word in self.words for mark in marks)


def wrong(guest: Guest, xml: str, command: Command) -> list[str]:
    """What ramshelf says of a guest that is not so."""
    return [
        sentence
        for said, sentence in (
            (guest.file_bytes == command.mapped, "its files"),
            (guest.promise >= command.mapped, "its promise"),
            (guest.huge_bytes <= command.huge, "its huge pages"),
            (guest.hugepages is bool(command.huge) or command.legacy, "whether it has huge pages"),
            (guest.locked is command.locked, "whether it is locked"),
            (guest.passthrough or not command.device, "its device"),
            (guest.discard or not command.discards, "whether it is discarded"),
            (
                concerned(xml.encode()) or not (guest.files or guest.pinned or guest.hugepages),
                "its text",
            ),
        )
        if not said
    ]


def read_or_refuse(xml: str) -> None:
    """Whatever it is, it is understood or refused."""
    with contextlib.suppress(InputError):
        parse_guest(xml)


def defined(connection: Any, xml: str) -> str:
    """The definition as libvirt itself writes it."""
    domain = connection.defineXML(xml)
    try:
        text: str = domain.XMLDesc()
        return text
    finally:
        domain.undefine()


def features(guest: Guest, xml: str, command: Command) -> Iterator[str]:
    """What was tried."""
    yield "accepted"
    for is_there, feature in (
        (command.mapped, "mapped"),
        (command.huge, "huge"),
        (command.huge and command.mapped, "mixed"),
        (command.locked, "locked"),
        (command.device, "device"),
        (guest.hotplug, "hotplug"),
        (not strict(xml), "odd metadata"),
    ):
        if is_there:
            yield feature


def strict(xml: str) -> bool:
    """Whether a parser with namespaces understands it."""
    try:
        ET.fromstring(xml)  # noqa: S314 - libvirt's own
    except ET.ParseError:
        return False
    return True
