"""What the hook costs a start: its process alone, and a whole ``virsh start`` with and without it."""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Series, in_turns, program_ms
from ramshelf.core.units import MIB
from support.cli import ramshelf
from support.devices import loop_device
from support.domains import domain_xml
from support.libvirtd import Libvirtd

HOOK = "/etc/libvirt/hooks/qemu.d/ramshelf"
MEMORY = Path("/var/lib/libvirt/qemu/ram")
STORE_MIB = {"tmpfs": 1024, "ext4": 6144}
"""Room for 500 files of 1 MiB; ramshelf's ext4 has an inode for every 4 MiB, a guest needs two."""
GUEST_MIB = 128


@dataclass(frozen=True, kw_only=True)
class Row:
    """Milliseconds; ``files`` other guests' memory files lie on the store meanwhile.

    ``hook`` is a call as libvirt makes it at ``start begin``, reservation included; ``true`` is /bin/true and
    ``python`` an empty program in the hook's interpreter, run the same way. ``start_with`` and
    ``start_without`` are ``virsh start`` with the hook installed and not, ``difference`` what of each pair of
    these the hook took.
    """

    store: str
    files: int
    true: Series
    python: Series
    hook: Series
    start_with: Series
    start_without: Series
    difference: Series


def measure(daemon: Libvirtd, *, quick: bool) -> list[Row]:
    """All rows: each store with few and many files."""
    rows = []
    for store in ("ext4",) if quick else ("tmpfs", "ext4"):
        for files in (0, 50) if quick else (0, 50, 500):
            with _store(store), _other_guests(files):
                rows.append(_row(daemon, store, files, quick=quick))
    return rows


def table(rows: Sequence[Row]) -> tuple[Sequence[str], list[Sequence[object]]]:
    """Header and cells: median (and middle half) in milliseconds."""
    header = (
        "STORE",
        "FILES",
        "/bin/true",
        "python -IS",
        "hook",
        "virsh start",
        "without hook",
        "difference",
    )
    return header, [
        (
            row.store,
            row.files,
            row.true,
            row.python,
            row.hook,
            row.start_with,
            row.start_without,
            row.difference,
        )
        for row in rows
    ]


def _row(daemon: Libvirtd, store: str, files: int, *, quick: bool) -> Row:
    daemon.define(domain_xml("bench", GUEST_MIB))
    try:
        ramshelf("hook", "install")
        call = _HookCall()
        alone = in_turns(
            {
                "true": lambda: program_ms("/bin/true"),
                "python": lambda: program_ms(os.path.realpath(sys.executable), "-IS", "-c", "pass"),
                "hook": call.measure,
            },
            5 if quick else 40,
        )
        call.close()
        started = in_turns(
            {"with": lambda: _start(daemon, hook=True), "without": lambda: _start(daemon, hook=False)},
            2 if quick else 9,
        )
    finally:
        ramshelf("hook", "remove")
        daemon.virsh("undefine", "bench")
    return Row(
        store=store,
        files=files,
        **{name: Series.of(values) for name, values in alone.items()},
        start_with=Series.of(started["with"]),
        start_without=Series.of(started["without"]),
        difference=Series.of(
            [one - other for one, other in zip(started["with"], started["without"], strict=True)]
        ),
    )


class _HookCall:
    """``start begin`` as libvirt calls it: the directory is there, empty; the XML is on standard input."""

    def __init__(self) -> None:
        self._directory = MEMORY / "99999-bench"
        self._xml = Path("/run/bench-guest.xml")
        self._xml.write_text(domain_xml("bench", GUEST_MIB).replace("<domain ", "<domain id='99999' ", 1))

    def measure(self) -> float:
        self._directory.mkdir(mode=0o700)
        try:
            milliseconds = program_ms(HOOK, "bench", "start", "begin", "-", stdin=self._xml)
            size = (self._directory / "pc.ram").stat().st_size
            if size != GUEST_MIB * MIB:
                raise RuntimeError(f"the hook reserved {size} bytes")
        finally:
            shutil.rmtree(self._directory)
        return milliseconds

    def close(self) -> None:
        self._xml.unlink()


def _start(daemon: Libvirtd, *, hook: bool) -> float:
    ramshelf("hook", "install" if hook else "remove")
    milliseconds = program_ms("virsh", "--connect", daemon.uri, "start", "bench")
    daemon.virsh("destroy", "bench")
    return milliseconds


@contextmanager
def _store(name: str) -> Iterator[None]:
    if name == "tmpfs":
        ramshelf("store", "create", "--kind", "ram", "--size", f"{STORE_MIB[name]}MiB")
        try:
            yield
        finally:
            ramshelf("store", "remove")
        return
    with loop_device(STORE_MIB[name]) as device:
        ramshelf("store", "create", "--kind", "disk", "--device", device)
        try:
            yield
        finally:
            ramshelf("store", "remove")


@contextmanager
def _other_guests(count: int) -> Iterator[None]:
    """Memory files of 1 MiB, as of other guests."""
    directories = [MEMORY / f"{10000 + number}-other" for number in range(count)]
    try:
        for directory in directories:
            directory.mkdir(mode=0o700)
            with open(directory / "pc.ram", "wb") as file:
                file.truncate(MIB)
        yield
    finally:
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)
