"""The hook: what its process costs, and a whole ``virsh start`` with it and without."""

import ctypes
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from bench.measure import timed
from bench.stores import MEMORY, store
from ramshelf.core.hook.copy import PYTHON
from ramshelf.core.store.ledger import Note
from ramshelf.core.units import MIB
from ramshelf.system import ledger
from support.cli import ramshelf
from support.domains import domain_xml
from support.libvirtd import Libvirtd

HOOK = "/etc/libvirt/hooks/qemu.d/ramshelf"
STORE_MIB = {"tmpfs": 1024, "ext4": 2048}
"""The MiB of each store, which has room for 150 files of 1 MiB.

More guests than 150 need more RAM for QEMU than many a machine has.
"""
GUEST_MIB = 128
_SET_CHILD_SUBREAPER = 36
"""An option of prctl(2): processes whose parent ends become this process's children."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One run of ``what``, while ``guests`` other guests are noted on the store.

    ``hook`` is a call as libvirt makes it at ``start begin``, reservation included; ``/bin/true``
    and ``python -IS``, an empty program in the hook's interpreter, are run the same way. ``...,
    CPU`` is the time that all processors spent on it, ``started`` the call at ``started begin``,
    for whose Python nobody waits, ``both calls`` the sum for a start, and ``release`` the call at
    ``release end``. ``difference`` is how much longer one ``virsh start`` of a pair took with the
    hook installed than the other ``without hook``.
    """

    store: str
    guests: int
    what: str
    milliseconds: float


def measure(daemon: Libvirtd, *, quick: bool) -> Iterator[Sample]:
    """Measure each store with few and many guests."""
    for name in ("ext4",) if quick else ("tmpfs", "ext4"):
        for guests in (0, 50) if quick else (0, 50, 150):
            with store(name, STORE_MIB[name]), _other_guests(guests):
                for what, milliseconds in _measured(daemon, quick=quick):
                    yield Sample(store=name, guests=guests, what=what, milliseconds=milliseconds)


def _measured(daemon: Libvirtd, *, quick: bool) -> Iterator[tuple[str, float]]:
    """Yield what was measured and its milliseconds, in turns; the first round of each warms up."""
    daemon.define(domain_xml("bench", GUEST_MIB))
    try:
        ramshelf("hook", "install")
        daemon.create(domain_xml("running", GUEST_MIB))
        with _hook_call() as hook:
            alone: dict[str, Callable[[], float]] = {
                "/bin/true": lambda: timed("/bin/true"),
                "python -IS": lambda: timed(PYTHON, "-IS", "-c", "pass"),
                "hook": hook,
                "release": lambda: timed(HOOK, "bench", "release", "end", "-"),
            }
            for number in range(1 + (5 if quick else 25)):
                spent = {}
                for what, run in alone.items():
                    before = _cpu()
                    seconds = run()
                    spent[what] = _cpu() - before
                    if number:
                        yield what, seconds * 1000
                        yield f"{what}, CPU", spent[what] * 1000
                started = _with_orphans(HOOK, "running", "started", "begin", "-")
                if number:
                    yield "started, CPU", started * 1000
                    yield "both calls, CPU", (spent["hook"] + started) * 1000
        for number in range(1 + (2 if quick else 8)):
            with_hook, without = _start(daemon, hook=True), _start(daemon, hook=False)
            if number:
                yield "virsh start", with_hook * 1000
                yield "without hook", without * 1000
                yield "difference", (with_hook - without) * 1000
    finally:
        ramshelf("hook", "remove")
        daemon.virsh("undefine", "bench")
        daemon.virsh("destroy", "running", ok=(0, 1))


@contextmanager
def _hook_call() -> Iterator[Callable[[], float]]:
    """Yield a function that calls the hook at ``start begin`` as libvirt does.

    The guest's directory is there and empty, and the XML is on standard input. The function returns
    the seconds that the call took.
    """
    directory, xml = MEMORY / "99999-bench", Path("/run/bench-guest.xml")
    xml.write_text(domain_xml("bench", GUEST_MIB).replace("<domain ", "<domain id='99999' ", 1))

    def call() -> float:
        directory.mkdir(mode=0o700)
        try:
            seconds = timed(HOOK, "bench", "start", "begin", "-", stdin=xml)
            size = (directory / "pc.ram").stat().st_size
        finally:
            shutil.rmtree(directory)
        if size != GUEST_MIB * MIB:
            raise RuntimeError(f"the hook reserved {size} bytes")
        return seconds

    yield call
    xml.unlink()


def _start(daemon: Libvirtd, *, hook: bool) -> float:
    ramshelf("hook", "install" if hook else "remove")
    seconds = timed("virsh", "--connect", daemon.uri, "start", "bench")
    daemon.virsh("destroy", "bench")
    return seconds


def _cpu() -> float:
    """Return the CPU seconds that programs which have ended took on all processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _with_orphans(*argv: str) -> float:
    """Run a program, and return the CPU seconds of it and of all that it leaves running.

    They are counted until the last of these has ended.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            subprocess.run(argv, stdin=subprocess.DEVNULL, check=True)
            with suppress(ChildProcessError):
                while True:
                    os.wait()
            os.write(writer, repr(_cpu()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as file:
        seconds = file.read()
    os.waitpid(child, 0)
    return float(seconds)


@contextmanager
def _other_guests(count: int) -> Iterator[None]:
    """Have notes and memory files of 1 MiB, as of guests that this process is just starting."""
    starter = ledger.starter_of(os.getpid())
    notes = [
        Note(
            name=f"other{number}",
            uuid=str(uuid4()),
            domain_id=10000 + number,
            directory=f"{MEMORY}/{10000 + number}-other{number}",
            promised=MIB,
            starter=starter,
            since=ledger.clock(),
        )
        for number in range(count)
    ]
    try:
        for note in notes:
            Path(note.directory).mkdir(mode=0o700)
            with open(f"{note.directory}/pc.ram", "wb") as file:
                file.truncate(MIB)
            ledger.write_note(note)
        yield
    finally:
        for note in notes:
            shutil.rmtree(note.directory, ignore_errors=True)
            ledger.remove_note(note.name)
