"""The hook killed after each step, broken, or met with files that it did not foresee."""

import json
import os
from pathlib import Path

import pytest

from ramshelf.core.capacity import PROMISE_FILE
from ramshelf.core.hookscript import SCRIPT, HookScript, render
from ramshelf.core.units import MIB
from support.cli import ramshelf
from support.domains import domain_xml
from support.hooks import FaultyHook
from support.libvirtd import Libvirtd
from support.process import run
from support.stores import MEMORY, store

LOG = Path("/run/ramshelf/hook.log")
NUMA = (
    "<cpu><numa><cell id='0' cpus='0' memory='65536' unit='KiB'/>"
    "<cell id='1' memory='65536' unit='KiB'/></numa></cpu>"
)
GUEST = domain_xml("guest", 128, cpu=NUMA, top="<maxMemory slots='1' unit='MiB'>192</maxMemory>")


def contents() -> set[str]:
    return {path.name for path in MEMORY.iterdir()} - {"lost+found"}


def figures() -> dict[str, tuple[int, bool]]:
    """Of the only guest: of each file its MiB, and whether it is fully allocated."""
    [path] = [path for path in MEMORY.iterdir() if path.name != "lost+found"]
    stats = {file.name: file.stat() for file in path.iterdir()}
    return {name: (s.st_size // MIB, s.st_blocks * 512 >= s.st_size) for name, s in stats.items()}


def events() -> list[str]:
    return [json.loads(line)["event"] for line in LOG.read_text().splitlines()] if LOG.exists() else []


def leave_something(libvirtd: Libvirtd) -> None:
    """In the directory of the guest that starts next."""
    libvirtd.create(domain_xml("before", 32, memory_backing=""))
    number = int(libvirtd.virsh("domid", "before").stdout)
    libvirtd.virsh("destroy", "before")
    path = MEMORY / f"{number + 1}-guest"
    path.mkdir()
    (path / "ram-node0").write_bytes(b"old")
    owner = MEMORY.stat()
    os.chown(path, owner.st_uid, owner.st_gid)


@pytest.mark.parametrize("script_too", [False, True], ids=["hook", "script"])
def test_killed_after_each_step(libvirtd: Libvirtd, tmp_path: Path, *, script_too: bool) -> None:
    """At ``start`` the guest is refused and nothing is left, at ``started`` it runs on; the next starts."""
    hook = FaultyHook(tmp_path)
    libvirtd.reload()
    with store("ext4", 300):
        leave_something(libvirtd)
        hook.set()
        libvirtd.create(GUEST)
        libvirtd.virsh("destroy", "guest")
        steps = hook.steps
        assert steps[:3] == ["start begun", "start locked", "start emptied"]
        assert "started decided" in steps
        for step in steps[::3] if script_too else steps:
            leave_something(libvirtd)
            hook.set(kill_at=step, script_too=script_too)
            starting = step.startswith("start ")
            # What kills the script at started is for libvirt a hook that refuses: it ends the guest.
            ended = starting or script_too
            said = libvirtd.create(GUEST, ok=(1,) if ended else (0,)).stderr
            assert hook.steps[-1] == step
            if ended:
                assert "Hook script execution failed" in said, step
                assert contents() == set(), step
                hook.set()
                libvirtd.create(GUEST)
            assert figures() == {"ram-node0": (64, True), "ram-node1": (64, True), PROMISE_FILE: (192, False)}
            libvirtd.virsh("destroy", "guest")
            assert contents() == set(), step


@pytest.mark.parametrize(
    ("python", "main"),
    [("/no/python", None), (None, "/no/hook.py"), (None, "broken.py")],
    ids=["no-python", "no-ramshelf", "broken"],
)
def test_a_broken_hook(libvirtd: Libvirtd, tmp_path: Path, python: str | None, main: str | None) -> None:
    """Guests with memory in files are refused, all others pass; both are on record."""
    (tmp_path / "broken.py").write_text("raise ImportError\n")
    script = HookScript(
        python=python or "/usr/bin/python3", main=str(tmp_path / (main or "broken.py")), config_files=()
    )
    Path(SCRIPT).parent.mkdir()
    Path(SCRIPT).write_text(render(script))
    Path(SCRIPT).chmod(0o755)
    libvirtd.reload()
    with store():
        said = libvirtd.create(domain_xml("a &quot;guest&quot;"), ok=(1,)).stderr
        assert "the hook is broken" in said
        assert "[hook.broken]" in said
        line = json.loads(LOG.read_text().splitlines()[-1])
        assert (line["event"], line["guest"], line["operation"]) == ("broken", 'a "guest"', "start")
        assert line["vetoed"] == 1
        libvirtd.create(domain_xml("other", 32, memory_backing=""))
        assert {"broken"} == set(events())
        assert contents() == set()


def test_a_guest_that_started_while_the_hook_was_broken_is_reserved(
    libvirtd: Libvirtd, tmp_path: Path
) -> None:
    hook = FaultyHook(tmp_path)
    hook.set(broken_at="start")
    libvirtd.reload()
    with store("ext4", 300):
        libvirtd.create(GUEST)
        assert figures() == {"ram-node0": (64, True), "ram-node1": (64, True), PROMISE_FILE: (192, False)}
        assert events() == ["broken", "reserved-late", "started"]


@pytest.mark.parametrize("file_system", ["tmpfs", "xfs"])
def test_one_that_does_not_fit_is_ended(libvirtd: Libvirtd, tmp_path: Path, file_system: str) -> None:
    hook = FaultyHook(tmp_path)
    hook.set(broken_at="start")
    libvirtd.reload()
    with store(file_system, 320):
        said = libvirtd.create(domain_xml("guest", 400), ok=(1,)).stderr
        assert "[capacity.exceeded]" in said
        assert contents() == set()
        assert libvirtd.virsh("list", "--name").stdout.strip() == ""


@pytest.mark.parametrize("file_system", ["tmpfs", "ext4"])
@pytest.mark.parametrize("ids", [[], [("x86_64", "pc", "other.ram")]], ids=["unknown", "other"])
def test_memory_id_that_is_not_known(
    libvirtd: Libvirtd, tmp_path: Path, file_system: str, ids: list[tuple[str, str, str]]
) -> None:
    """The place is held until QEMU has named its file, which is then reserved."""
    hook = FaultyHook(tmp_path)
    hook.set(memory_ids=ids, broken_at="started")
    libvirtd.reload()
    with store(file_system, 300):
        allocated = file_system != "tmpfs"
        libvirtd.create(domain_xml("guest"))
        held = (128, False) if not ids else (128, allocated)
        assert figures() == {(PROMISE_FILE if not ids else "other.ram"): held, "pc.ram": (128, False)}
        if not ids:  # counted once
            hook.set()
            libvirtd.create(domain_xml("second"))
            libvirtd.virsh("destroy", "second")
        libvirtd.virsh("destroy", "guest")
        hook.set(memory_ids=ids)
        libvirtd.create(domain_xml("guest"))
        assert figures() == {"pc.ram": (128, allocated)}
        assert "wrong" not in events()


@pytest.mark.usefixtures("libvirtd")
def test_incoming_migration_and_restore_pass_their_xml() -> None:
    """The calls that may change a guest's XML print nothing, which leaves it as it is."""
    ramshelf("hook", "install")
    for operation in ("migrate", "restore"):
        ended = run(SCRIPT, "guest", operation, "begin", "-", stdin=GUEST)
        assert (ended.stdout, ended.stderr) == ("", "")
