"""The demo that `make demo` shows.

It runs inside scripts/isolated, which takes back what an interrupted one leaves.
"""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import guest_image
from support.cli import RAMSHELF
from support.devices import loop_device, loops, own_swaps
from support.domains import FILE_BACKED, IMAGE, domain_xml, wait_console
from support.kvm import why_not_kvm
from support.libvirtd import Libvirtd
from support.process import wait_until

STORE_MIB = 512
GUEST_MIB = 320
DIRTY_MIB = 200
MEMORY = Path("/var/lib/libvirt/qemu/ram")

AGENT_GUEST_MIB = 128
AGENT_LOG = Path("/run/guest/agent.log")
METRICS = "http://127.0.0.1:10177/metrics"
ALLOCATED = "ramshelf_placement_allocated_bytes"

BESIDE_STORE_MIB = 800
BESIDE_GUEST_MIB = 512
BESIDE_DIRTY_MIB = 256
NOVA = "<source type='file'/><access mode='shared'/><allocation mode='immediate'/><discard/>"
"""What OpenStack Nova writes into a guest's <memoryBacking>."""

_COLOURED = sys.stdout.isatty() and "NO_COLOR" not in os.environ


class DemoError(Exception):
    """Something did not go as it should."""


def main() -> None:
    """Show the demo, step by step."""
    started = time.monotonic()
    say(
        "ramshelf with a libvirtd of its own, apart from this machine's: the machine's libvirt, "
        "guests",
        "and its files are not touched, and all that is made here is gone at the end.",
    )
    guest_image.install(IMAGE)
    os.environ["PATH"] = f"{os.path.dirname(RAMSHELF)}:{os.environ['PATH']}"
    heading("Does KVM run a guest here?")
    virt_type = probe()

    Path("/etc/ramshelf").mkdir()
    Path("/etc/ramshelf/ramshelf.conf").write_text(
        f"[libvirt]\nvirt_type = {virt_type}\n"
        "[ramshelf]\nplacement = embedded\nplacement_owner = true\n"
        "placement_database = /run/placement/placement.sqlite\n"
    )

    heading("A libvirtd of its own")
    libvirtd = Libvirtd()
    libvirtd.start()
    say(*libvirtd.virsh("version").stdout.strip().splitlines()[-2:])
    try:
        with loop_device(STORE_MIB + 32) as device:
            show_store(device, virt_type, libvirtd)
        with loop_device(BESIDE_STORE_MIB) as device:
            show_beside(device, virt_type, libvirtd)
    finally:
        libvirtd.reset()
        libvirtd.close()
    if loops() or own_swaps() or os.path.ismount(MEMORY):
        raise DemoError("something is left behind")
    heading(f"Done in {time.monotonic() - started:.0f} s. Nothing is left.")


def probe() -> str:
    """Return "kvm" where KVM boots a guest within a few seconds, else "qemu"."""
    if why := why_not_kvm(seconds=6):
        say(f"No: {why}. QEMU's own emulation (TCG) takes its place: slower, all else the same.")
        return "qemu"
    say("Yes: a guest booted.")
    return "kvm"


def show_store(device: str, virt_type: str, libvirtd: Libvirtd) -> None:
    """Show the way from a bare block device to a guest on a store, and back."""
    heading(f"A store on {device}: guest memory in RAM first, on the device when RAM is short")
    ramshelf("store", "create", "--kind", "swap", "--size", f"{STORE_MIB}MiB", "--device", device)
    heading("libvirt's hook, which guards the store whoever starts a guest")
    ramshelf("hook", "install")
    heading("OpenStack Placement, the real one, embedded for trying out, is told of this host")
    ramshelf("placement", "report")
    heading("What does the doctor say?")
    ramshelf("doctor", ok=(0, 1))
    heading("The store is empty")
    ramshelf("capacity")

    before = written(device)
    heading(
        f"A guest of {GUEST_MIB} MiB that dirties {DIRTY_MIB} MiB; its XML says nothing of files"
    )
    guest = define("demo", GUEST_MIB, virt_type, dirty_mib=DIRTY_MIB)
    ramshelf("guest", "start", guest)
    wait_console("demo", f"DIRTIED {DIRTY_MIB}", timeout=90)
    say(f"The guest says: DIRTIED {DIRTY_MIB}")
    heading(
        "Its memory is a file: promised in full, allocated as far as it is used (first column, KiB)"
    )
    show("ls", "-ls", *(str(path) for path in MEMORY.glob("*/*")))
    ramshelf("guest", "list")
    ramshelf("capacity")

    heading("Placement has its allocation, claimed before it started")
    ramshelf("placement", "show")

    heading(f"Another guest of {GUEST_MIB} MiB does not fit, and is refused")
    other = define("other", GUEST_MIB, virt_type)
    ramshelf("guest", "start", other, ok=(1,))
    heading("Nor does it start when virsh is asked: the hook refuses")
    backed = define("backed", GUEST_MIB, virt_type, backing=FILE_BACKED)
    show("virsh", "create", backed, ok=(1,))

    heading("The first guest is stopped: its memory file goes with it")
    ramshelf("guest", "stop", "demo", "--now")
    show("find", str(MEMORY), "-type", "f")
    ramshelf("capacity")
    say(f"Written to {device} from the guest's start to its end: {written(device) - before} MiB.")

    show_agent(virt_type)
    take_back(libvirtd)


def show_agent(virt_type: str) -> None:
    """Show the daemon, and a guest of which it hears from libvirt only."""
    heading("The agent looks after guests that others start, and serves metrics for Prometheus")
    say("$ ramshelf agent run &")
    with (
        AGENT_LOG.open("wb") as log,
        subprocess.Popen([RAMSHELF, "agent", "run"], stderr=log) as agent,
    ):
        try:
            wait_until(lambda: scrape("libvirt_up") == 1, "the agent serves", timeout=90)
            guest = define("theirs", AGENT_GUEST_MIB, virt_type, backing=FILE_BACKED)
            show("virsh", "create", guest)
            wait_until(lambda: scrape(ALLOCATED) > 0, "the agent has told Placement", timeout=90)
            ramshelf("placement", "show")
            say(f"Of its metrics, {METRICS}:")
            say(*(f"  {line}" for line in metrics() if line.startswith("libvirt_domain_")))
            heading("Its QEMU dies; file and allocation go with it")
            show("pkill", "-KILL", "-f", "guest=theirs")
            wait_until(lambda: scrape(ALLOCATED) == 0, "the agent has told Placement", timeout=90)
            show("find", str(MEMORY), "-type", "f")
        finally:
            agent.terminate()
    say("What the agent has logged:")
    for line in map(json.loads, AGENT_LOG.read_text().splitlines()):
        say(f"  {line['level']:8} {line['event']:18} {line['message']}")


def metrics() -> list[str]:
    """Return the lines of the agent's metrics; none as long as it does not serve."""
    with contextlib.suppress(OSError), urllib.request.urlopen(METRICS, timeout=30) as answer:
        return str(answer.read().decode()).splitlines()
    return []


def scrape(name: str) -> float:
    """Return a metric without labels; -1 as long as it is not there."""
    found = [line for line in metrics() if line.startswith(f"{name} ")]
    return float(found[0].split()[1]) if found else -1


def show_beside(device: str, virt_type: str, libvirtd: Libvirtd) -> None:
    """Show the same guest with Nova's element and with ramshelf.

    Both are measured on a file system where the difference shows.
    """
    heading(f"What a start and an end cost: a store on {device} with XFS")
    ramshelf("store", "create", "--kind", "disk", "--fs", "xfs", "--device", device)
    heading(
        f"A guest of {BESIDE_GUEST_MIB} MiB that dirties {BESIDE_DIRTY_MIB} MiB, with Nova's own "
        "element"
    )
    say(NOVA)
    theirs = define("nova", BESIDE_GUEST_MIB, virt_type, dirty_mib=BESIDE_DIRTY_MIB, backing=NOVA)
    figures = [("Nova's element", *cost(device, "nova", theirs))]
    heading("The same guest with ramshelf: its hook, and its element")
    ramshelf("hook", "install")
    plain = define("same", BESIDE_GUEST_MIB, virt_type, dirty_mib=BESIDE_DIRTY_MIB)
    ours = f"{plain.removesuffix('.xml')}-backed.xml"
    show("sh", "-c", f"ramshelf xml apply {plain} >{ours}")
    figures.append(("ramshelf", *cost(device, "same", ours)))
    heading(f"Measured just now; written to {device}, with what was left for the kernel to write")
    say(f"{'':16}{'start':>8}{'written by it':>15}{'end':>10}{'written by it':>15}")
    for name, start_s, start_mib, end_s, end_mib in figures:
        say(f"{name:16}{start_s:>6.1f} s{start_mib:>11} MiB{end_s:>8.1f} s{end_mib:>11} MiB")
    take_back(libvirtd)


def cost(device: str, name: str, guest: str) -> tuple[float, int, float, int]:
    """Return the seconds and MiB written of the guest's start, and of its end.

    It starts paused: what it dirties itself while it boots is not what its start costs. It is ended
    once it has dirtied its memory.
    """
    started = timed(device, "virsh", "create", "--paused", guest)
    show("virsh", "resume", name)
    wait_console(name, f"DIRTIED {BESIDE_DIRTY_MIB}", timeout=90)
    say(f"The guest says: DIRTIED {BESIDE_DIRTY_MIB}")
    return *started, *timed(device, "virsh", "destroy", name)


def timed(device: str, *argv: str) -> tuple[float, int]:
    """Show a command; return the seconds that it took, and the MiB written to the device.

    The MiB include what a sync after it writes.
    """
    before, begun = written(device), time.monotonic()
    show(*argv)
    seconds = time.monotonic() - begun
    subprocess.run(["sync", "--file-system", str(MEMORY)], check=True)
    return seconds, written(device) - before


def take_back(libvirtd: Libvirtd) -> None:
    """Undo what was shown of a store."""
    heading("All is taken back")
    for name in libvirtd.virsh("list", "--all", "--name").stdout.split():
        show("virsh", "undefine", name)
    ramshelf("hook", "remove")
    ramshelf("store", "remove")


def define(
    name: str, memory_mib: int, virt_type: str, *, dirty_mib: int = 0, backing: str = ""
) -> str:
    """Write a guest's XML; return the file's path."""
    path = Path("/run/guest") / f"{name}.xml"
    path.write_text(
        domain_xml(
            name, memory_mib, dirty_mib=dirty_mib, memory_backing=backing, virt_type=virt_type
        )
    )
    return str(path)


def ramshelf(*args: str, ok: Sequence[int] = (0,)) -> None:
    """Run ramshelf, and show it."""
    show(RAMSHELF, *args, ok=ok)


def show(*argv: str, ok: Sequence[int] = (0,)) -> None:
    """Run a command, and show it with what it prints.

    Raises DemoError where its exit status is not in ``ok``.
    """
    print(paint("1", f"  $ {shlex.join((os.path.basename(argv[0]), *argv[1:]))}"), flush=True)
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        for line in running.stdout or ():
            print(f"    {line}", end="", flush=True)
    if running.returncode not in ok:
        raise DemoError(f"{shlex.join(argv)} ended with status {running.returncode}")


def written(device: str) -> int:
    """Return the MiB written to a block device so far, rounded up.

    They are in its stat (Documentation/block/stat: field 7, sectors).
    """
    sectors = int(Path(f"/sys/block/{os.path.basename(device)}/stat").read_text().split()[6])
    return -(-sectors // 2048)


def heading(text: str) -> None:
    """Print the heading of a step of the demo."""
    print(f"\n{paint('1;36', f'== {text}')}", flush=True)


def say(*lines: str) -> None:
    """Print a remark."""
    for line in lines:
        print(f"  {line}", flush=True)


def paint(colour: str, text: str) -> str:
    """Colour a text on a terminal (ECMA-48 SGR parameters)."""
    return f"\033[{colour}m{text}\033[0m" if _COLOURED else text


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, DemoError, TimeoutError, guest_image.GuestImageError) as error:
        sys.exit(f"\ndemo: {error}")
    except KeyboardInterrupt:
        sys.exit("\ndemo: interrupted; what it made is taken back")
