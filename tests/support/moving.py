"""Live migrations between the tests' host and a second one, of a guest that watches itself.

A guest whose memory is looked at afterwards moves between ``hold`` and ``let_go``: see
``moves_running``.
"""

import functools
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from ramshelf.core.units import MIB
from support.accelerator import accelerator
from support.cli import RAMSHELF, ramshelf
from support.domains import console, domain_xml, wait_console
from support.libvirtd import Libvirtd
from support.process import HANG, run, wait_until
from support.second_host import SecondHost
from support.stores import MEMORY

KEPT_MIB = 24
"""The memory in MiB that the guest compares with a checksum all the time."""

WATCHED = f"ramshelf.count ramshelf.keep={KEPT_MIB}"
_MIGRATE = ("virsh", "migrate", "--live", "guest")
_COUNT = re.compile(r"COUNT (\d+) (\d+\.\d+)\r?\n")


def start(
    libvirtd: Libvirtd, memory_mib: int = 160, options: str = "", *, dirty_mib: int = 0
) -> None:
    """Start a transient guest that counts and checks its memory, and wait until it does."""
    libvirtd.create(
        domain_xml("guest", memory_mib, dirty_mib=dirty_mib, options=f"{WATCHED} {options}")
    )
    wait_console("guest", "KEPT 1")


def migrate(
    libvirtd: Libvirtd, second: SecondHost, *options: str, ok: tuple[int, ...] = (0,)
) -> str:
    """Move the guest to the second host by plain virsh, and return virsh's standard error."""
    route = (second.uri, "--migrateuri", second.migrate_uri)
    return libvirtd.virsh("migrate", "--live", "guest", *route, *options, ok=ok).stderr


def migrate_back(second: SecondHost) -> None:
    """Move the guest from the second host to the tests' own, by ramshelf."""
    options = ("--migrate-uri", second.back_uri)
    second.run(RAMSHELF, "guest", "migrate", "guest", second.first_uri, *options, timeout=HANG)


class Moving:
    """A migration under way, driven by a virsh of its own.

    ``said`` is what that virsh has printed in the end.
    """

    def __init__(self, libvirtd: Libvirtd, process: "subprocess.Popen[str]") -> None:
        self._libvirtd = libvirtd
        self.process = process
        self.said = ""

    def figure(self, name: str) -> float:
        """Return a figure of ``virsh domjobinfo``, sizes in bytes; 0 before it is there."""
        text = self._libvirtd.virsh("domjobinfo", "guest", ok=(0, 1)).stdout
        return _figure(text, name)

    def wait_streaming(self) -> None:
        """Wait until some of the memory has gone over."""
        wait_until(
            lambda: self.process.poll() is not None or self.figure("Memory processed") > 0,
            "memory is on its way",
        )
        assert self.process.poll() is None, self.ended()

    def hurry(self) -> None:
        """Let it go as fast as it can."""
        self._libvirtd.virsh("migrate-setspeed", "guest", "8000")

    def ended(self) -> int:
        """Wait for its end, and return virsh's exit status."""
        self.said, _ = self.process.communicate(timeout=HANG)
        return self.process.returncode


@contextmanager
def moving(libvirtd: Libvirtd, uri: str, migrate_uri: str, *options: str) -> Iterator[Moving]:
    """Yield a live migration that has begun and does not end soon.

    It runs at 4 MiB/s unless ``options`` say otherwise.
    """
    process = subprocess.Popen(
        [*_MIGRATE, uri, "--migrateuri", migrate_uri, *(options or ("--bandwidth", "4"))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        one = Moving(libvirtd, process)
        one.wait_streaming()
        yield one
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def completed(second: SecondHost, name: str, guest: str = "guest") -> float:
    """Return a figure of the migration that has ended there, sizes in bytes."""
    return _figure(second.virsh("domjobinfo", guest, "--completed", "--keep-completed"), name)


def wait_trimmed(second: SecondHost) -> None:
    """Wait until what was read of the guest's memory there is given back."""
    wait_until(
        lambda: any(entry["event"] == "trimmed" for entry in second.hook_log()),
        "the guest is trimmed",
    )


def allocated_here(name: str = "guest") -> int:
    """Return the MiB that a guest's memory occupies on this host."""
    [path] = MEMORY.glob(f"*-{name}/pc.ram")
    return path.stat().st_blocks * 512 // MIB


class DamagedError(AssertionError):
    """The guest has lost memory, its kernel has failed over what was lost, or it does not go on."""


@functools.cache
def moves_running() -> bool:
    """Tell whether a guest may run while it moves and loses nothing: by KVM, or from QEMU 9.0 on.

    Before, QEMU without KVM may miss a page that the guest writes to just while the bitmap of dirty
    pages is read (mended by QEMU's commit 03bfc2188f06). The rates are in
    docs/reference/migration.md.
    """
    [major] = re.findall(r"version (\d+)", run("qemu-system-x86_64", "--version").stdout)[:1]
    return accelerator() == "kvm" or int(major) >= 9


class _Host(Protocol):
    def virsh(self, *args: str) -> object: ...


def hold(host: _Host, name: str = "guest") -> None:
    """Suspend the guest that is about to leave ``host``, unless it may move while it runs."""
    if not moves_running():
        host.virsh("suspend", name)


def let_go(host: _Host, name: str = "guest") -> None:
    """Let the guest that has come to ``host`` run again, if it was held."""
    if not moves_running():
        host.virsh("resume", name)


def check_said(*consoles: str) -> None:
    """Raise DamagedError unless the guest has counted on and lost no memory.

    ``consoles`` are the consoles on which it spoke, one after the other.
    """
    said = "".join(consoles)
    _check_whole(said)
    counted = [(int(number), float(seconds)) for number, seconds in _COUNT.findall(said)]
    numbers = [number for number, _ in counted]
    assert len(numbers) > 1
    if counted != sorted(counted) or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise DamagedError(counted)


def goes_on_here() -> None:
    """Wait until the guest on this host has counted on and looked through its memory twice more."""
    _goes_on(lambda: console("guest"))


def goes_on_there(second: SecondHost, name: str = "guest", round_of: str = "KEPT") -> None:
    """Wait for the same on the second host; ``round_of`` is what another guest says each time."""
    _goes_on(lambda: second.console(name), round_of)


def guests_here(libvirtd: Libvirtd) -> list[str]:
    """Return the guests that libvirt has on this host."""
    return libvirtd.virsh("list", "--name").stdout.split()


def directories_here() -> list[str]:
    """Return what lies on this host's store."""
    return [path.name for path in MEMORY.iterdir() if path.name != "lost+found"]


def promised_here() -> int:
    """Return the MiB that are promised to guests on this host."""
    return int(json.loads(ramshelf("capacity", "--json").stdout)["promised_mib"])


def _goes_on(said: Callable[[], str], round_of: str = "KEPT") -> None:
    def rounds() -> int:
        return said().count(round_of)

    before = rounds()

    def goes_on() -> bool:
        _check_whole(said())
        return rounds() >= before + 2

    try:
        wait_until(goes_on, "the guest goes on")
    except TimeoutError as error:
        raise DamagedError(f"{error}; it said:\n{said()}") from error


def _check_whole(said: str) -> None:
    if found := re.search(r".*(DAMAGED|panic|Oops|BUG:|segfault|not found).*", said):
        raise DamagedError(found[0])


_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def _figure(text: str, name: str) -> float:
    found = re.search(rf"^{name}:\s+([\d.]+) *(\S*)", text, re.MULTILINE)
    return float(found[1]) * _UNITS.get(found[2], 1) if found else 0.0
