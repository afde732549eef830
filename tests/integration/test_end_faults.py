"""ramshelf, its hook or libvirtd is SIGKILLed during an ending: nothing is left in the end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import ramshelf
from support.domains import domain_xml, qemu_pid, wait_console
from support.libvirtd import Libvirtd
from support.process import HANG, run, wait_until
from support.stores import MEMORY, store

LOG = Path("/run/ramshelf/hook.log")


def contents() -> list[str]:
    return [path.name for path in MEMORY.iterdir() if path.name != "lost+found"]


def promised() -> int:
    return int(json.loads(ramshelf("capacity", "--json").stdout)["promised_mib"])


def gone_and_the_next_starts(libvirtd: Libvirtd) -> None:
    """Nothing is left of the guest: no file, no directory, no promise, no domain.

    It can start again.
    """
    wait_until(lambda: contents() == [], "nothing is left on the store")
    wait_until(lambda: libvirtd.virsh("list", "--name").stdout.strip() == "", "no guest runs")
    wait_until(lambda: promised() == 0, "libvirtd has told the hook of its end")
    libvirtd.create(domain_xml("guest"))
    assert promised() == 128
    libvirtd.virsh("destroy", "guest")
    assert contents() == []


STOP_AND_DIE = """
import os, signal, sys
from ramshelf.core.config import Config
from ramshelf.node.guest.stop import stop_guest
from ramshelf.system.hypervisor import Hypervisor

def die(step):
    if step == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)

with Hypervisor("qemu:///system") as hypervisor:
    stop_guest(hypervisor, Config(), "guest", timeout=float(sys.argv[2]), after_step=die)
"""


@pytest.mark.parametrize(
    ("step", "timeout"), [("observe", 60), ("ask", 60), ("observe", 0), ("destroy", 0)]
)
def test_ramshelf_killed_while_it_stops_a_guest(hooked: Libvirtd, step: str, timeout: int) -> None:
    """A guest that it has not yet asked runs on; one that was asked ends with nobody waiting."""
    with store("ext4"):
        hooked.create(domain_xml("guest", dirty_mib=32))
        wait_console("guest", "DIRTIED")
        run(sys.executable, "-c", STOP_AND_DIE, step, str(timeout), ok=(-signal.SIGKILL,))
        if step == "observe":
            assert hooked.virsh("domstate", "guest").stdout.strip() == "running"
            how = json.loads(ramshelf("guest", "stop", "guest", "--json").stdout)["how"]
            assert how == "shut down"
        gone_and_the_next_starts(hooked)


def events() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []


def test_the_hook_killed_when_a_guest_has_ended(libvirtd: Libvirtd) -> None:
    """The script dies before it removes the note; whoever looks next sees the guest is gone."""
    ramshelf("hook", "install")
    script = Path("/etc/libvirt/hooks/qemu.d/ramshelf")
    text = script.read_text()
    first = 'case "$2 $3" in'
    with store("ext4"):
        libvirtd.create(domain_xml("guest"))
        wait_until(
            lambda: "started" in [event["event"] for event in events()],
            "it is seen to have started",
        )
        script.write_text(text.replace(first, f'[ "$2" != release ] || kill -9 $$\n{first}', 1))
        libvirtd.virsh("destroy", "guest", ok=(0, 1))
        script.write_text(text)
        assert contents() == []
        assert Path("/run/ramshelf/guests/guest.guest").exists()
        assert promised() == 0
        libvirtd.create(domain_xml("guest", 64))
        assert promised() == 64
        libvirtd.virsh("destroy", "guest")
        gone_and_the_next_starts(libvirtd)


def once_it_was_asked(libvirtd: Libvirtd) -> None:
    """The guest powers off with nobody to tell: QEMU waits, stopped, for a libvirtd."""
    libvirtd.virsh("shutdown", "guest")
    libvirtd.kill()


def while_qemu_ends(libvirtd: Libvirtd) -> None:
    """In the middle of a destroy: QEMU has been told, and ends when libvirtd is gone."""
    pid = qemu_pid("guest") or 0
    os.kill(pid, signal.SIGSTOP)
    with subprocess.Popen(["virsh", "destroy", "guest"], stderr=subprocess.DEVNULL) as destroy:
        wait_until(lambda: is_pending(pid, signal.SIGTERM), "QEMU is told to end")
        libvirtd.kill()
        assert destroy.wait(timeout=HANG) != 0
    assert contents() != []
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "QEMU is gone")


def is_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a signal waits for the process (proc(5), ShdPnd)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [pending] = [int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd:")]
    return bool(pending >> (number - 1) & 1)


def when_qemu_has_ended(libvirtd: Libvirtd) -> None:
    """In the middle of its own clearing up, where it calls the hooks."""
    hook = Path("/etc/libvirt/hooks/qemu.d/assassin")
    hook.write_text(
        f'#!/bin/sh\n[ "$2 $3" = "stopped end" ] && kill -KILL {libvirtd.pid}\nexit 0\n'
    )
    hook.chmod(0o755)
    libvirtd.virsh("destroy", "guest", ok=(1,))
    libvirtd.kill()
    hook.unlink()


@pytest.mark.parametrize("file_system", ["xfs", "swap"])
@pytest.mark.parametrize(
    "kill",
    [once_it_was_asked, while_qemu_ends, when_qemu_has_ended],
    ids=lambda kill: kill.__name__.replace("_", "-"),
)
def test_libvirtd_killed_while_a_guest_ends(
    hooked: Libvirtd, file_system: str, kill: Callable[[Libvirtd], None]
) -> None:
    with store(file_system):
        hooked.create(domain_xml("guest", dirty_mib=32))
        wait_console("guest", "DIRTIED")
        kill(hooked)
        hooked.start()
        gone_and_the_next_starts(hooked)
