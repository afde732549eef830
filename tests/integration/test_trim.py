"""Giving back what a save, a dump or a migration has populated of a guest's memory on a tmpfs."""

import fcntl
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from ramshelf.core.units import MIB
from ramshelf.node.guest.trim import trim_guest
from ramshelf.system.heldnotes import HeldNote
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.pagecache import resident
from ramshelf.system.zeropages import Extent, zeros
from support.cli import ramshelf
from support.counters import sync
from support.domains import console, domain_xml, qemu_pid, wait_console
from support.files import usage
from support.libvirtd import Libvirtd
from support.process import run, thread_states, wait_until
from support.second_host import second_host
from support.stores import MEMORY, store

KINDS = (pytest.param("tmpfs", marks=pytest.mark.soak), "swap")
"""One is like the other but for the swap."""
SIZE_MIB = 512
MARGIN_MIB = 24
"""What a guest may take besides while it is looked at: its page cache, its kernel."""


def start(libvirtd: Libvirtd, *, check_mib: int = 16, devices: str = "") -> int:
    """Start a guest that touches little and checks it again and again; MiB that it occupies."""
    libvirtd.define(
        domain_xml("guest", SIZE_MIB, options=f"ramshelf.check={check_mib}", devices=devices)
    )
    libvirtd.virsh("start", "guest")
    wait_console("guest", "CHECKED 2")
    return allocated_mib()


def populate(libvirtd: Libvirtd) -> None:
    """As a backup does: dump the guest while it runs."""
    libvirtd.virsh(
        "dump", "--memory-only", "--live", "guest", str(Path(os.environ["TMPDIR"], "dump"))
    )
    assert allocated_mib() >= SIZE_MIB - 8


def allocated_mib() -> int:
    [path] = MEMORY.glob("*-guest/pc.ram")
    return path.stat().st_blocks * 512 // MIB


def trim() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(ramshelf("guest", "trim", "guest", "--json").stdout)
    return document


def refusal() -> str:
    return str(
        json.loads(ramshelf("guest", "trim", "guest", "--json", ok=(1,)).stderr)["error"]["code"]
    )


def state(libvirtd: Libvirtd) -> str:
    return libvirtd.virsh("domstate", "guest").stdout.strip()


def goes_on(rounds: int = 2) -> None:
    """The guest has checked all of its pattern again, and it was whole."""
    said = console("guest").count("CHECKED")
    wait_until(
        lambda: "DAMAGED" in console("guest") or console("guest").count("CHECKED") >= said + rounds,
        "the guest goes on",
    )
    assert "DAMAGED" not in console("guest")


def trimmed() -> list[dict[str, Any]]:
    log = Path("/run/ramshelf/hook.log").read_text()
    return [entry for entry in map(json.loads, log.splitlines()) if entry["event"] == "trimmed"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_dump_has_populated_is_given_back(hooked: Libvirtd, kind: str) -> None:
    with store(kind, 600):
        before = start(hooked)
        assert before < SIZE_MIB // 2
        populate(hooked)
        figures = trim()
        assert allocated_mib() <= before + MARGIN_MIB
        assert (
            SIZE_MIB - before - MARGIN_MIB <= figures["given_back_mib"] <= figures["examined_mib"]
        )
        assert figures["examined_mib"] <= SIZE_MIB
        assert figures["pauses"] > 0
        assert 0 < figures["longest_pause_ms"] / 1000 < figures["seconds"]
        assert state(hooked) == "running"
        goes_on()
        assert json.loads(ramshelf("capacity", "--json").stdout)["promised_mib"] == SIZE_MIB
        [entry] = trimmed()
        assert entry["given_back_mib"] == figures["given_back_mib"]


@pytest.mark.parametrize("meddled", [pytest.param("alone", marks=pytest.mark.soak), "meddled"])
def test_a_guest_that_clears_and_writes_meanwhile_loses_nothing(
    hooked: Libvirtd, meddled: str
) -> None:
    """Not even while somebody else pauses it and lets it go on again and again."""
    with store("tmpfs", 600), Hypervisor(hooked.uri) as hypervisor:
        start(hooked, check_mib=40)
        with meddling(hooked) if meddled == "meddled" else nullcontext():
            times: list[int] = []

            def often_enough() -> bool:
                times.append(trim_guest(hypervisor, "guest").pauses)
                assert "DAMAGED" not in console("guest")
                return sum(pauses > 0 for pauses in times) >= 3

            wait_until(often_enough, "the guest is trimmed while it has cleared some memory")
        goes_on()


@contextmanager
def meddling(libvirtd: Libvirtd) -> Iterator[None]:
    """Somebody pauses the guest and lets it go on, without end."""
    over = threading.Event()

    def meddle() -> None:
        while not over.is_set():
            libvirtd.virsh("suspend", "guest", ok=(0, 1))
            libvirtd.virsh("resume", "guest", ok=(0, 1))

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert state(libvirtd) == "running"


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_restore_it_is_given_back_by_itself(
    hooked: Libvirtd, tmp_path: Path, kind: str
) -> None:
    tmp_path.chmod(0o777)
    with store(kind, 600):
        before = start(hooked)
        hooked.virsh("save", "guest", str(tmp_path / "saved"))
        hooked.virsh("restore", str(tmp_path / "saved"))
        wait_until(lambda: len(trimmed()) == 1, "the restored guest is trimmed")
        assert allocated_mib() <= before + MARGIN_MIB
        goes_on()
        hooked.virsh("managedsave", "guest")
        hooked.virsh("start", "guest")
        wait_until(lambda: len(trimmed()) == 2, "the guest is trimmed again")
        assert allocated_mib() <= before + MARGIN_MIB
        goes_on()
        hooked.virsh("destroy", "guest")
        hooked.virsh("start", "guest")
        wait_console("guest", "CHECKED")
        assert len(trimmed()) == 2, "an ordinary start populates nothing"


def test_after_a_revert_it_is_given_back_by_itself(hooked: Libvirtd) -> None:
    """The revert is to a snapshot with memory inside the disk image.

    The guest is once shut off and once running.
    """
    image = Path(os.environ["TMPDIR"], "disk.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", str(image), "64M")
    disk = (
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
        f"<source file='{image}'/><target dev='hda' bus='ide'/></disk>"
    )
    with store("tmpfs", 600):
        before = start(hooked, devices=disk)
        hooked.virsh("snapshot-create-as", "guest", "first")
        hooked.virsh("destroy", "guest")
        for reverts in (1, 2):
            hooked.virsh("snapshot-revert", "guest", "first")
            wait_until(lambda: len(trimmed()) == reverts, "the guest is trimmed")  # noqa: B023
            assert allocated_mib() <= before + MARGIN_MIB
            goes_on()
        hooked.virsh("destroy", "guest")
        hooked.virsh("snapshot-delete", "guest", "first")


def test_after_a_migration_it_is_given_back_by_itself(hooked: Libvirtd) -> None:
    with store("tmpfs", 600), second_host("tmpfs", 600) as destination:
        before = start(hooked)
        # Slow enough for what is to trim it to be there before the guest is.
        route = (destination.uri, "--migrateuri", destination.migrate_uri, "--bandwidth", "40")
        hooked.virsh("migrate", "guest", *route)
        log = "/run/ramshelf/hook.log"
        wait_until(lambda: '"trimmed"' in destination.run("cat", log), "the guest is trimmed")
        occupied = (
            int(destination.run("sh", "-c", f"stat -c %b {MEMORY}/*-guest/pc.ram")) * 512 // MIB
        )
        assert occupied <= before + MARGIN_MIB
        assert destination.run("virsh", "domstate", "guest").strip() == "running"
        assert "not-trimmed" not in destination.run("cat", log)
        hooked.virsh("undefine", "guest")


def test_a_guest_that_is_paused_stays_so(hooked: Libvirtd) -> None:
    with store("tmpfs", 600):
        before = start(hooked)
        hooked.virsh("suspend", "guest")
        populate(hooked)
        trim()
        assert allocated_mib() <= before + MARGIN_MIB
        assert state(hooked) == "paused"
        hooked.virsh("resume", "guest")
        goes_on()


DIES = """
import os, signal, sys
from ramshelf.node.guest.trim import trim_guest
from ramshelf.system.hypervisor import Hypervisor
def die(step):
    if step == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)
with Hypervisor("qemu:///system") as hypervisor:
    trim_guest(hypervisor, "guest", after_step=die)
"""


@pytest.mark.parametrize(
    ("before", "step"),
    [
        ("running", "paused"),
        ("running", "held"),
        ("running", "punched"),
        ("paused", "held"),
        ("paused", "punched"),
    ],
)
def test_a_guest_outlives_who_holds_it(hooked: Libvirtd, before: str, step: str) -> None:
    with store("tmpfs", 600):
        start(hooked)
        if before == "paused":
            hooked.virsh("suspend", "guest")
        populate(hooked)
        ended = subprocess.run([sys.executable, "-c", DIES, step], check=False)
        assert ended.returncode == -signal.SIGKILL
        pid = qemu_pid("guest") or 0
        wait_until(lambda: not {"T", "t"} & thread_states(pid), "QEMU goes on")
        if before == "paused":
            assert state(hooked) == "paused"
            wait_until(lambda: trim_again()["given_back_mib"] > 0, "the guard has ended")
            hooked.virsh("resume", "guest")
        wait_until(lambda: state(hooked) == "running", "the guest runs again")
        goes_on()


def trim_again() -> dict[str, Any]:
    """Trim; what is still locked by the guard of one that died gives back nothing."""
    ended = ramshelf("guest", "trim", "guest", "--json", ok=(0, 1))
    return json.loads(ended.stdout) if ended.status == 0 else {"given_back_mib": 0}


def test_a_libvirtd_that_dies_meanwhile(hooked: Libvirtd) -> None:
    """The guest is let go on as soon as libvirtd is back."""
    die = DIES.replace(
        "os.kill(os.getpid(), signal.SIGKILL)", f"os.kill({hooked.pid}, signal.SIGKILL)"
    )
    with store("tmpfs", 600):
        start(hooked)
        populate(hooked)
        ended = subprocess.run(
            [sys.executable, "-c", die, "held"], capture_output=True, check=False
        )
        assert b"connection-lost" in ended.stderr or b"went away" in ended.stderr
        pid = qemu_pid("guest") or 0
        wait_until(lambda: not {"T", "t"} & thread_states(pid), "QEMU goes on")
        hooked.kill()  # reaps it
        hooked.start()
        wait_until(lambda: state(hooked) == "running", "the guest runs again")
        goes_on()


def test_refused(hooked: Libvirtd) -> None:
    with store("xfs", 600):
        hooked.create(domain_xml("guest"))
        assert refusal() == "guest.keeps-extents"
        hooked.virsh("destroy", "guest")
        assert refusal() == "guest.not-found"
    with store("tmpfs", 600):
        hooked.create(domain_xml("guest", memory_backing=""))
        assert refusal() == "guest.not-file-backed"
        hooked.virsh("destroy", "guest")
        start(hooked)
        [path] = MEMORY.glob("*-guest/pc.ram")
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0):
            assert refusal() == "guest.memory-shared"
        with HeldNote("guest"):
            assert refusal() == "guest.busy"
        directory = os.open(path.parent, os.O_RDONLY)
        fcntl.flock(directory, fcntl.LOCK_EX)
        assert trim()["seconds"] > 0, "what QEMU's user can do as well keeps nobody from it"
        os.close(directory)
        hooked.virsh("destroy", "guest")
        assert refusal() == "guest.state"


def test_what_is_swapped_out_stays_so(libvirtd: Libvirtd) -> None:  # noqa: ARG001 - resets the host
    """The kernel may swap out more meanwhile, if something else needs RAM; nothing comes in."""
    size = 64 * MIB
    with store("swap", 300):
        path = MEMORY / "file"
        with path.open("w+b") as file:
            file.truncate(size)
            with mmap.mmap(file.fileno(), 0) as memory:
                memory[: size // 2] = b"x" * (size // 2)
                memory[size // 4 : size // 2 : mmap.PAGESIZE] = bytes(size // 4 // mmap.PAGESIZE)
                memory[size // 2 :] = bytes(size // 2)
                memory.madvise(_MADV_PAGEOUT, 0, size // 4)
            sync()
            in_ram = resident(usage(path))
            if in_ram == size:
                pytest.skip("this kernel still has them in its swap cache, and cannot tell")
            blocks = [zeros(file.fileno(), Extent(at, 2 * MIB)) for at in range(0, size, 2 * MIB)]
            after = resident(usage(path))
            assert after <= sum(examined for examined, _ in blocks) <= in_ram
            found = sum(extent.length for _, found in blocks for extent in found)
            assert size // 2 - (in_ram - after) <= found <= size // 2
        path.unlink()


def test_a_page_that_is_not_read_whole_is_kept(
    libvirtd: Libvirtd,  # noqa: ARG001 - resets the host
) -> None:
    """As where a read ends early since a page is broken: what follows is not known to be zero."""
    pages = 3
    with store("tmpfs", 64):
        path = MEMORY / "file"
        path.write_bytes(bytes(pages * mmap.PAGESIZE + 100))
        with path.open("rb") as file:
            _, found = zeros(file.fileno(), Extent(0, (pages + 1) * mmap.PAGESIZE))
        path.unlink()
    assert found == [Extent(0, pages * mmap.PAGESIZE)]


_MADV_PAGEOUT = 21
"""madvise(2): reclaim these pages; not in Python's mmap."""
