"""The tutorial, typed literally: its commands work, and answer what it shows."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.accelerator import accelerator
from support.cli import RAMSHELF, ramshelf
from support.devices import scratch
from support.domains import IMAGE
from support.libvirtd import Libvirtd
from support.pages import steps, unseen
from support.process import run
from support.stores import MEMORY

PAGE = Path(__file__).parents[2] / "docs/tutorial/first-guest.md"
NOT_TYPED = ("apt-get install",)
"""Whoever set this machine up has typed it."""

STATUS = {
    "ramshelf doctor": range(2),  # A machine without warnings is rare.
    "ramshelf guest start /tmp/second.xml": (1,),
    "ramshelf xml apply": (1,),
}

LIST = "ramshelf guest list"
STOP = "ramshelf guest stop first --now"

OTHERS_SWAP = re.compile(r"^(swap +).*(/srv/ramshelf.swap \([^)]*\)).*", re.MULTILINE)
"""Swap is the kernel's: `store show` tells of the machine's own, too."""


@pytest.fixture
def newcomer(libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host with a kernel in /boot, room in /srv, and ramshelf installed."""
    srv = scratch() / "srv"
    srv.mkdir()
    run("mount", "--bind", str(srv), "/srv")
    run("mount", "-t", "tmpfs", "newcomer", "/boot")
    run("cp", f"{IMAGE}/vmlinuz", f"/boot/vmlinuz-{os.uname().release}")
    monkeypatch.setenv("PATH", f"{os.path.dirname(RAMSHELF)}:{os.environ['PATH']}")
    yield
    libvirtd.virsh("destroy", "first", ok=(0, 1))
    ramshelf("store", "remove", ok=(0, 1))
    run("rm", "-rf", *map(str, made()))
    run("umount", "/boot", "/srv")


def made() -> list[Path]:
    """What the tutorial has made, and that it has removed at its end."""
    tmp = Path("/tmp")
    names = ("tutorial", "first.xml", "second.xml")
    return [path for path in (*Path("/srv").iterdir(), *map(tmp.joinpath, names)) if path.exists()]


@pytest.mark.usefixtures("newcomer")
def test_the_tutorial_fills_a_swap_store_and_writes_nothing() -> None:
    assert made() == []
    said = {}
    for command, shown in steps(PAGE.read_text()):
        if command.startswith(NOT_TYPED):
            continue
        expected = next((ok for begin, ok in STATUS.items() if command.startswith(begin)), (0,))
        ended = run("bash", "-c", f"exec 2>&1\n{command}", ok=expected)  # as on a terminal
        said[command] = OTHERS_SWAP.sub(r"\1\2", ended.stdout)
        assert unseen(shown, said[command]) == [], said[command]
        if command.startswith("cat > /tmp/first.xml") and accelerator() == "qemu":
            run("sed", "-i", "s/type='kvm'/type='qemu'/", "/tmp/first.xml")
    (allocated,) = re.findall(
        r"^first +\d+ +running +1 GiB +1 GiB +([\d.]+) MiB", said[LIST], re.MULTILINE
    )
    assert float(allocated) > 600
    (dropped,) = re.findall(r"^([\d.]+) MiB dropped unwritten", said[STOP], re.MULTILINE)
    assert float(dropped) > 600
    ((written, unit),) = re.findall(r"([\d.]+) (B|KiB|MiB) written", said[STOP])
    assert unit != "MiB" or float(written) < 60
    assert not os.path.ismount(MEMORY)
    assert made() == []
