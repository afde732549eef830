"""Every ending, on every kind of store: nothing of the guest is left, and nothing of it is written.

Beside each guest runs its paired control: the same guest on a store of its own that is made alike,
dirty for the same time, and not ended. What is written to the control's device, or to the guest's
before it ends, is background writeback. A tmpfs has none; but the swap is the whole machine's, and
what others put there is still there when the guest is gone, unless they have read it back. Where
either was under way, the measurement says little, and is repeated; so it is where more was written
than an ending may write.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ramshelf.core.hook.call import AFTERCARE
from ramshelf.core.store.directory import FileUsage
from ramshelf.core.units import MIB
from ramshelf.node.guest.look import measure_resident
from ramshelf.system.procfs import swaps
from support.cgroup import memory_limit
from support.cli import ramshelf
from support.counters import device_of, sync, written
from support.devices import loop_device, own_swaps, scratch, unmount
from support.domains import IMAGE, KERNEL_WORDS, domain_xml, qemu_pid, wait_console
from support.libvirtd import Libvirtd
from support.process import run, wait_until
from support.stores import MEMORY, store

STORES = ("ext4", "xfs", "tmpfs", "swap")
SIZE_MIB = 320
GUEST_MIB = 192
DIRTY_MIB = 96
MKFS = {"ext4": "-E lazy_itable_init=0,lazy_journal_init=0"}


def guest_stop(_: Libvirtd) -> None:
    assert json.loads(ramshelf("guest", "stop", "guest", "--json").stdout)["how"] == "shut down"


def guest_stop_now(_: Libvirtd) -> None:
    ramshelf("guest", "stop", "guest", "--now")


def destroy(libvirtd: Libvirtd) -> None:
    libvirtd.virsh("destroy", "guest")


def shutdown(libvirtd: Libvirtd) -> None:
    libvirtd.virsh("shutdown", "guest")


def poweroff_inside(_: Libvirtd) -> None:
    """The guest does it by itself."""


def crash(_: Libvirtd) -> None:
    os.kill(qemu_pid("guest") or 0, signal.SIGSEGV)


def kill(_: Libvirtd) -> None:
    os.kill(qemu_pid("guest") or 0, signal.SIGKILL)


def kill_without_libvirtd(libvirtd: Libvirtd) -> None:
    """What lies there until libvirtd is back, it finds and removes."""
    pid = qemu_pid("guest") or 0
    libvirtd.kill()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "QEMU is gone")
    assert list(MEMORY.glob("*-guest/pc.ram")) != []
    libvirtd.start()


def restart_meanwhile(libvirtd: Libvirtd) -> None:
    """The daemon, libvirtd, restarts while the guest shuts down."""
    libvirtd.virsh("shutdown", "guest")
    libvirtd.restart()


ENDINGS: tuple[Callable[[Libvirtd], None], ...] = (
    guest_stop,
    guest_stop_now,
    destroy,
    shutdown,
    poweroff_inside,
    crash,
    kill,
    kill_without_libvirtd,
    restart_meanwhile,
)


TOLERANCE = DIRTY_MIB * MIB // 100
ATTEMPTS = 5
"""The number of undisturbed measurements, if more is written than an ending may write."""

PATIENCE = 240
"""Seconds after which no more measurements are made.

If the background disturbed all of them, the last one counts.
"""


ON_TWO = ("xfs", "swap")
"""The store on which an ending has cost the most, and the one on which it is to cost nothing.

On the other stores all endings are tested by the soak.
"""

ON_ALL = (destroy,)


def matrix() -> Iterator[object]:
    """Every ending on every store."""
    for end in ENDINGS:
        for file_system in STORES:
            name = f"{end.__name__.replace('_', '-')}-{file_system}"
            marks = () if end in ON_ALL or file_system in ON_TWO else pytest.mark.soak
            yield pytest.param(end, file_system, id=name, marks=marks)


@pytest.mark.parametrize(("end", "file_system"), list(matrix()))
def test_an_ending_leaves_and_writes_nothing(
    libvirtd: Libvirtd, file_system: str, end: Callable[[Libvirtd], None]
) -> None:
    ramshelf("hook", "install")
    options = "ramshelf.poweroff" if end is poweroff_inside else ""
    xml = domain_xml("guest", GUEST_MIB, dirty_mib=DIRTY_MIB, options=options)

    def run_and_end(figures: Figures) -> None:
        if end is poweroff_inside:
            figures.ends_from_now()
        libvirtd.create(xml)
        if end is not poweroff_inside:
            wait_console("guest", "DIRTIED")
            figures.ends_from_now()
        end(libvirtd)
        wait_until(gone, "the guest is gone")
        wait_until(
            lambda: libvirtd.virsh("list", "--name").stdout.strip() == "",
            "libvirt has seen it end",
        )
        assert json.loads(ramshelf("capacity", "--json").stdout)["promised_mib"] == 0

    assert written_by(run_and_end, file_system) <= TOLERANCE


def gone() -> bool:
    """Whether nothing of the guest is left on the store."""
    return not [path for path in MEMORY.iterdir() if path.name != "lost+found"]


def written_by(
    run_and_end: Callable[["Figures"], None], file_system: str, *, immediate: bool = False
) -> int:
    """Bytes that the ending of a guest wrote to the store's device, less those of the background.

    Of the best measurement that nothing disturbed: an ending that flushes does so every time.
    """
    deadline = time.monotonic() + PATIENCE
    undisturbed: list[int] = []
    while True:
        with measured(file_system, immediate=immediate) as figures:
            run_and_end(figures)
            written, meanwhile, background = figures.taken()
        if background <= TOLERANCE:
            undisturbed.append(written - meanwhile)
        least = min(undisturbed, default=written - meanwhile)
        unwritten = undisturbed and least <= TOLERANCE
        if unwritten or len(undisturbed) == ATTEMPTS or time.monotonic() > deadline:
            return least


class Figures:
    """What has been written to the store's device and to the control's."""

    def __init__(self, file_system: str, control: "Control | None") -> None:
        self._device = device_of(file_system)
        self.control = control
        sync()
        self._start = self._counters()

    def ends_from_now(self) -> None:
        """What is written from now on is the ending's; the guest and the control are dirty."""
        if self.control:
            self.control.wait_dirtied()
        self._begin = self._counters()

    def settle(self) -> None:
        """Wait until guest and control are dirty, and nothing has been written for a second."""
        if self.control:
            self.control.wait_dirtied()
        before = self._counters()

        def unchanged() -> bool:
            nonlocal before
            time.sleep(1)
            last, before = before, self._counters()
            return last == before

        wait_until(unchanged, "writeback has ended")

    def early(self) -> int:
        """Bytes that were written before the ending began."""
        return self._begin[0] - self._start[0]

    def taken(self) -> tuple[int, int, int]:
        """Bytes since the ending began, in the background meanwhile, and in the background in all.

        The guest is gone; what the store's file system still had to write is written.
        """
        sync()
        (start, begin, end), (control, since, until) = zip(
            self._start, self._begin, self._counters(), strict=True
        )
        others = swapped()
        return end - begin, until - since + others, begin - start + until - control + others

    def _counters(self) -> tuple[int, int]:
        return written(self._device), written(self.control.device) if self.control else 0


def swapped() -> int:
    """Bytes in the tests' own swap, if there is any."""
    return sum(area.used for area in swaps() if area.path in own_swaps())


def out_of_ram() -> int:
    """Bytes of the guest's memory on a tmpfs that have gone to a swap area, whoever's it is.

    Others have swap areas of their own.
    """
    [path] = MEMORY.glob("*-guest/pc.ram")
    status = path.stat()
    allocated = status.st_blocks * 512
    file = FileUsage(
        path=str(path), apparent=status.st_size, allocated=allocated, inode=status.st_ino
    )
    return allocated - measure_resident(file)


@contextmanager
def measured(file_system: str, *, immediate: bool = False) -> Iterator[Figures]:
    """A store, and where it has a file system of its own a control that starts now."""
    with ExitStack() as stack:
        stack.enter_context(store(file_system, SIZE_MIB, options=MKFS.get(file_system, "")))
        disk = file_system in {"ext4", "xfs"}
        yield Figures(
            file_system,
            stack.enter_context(control(file_system, immediate=immediate)) if disk else None,
        )


class Control:
    """The same guest by QEMU alone, which nobody ends while it is looked at."""

    def __init__(self, directory: Path, *, immediate: bool) -> None:
        self.device = os.stat(directory).st_dev
        self._console = scratch() / "control.console"
        self._console.write_text("")
        memory = self._memory = directory / "pc.ram"
        with memory.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, GUEST_MIB * MIB)
        run("sync", "--file-system", str(directory))
        prealloc = ",prealloc=on" if immediate else ""
        argv = f"""
            qemu-system-x86_64 -nodefaults -display none -accel tcg -m {GUEST_MIB}
            -object memory-backend-file,id=pc.ram,mem-path={memory},share=on,\
size={GUEST_MIB}M{prealloc}
            -machine pc,memory-backend=pc.ram -serial file:{self._console}
            -kernel {IMAGE}/vmlinuz -initrd {IMAGE}/initramfs -append
        """
        words = f"{KERNEL_WORDS} ramshelf.dirty={DIRTY_MIB}"
        self._qemu = subprocess.Popen([*argv.split(), words])

    def wait_dirtied(self) -> None:
        wait_until(
            lambda: "DIRTIED" in self._console.read_text(errors="replace"),
            "the control is dirty",
        )

    @property
    def pid(self) -> int:
        return self._qemu.pid

    def end(self) -> None:
        self._qemu.kill()
        self._qemu.wait()
        self._memory.unlink()  # unmounting would write it


@contextmanager
def control(file_system: str, *, immediate: bool) -> Iterator[Control]:
    """A control on a file system of its own, made as the store's is."""
    at = scratch() / "control"
    at.mkdir(exist_ok=True)
    with loop_device(SIZE_MIB) as device:
        run(f"mkfs.{file_system}", "-q", *MKFS.get(file_system, "").split(), device)
        run("mount", device, str(at))
        with ExitStack() as stack:
            stack.callback(unmount, str(at))
            guest = Control(at, immediate=immediate)
            stack.callback(guest.end)
            yield guest


NOVA = "<source type='file'/><access mode='shared'/><allocation mode='immediate'/><discard/>"


@pytest.mark.parametrize("file_system", ["xfs", pytest.param("ext4", marks=pytest.mark.soak)])
def test_nova_s_own_element(libvirtd: Libvirtd, file_system: str) -> None:
    """Guests that somebody else starts with discard: where that flushes, the flag is taken back."""
    ramshelf("hook", "install")

    def run_and_end(figures: Figures) -> None:
        libvirtd.create(domain_xml("guest", GUEST_MIB, dirty_mib=DIRTY_MIB, memory_backing=NOVA))
        if file_system == "xfs":
            wait_until(lambda: not flag(libvirtd, "pc.ram"), "the flag is taken back")
        wait_console("guest", "DIRTIED")
        figures.ends_from_now()
        libvirtd.virsh("destroy", "guest")
        assert gone()

    assert written_by(run_and_end, file_system, immediate=True) <= TOLERANCE
    assert ("discard-retracted" in events()) is (file_system == "xfs")
    assert set(events()) - {"discard-retracted", "ended"} == {"reserved", "started"}


def test_without_the_hook_nova_s_element_flushes_on_xfs(libvirtd: Libvirtd) -> None:
    """What is prevented, and that the counters see it."""
    with measured("xfs", immediate=True) as figures:
        libvirtd.create(domain_xml("guest", GUEST_MIB, dirty_mib=DIRTY_MIB, memory_backing=NOVA))
        wait_console("guest", "DIRTIED")
        figures.ends_from_now()
        libvirtd.virsh("destroy", "guest")
        assert figures.taken()[0] > DIRTY_MIB * MIB


@pytest.mark.parametrize("file_system", STORES)
def test_the_figures(libvirtd: Libvirtd, tmp_path: Path, file_system: str) -> None:
    """Figures of starts and stops, by ramshelf or the hook, never exceed what was written."""
    ramshelf("hook", "install")
    xml = tmp_path / "guest.xml"
    xml.write_text(domain_xml("guest", GUEST_MIB, dirty_mib=DIRTY_MIB))
    with store(file_system, SIZE_MIB, options=MKFS.get(file_system, "")):
        sync()
        first = counter_mib(file_system)
        started = json.loads(ramshelf("guest", "start", str(xml), "--json").stdout)
        assert 0 <= started["written_mib"] <= counter_mib(file_system) - first + ROUNDING
        wait_console("guest", "DIRTIED")
        before = counter_mib(file_system)
        stopped = json.loads(ramshelf("guest", "stop", "guest", "--json").stdout)
        assert 0 <= stopped["written_mib"] <= counter_mib(file_system) - before + ROUNDING
        assert (started["reserved_mib"], stopped["released_mib"]) == (GUEST_MIB, GUEST_MIB)
        assert stopped["dropped_mib"] + counter_mib(file_system) - first >= DIRTY_MIB
        assert stopped["dropped_mib"] <= GUEST_MIB
        assert 0 < started["seconds"] < stopped["seconds"] + 60
        libvirtd.virsh("start", "guest")
        wait_console("guest", "DIRTIED")
        libvirtd.virsh("destroy", "guest")
        wait_until(lambda: events().count("ended") == 2, "both ends are on record")
        entries = [entry for entry in log() if entry["event"] == "started"]
        assert len(entries) == 2
        for entry in entries:
            assert 0 < entry["seconds"] < 300
            assert 0 <= entry["written_mib"] <= counter_mib(file_system) - first + ROUNDING
            assert entry["promised_mib"] == GUEST_MIB


ROUNDING = 0.1


def counter_mib(file_system: str) -> float:
    """The counter that a store's figures go by, in MiB.

    It is the device's own, and for a tmpfs what all has gone to swap.
    """
    if file_system in {"ext4", "xfs"}:
        return written(device_of(file_system)) / MIB
    words = Path("/proc/vmstat").read_text().split()
    return int(words[words.index("pswpout") + 1]) * os.sysconf("SC_PAGE_SIZE") / MIB


def test_discard_is_taken_back_where_the_hook_was_not(libvirtd: Libvirtd) -> None:
    def run_and_end(figures: Figures) -> None:
        libvirtd.create(domain_xml("guest", GUEST_MIB, dirty_mib=DIRTY_MIB, memory_backing=NOVA))
        wait_console("guest", "DIRTIED")
        figures.ends_from_now()
        ramshelf("guest", "stop", "guest", "--now")

    assert written_by(run_and_end, "xfs") <= TOLERANCE


NUMA = (
    "<cpu><numa><cell id='0' cpus='0' memory='65536' unit='KiB'/>"
    "<cell id='1' memory='65536' unit='KiB'/></numa></cpu>"
)
DIMM = "<memory model='dimm'><target><size unit='MiB'>64</size><node>0</node></target></memory>"


def test_discard_is_taken_back_from_every_memory_file(libvirtd: Libvirtd) -> None:
    ramshelf("hook", "install")
    xml = domain_xml(
        "guest",
        192,
        memory_backing=NOVA,
        cpu=NUMA,
        devices=DIMM,
        top="<maxMemory slots='1' unit='MiB'>192</maxMemory>",
    )
    backends = {"ram-node0", "ram-node1", "memdimm0"}
    with store("xfs", SIZE_MIB):
        libvirtd.create(xml)
        wait_until(lambda: "discard-retracted" in events(), "the flags are taken back")
        [entry] = [entry for entry in log() if entry["event"] == "discard-retracted"]
        assert set(entry["backends"]) == backends
        assert not any(flag(libvirtd, backend) for backend in backends)
        libvirtd.virsh("destroy", "guest")
        assert gone()


def test_what_could_not_be_done_for_want_of_the_installation_is_on_record(
    libvirtd: Libvirtd,
) -> None:
    """As where its virtual environment was removed and another ramshelf is not installed yet."""
    ramshelf("hook", "install")
    [named] = Path("/usr/local/lib/ramshelf/hook").glob(f"*/{AFTERCARE}")
    named.write_text("/usr/bin/python3\n")
    with store("xfs", SIZE_MIB):
        libvirtd.create(domain_xml("guest", GUEST_MIB, memory_backing=NOVA))
        wait_until(lambda: "no-aftercare" in events(), "it is told")
        [entry] = [entry for entry in log() if entry["event"] == "no-aftercare"]
        assert (entry["guest"], entry["tasks"]) == ("guest", ["discard"])
        assert "No module named 'ramshelf'" in entry["reason"]
    ramshelf("hook", "install")


RAM_MIB = 128
"""For QEMU and the guest's memory, which together are larger."""


@pytest.mark.parametrize("file_system", ["swap", "ext4"])
def test_an_ending_under_memory_pressure(libvirtd: Libvirtd, file_system: str) -> None:
    """What was swapped out or written back already is given up too, and nothing more is written."""
    ramshelf("hook", "install")
    for _ in range(ATTEMPTS):
        with measured(file_system) as figures, ExitStack() as limits:
            if figures.control:
                limits.enter_context(memory_limit(figures.control.pid, RAM_MIB))
            libvirtd.virsh(
                "create",
                "--paused",
                "/dev/stdin",
                stdin=domain_xml("guest", GUEST_MIB, dirty_mib=DIRTY_MIB),
            )
            limits.enter_context(memory_limit(qemu_pid("guest") or 0, RAM_MIB))
            libvirtd.virsh("resume", "guest")
            wait_console("guest", "DIRTIED")
            figures.settle()
            figures.ends_from_now()
            pressed = out_of_ram() if file_system == "swap" else figures.early()
            libvirtd.virsh("destroy", "guest")
            assert gone()
            written, meanwhile, _ = figures.taken()
        assert pressed > DIRTY_MIB * MIB // 4
        if meanwhile <= TOLERANCE:
            break
    assert written - meanwhile <= TOLERANCE
    assert meanwhile < pressed // 4  # of the swap: the guest's share is free again


def flag(libvirtd: Libvirtd, backend: str) -> bool:
    """discard-data, as QEMU has it."""
    arguments = {"path": f"/objects/{backend}", "property": "discard-data"}
    command = json.dumps({"execute": "qom-get", "arguments": arguments})
    value = json.loads(libvirtd.virsh("qemu-monitor-command", "guest", command).stdout)["return"]
    assert isinstance(value, bool)
    return value


def log() -> list[dict[str, Any]]:
    path = Path("/run/ramshelf/hook.log")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def events() -> list[str]:
    return [entry["event"] for entry in log()]
