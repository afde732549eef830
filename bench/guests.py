"""Guests, by where their memory lies: what ramshelf does beside what one would do without it."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.dirtying import dirty
from bench.measure import timed
from bench.stores import MEMORY
from ramshelf.core.units import MIB
from support.cli import ramshelf
from support.domains import FILE_BACKED, console, domain_xml, qemu_pid
from support.libvirtd import Libvirtd

BACKINGS = {
    "anonymous": "",
    "memfd": "<source type='memfd'/><access mode='shared'/>",
    "default": FILE_BACKED,
    "nova": FILE_BACKED + "<allocation mode='immediate'/><discard/>",
    "ramshelf": "",
}
"""The memoryBacking element of each.

libvirt's default names no allocation mode; ramshelf writes its own element.
"""

IN_FILES = ("default", "nova", "ramshelf")
"""The backings whose guests have their memory in files.

On the other kinds of store, memory that is in no file is the same.
"""

OWN_MIB = 128
"""The MiB that a guest which does nothing needs for itself."""

_END_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A running guest; ``start_seconds`` is how long ``virsh start`` took."""

    name: str
    memory_mib: int
    start_seconds: float

    @property
    def pid(self) -> int:
        """The process ID of its QEMU; raises ProcessLookupError where it does not run."""
        pid = qemu_pid(self.name)
        if pid is None:
            raise ProcessLookupError(f"{self.name} does not run")
        return pid

    def dirty(self, mib: int) -> None:
        """Dirty this many MiB at the end of its memory."""
        dirty(self.pid, self.memory_mib, mib)

    def resident_mib(self) -> float:
        """Return how many MiB of its memory are in RAM."""
        return resident_mib(Path(f"/proc/{self.pid}/smaps").read_text(), self.memory_mib)

    @property
    def gone(self) -> bool:
        """Whether libvirt has nothing of it but its definition."""
        return not (
            Path(f"/run/libvirt/qemu/{self.name}.xml").exists()
            or list(MEMORY.glob(f"*-{self.name}"))
        )


def resident_mib(smaps: str, memory_mib: int) -> float:
    """Return how many MiB of QEMU's mapping as large as the guest are in RAM (/proc/PID/smaps)."""
    found = re.search(
        rf"^Size: +{memory_mib * 1024} kB\n(?:.*\n)*?Rss: +(\d+) kB$", smaps, re.MULTILINE
    )
    return int(found[1]) * 1024 / MIB if found else 0.0


@contextmanager
def hook_for(backing: str) -> Iterator[None]:
    """Install the hook for the time where the guests are ramshelf's, but not for a peer's."""
    if backing != "ramshelf":
        yield
        return
    ramshelf("hook", "install")
    try:
        yield
    finally:
        ramshelf("hook", "remove")


@contextmanager
def started(
    daemon: Libvirtd,
    backing: str,
    memory_mib: int,
    *,
    name: str = "bench",
    paused: bool = False,
    vcpus: int = 1,
    dirty_mib: int = 0,
    options: str = "",
) -> Iterator[Guest]:
    """Start a guest by ``virsh start``, and take it away at the end.

    The other parameters are those of domain_xml. A guest that is started paused touches none of its
    memory; otherwise even firmware touches some MiB.
    """
    xml = domain_xml(
        name,
        memory_mib,
        memory_backing=BACKINGS[backing],
        vcpus=vcpus,
        dirty_mib=dirty_mib,
        options=f"init_on_alloc=0 {options}",
    )
    if backing == "ramshelf":
        xml = ramshelf("xml", "apply", stdin=xml).stdout
    daemon.define(xml)
    try:
        seconds = timed(
            "virsh", "--connect", daemon.uri, "start", name, *(["--paused"] if paused else [])
        )
        yield Guest(name=name, memory_mib=memory_mib, start_seconds=seconds)
    finally:
        daemon.virsh("destroy", name, ok=(0, 1))
        daemon.virsh("undefine", name)


def rounds(name: str) -> int:
    """Return how often a guest has rewritten its set."""
    return console(name).count("ROUND ")


def end(daemon: Libvirtd, guest: Guest, ending: str) -> float:
    """End a guest in one of the ENDINGS; return the seconds until nothing of it is left."""
    if ending == POWEROFF:
        while "DIRTIED" not in console(guest.name):
            time.sleep(0.002)
    start = time.perf_counter()
    ENDINGS[ending](daemon, guest)
    while not guest.gone:
        if time.perf_counter() - start > _END_SECONDS:
            raise TimeoutError(f"{guest.name} is not gone {_END_SECONDS} s after {ending}")
        time.sleep(0.002)
    return time.perf_counter() - start


def _killed(number: signal.Signals) -> Callable[[Libvirtd, Guest], None]:
    return lambda _, guest: os.kill(guest.pid, number)


def _without_libvirtd(daemon: Libvirtd, guest: Guest) -> None:
    pid = guest.pid
    daemon.kill()
    os.kill(pid, signal.SIGKILL)
    daemon.start()


POWEROFF = "poweroff"
"""The guest powers itself off, once it has dirtied its memory."""

ENDINGS: dict[str, Callable[[Libvirtd, Guest], object]] = {
    "destroy": lambda daemon, guest: daemon.virsh("destroy", guest.name),
    "guest stop --now": lambda _, guest: ramshelf("guest", "stop", guest.name, "--now"),
    "SIGKILL": _killed(signal.SIGKILL),
    "SIGSEGV": _killed(signal.SIGSEGV),
    "libvirtd down": _without_libvirtd,
    "shutdown": lambda daemon, guest: daemon.virsh("shutdown", guest.name),
    "guest stop": lambda _, guest: ramshelf("guest", "stop", guest.name),
    POWEROFF: lambda _daemon, _guest: None,
}
"""The ways in which a guest is ended.

In order they are: virsh destroy; ramshelf's own command, at once; QEMU killed; QEMU crashed; QEMU
killed together with libvirtd, which then starts anew; virsh shutdown, on which the guest powers
itself off; ramshelf's own command, which asks the guest; the guest by itself.
"""

ASLEEP = tuple(ENDINGS)[:5]
"""The endings in which the guest has no part: it need not run."""
