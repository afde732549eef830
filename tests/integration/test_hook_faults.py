"""The hook killed after each step, broken, or met with files that it did not foresee."""

import json
import os
import shutil
from pathlib import Path

import pytest

from ramshelf.core.hook.script import SCRIPT, HookScript, render
from ramshelf.core.store.directory import PROMISE_FILE
from ramshelf.core.units import MIB
from ramshelf.system.locks import store_lock
from support.cli import ramshelf
from support.domains import FILE_BACKED, domain_xml
from support.hooks import FaultyHook, bypassed
from support.libvirtd import Libvirtd
from support.onstore import wait_recorded
from support.process import run
from support.stores import MEMORY, store

LOG = Path("/run/ramshelf/hook.log")
NOTES = Path("/run/ramshelf/guests")
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
    return (
        [json.loads(line)["event"] for line in LOG.read_text().splitlines()] if LOG.exists() else []
    )


def leave_something(libvirtd: Libvirtd) -> None:
    """In the directory of the guest that starts next."""
    libvirtd.create(domain_xml("before", 32, memory_backing=""))
    number = int(libvirtd.virsh("domid", "before").stdout)
    libvirtd.virsh("destroy", "before")
    path = MEMORY / f"{number + 1}-guest"
    path.mkdir()
    (path / "ram-node0").write_bytes(b"old")
    owner = MEMORY.parent.stat()
    os.chown(path, owner.st_uid, owner.st_gid)


def promised() -> int:
    """MiB that are promised, by ramshelf."""
    return int(json.loads(ramshelf("capacity", "--json").stdout)["promised_mib"])


def notes() -> list[str]:
    return sorted(path.name for path in NOTES.iterdir()) if NOTES.exists() else []


@pytest.mark.parametrize("script_too", [False, True], ids=["hook", "script"])
def test_killed_after_each_step(libvirtd: Libvirtd, tmp_path: Path, *, script_too: bool) -> None:
    """At ``start`` the guest is refused and nothing is left, at ``started`` it runs on.

    In both cases the next guest starts.
    """
    hook = FaultyHook(tmp_path)
    libvirtd.reload()
    with store("ext4", 300):
        leave_something(libvirtd)
        hook.set()
        libvirtd.create(GUEST)
        hook.wait("started decided")
        libvirtd.virsh("destroy", "guest")
        steps = hook.steps
        assert steps[:3] == ["start begun", "start locked", "start emptied"]
        for step in steps[::3] if script_too else steps:
            leave_something(libvirtd)
            hook.set(kill_at=step, script_too=script_too)
            refused = step.startswith("start ")
            said = libvirtd.create(GUEST, ok=(1,) if refused else (0,)).stderr
            hook.wait(step)
            assert hook.steps[-1] == step
            if refused:
                assert "Hook script execution failed" in said, step
                assert (contents(), notes(), promised()) == (set(), [], 0), step
                hook.set()
                libvirtd.create(GUEST)
            assert figures() == {
                "ram-node0": (64, True),
                "ram-node1": (64, True),
                PROMISE_FILE: (192, False),
            }
            assert promised() == 192, step
            libvirtd.virsh("destroy", "guest")
            assert (contents(), notes(), promised()) == (set(), [], 0), step


@pytest.mark.parametrize(
    ("python", "main"),
    [("/no/python", None), (None, "/no/hook.py"), (None, "broken.py")],
    ids=["no-python", "no-ramshelf", "broken"],
)
@pytest.mark.parametrize("backing", ["", FILE_BACKED], ids=["anonymous", "file"])
def test_a_broken_hook_refuses_those_whom_it_concerns(
    libvirtd: Libvirtd, tmp_path: Path, python: str | None, main: str | None, backing: str
) -> None:
    (tmp_path / "broken.py").write_text("raise ImportError\n")
    script = HookScript(
        python=python or "/usr/bin/python3",
        main=str(tmp_path / (main or "broken.py")),
        config_files=(),
    )
    Path(SCRIPT).parent.mkdir()
    Path(SCRIPT).write_text(render(script))
    Path(SCRIPT).chmod(0o755)
    libvirtd.reload()
    with store():
        xml = domain_xml("a &quot;guest&quot;", memory_backing=backing)
        said = libvirtd.create(xml, ok=(1,) if backing else (0,)).stderr
        assert ("[hook.broken]" in said) is bool(backing)
        line = json.loads(LOG.read_text().splitlines()[0])
        assert (line["event"], line["guest"], line["operation"]) == ("broken", 'a "guest"', "start")
        assert line["vetoed"] == bool(backing)


def test_a_guest_that_passed_by_a_bypass_is_reserved_once_it_runs(
    libvirtd: Libvirtd, tmp_path: Path
) -> None:
    hook = FaultyHook(tmp_path)
    hook.set(broken_at="start")
    libvirtd.reload()
    with store("ext4", 300), bypassed():
        libvirtd.create(GUEST)
        hook.wait("started decided")
        assert figures() == {"ram-node0": (64, True), "ram-node1": (64, True)}
        assert promised() == 192
        assert events() == ["bypassed", "reserved-late", "started"]


def test_one_that_passed_by_a_bypass_and_does_not_fit_counts(libvirtd: Libvirtd) -> None:
    """It runs, so nobody else is admitted on the same space."""
    ramshelf("hook", "install")
    libvirtd.reload()
    with store("tmpfs", 320):
        with bypassed():
            libvirtd.create(domain_xml("guest", 400))
        assert "bypassed" in events()
        wait_recorded("guest", "started")
        assert "overpromised" in events()
        assert promised() == 400
        assert "[capacity.exceeded]" in libvirtd.create(domain_xml("other", 64), ok=(1,)).stderr
        libvirtd.virsh("destroy", "guest")
        assert promised() == 0
        libvirtd.create(domain_xml("other", 64))


def test_a_file_of_a_name_that_was_not_known_and_has_no_room_any_more(
    libvirtd: Libvirtd, tmp_path: Path
) -> None:
    """Its place was promised but not yet taken when something else fills the disk.

    libvirt ends the guest.
    """
    hook = FaultyHook(tmp_path)
    hook.set(memory_ids=[])
    filler = Path("/etc/libvirt/hooks/qemu")
    filler.write_text(f'#!/bin/sh\n[ "$2" != started ] || fallocate -l 200M {MEMORY}/foreign\n')
    filler.chmod(0o755)
    libvirtd.reload()
    with store("ext4", 300):
        assert "[store.full]" in libvirtd.create(domain_xml("guest"), ok=(1,)).stderr
        assert contents() == {"foreign"}
        assert (notes(), promised()) == ([], 0)


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
        assert figures() == {
            (PROMISE_FILE if not ids else "other.ram"): held,
            "pc.ram": (128, False),
        }
        if not ids:  # counted once
            hook.set()
            libvirtd.create(domain_xml("second"))
            libvirtd.virsh("destroy", "second")
        libvirtd.virsh("destroy", "guest")
        hook.set(memory_ids=ids)
        libvirtd.create(domain_xml("guest"))
        hook.wait("started decided")
        assert figures() == {"pc.ram": (128, allocated)}
        assert "wrong" not in events()


@pytest.mark.usefixtures("libvirtd")
def test_incoming_migration_and_restore_pass_their_xml() -> None:
    """The calls that may change a guest's XML print nothing, which leaves it as it is."""
    ramshelf("hook", "install")
    for operation in ("migrate", "restore"):
        ended = run(SCRIPT, "guest", operation, "begin", "-", stdin=GUEST)
        assert (ended.stdout, ended.stderr) == ("", "")


def test_whom_it_does_not_concern_waits_for_nobody(libvirtd: Libvirtd) -> None:
    """An anonymous guest starts though the store's lock is held and no notes can be written."""
    ramshelf("hook", "install")
    with store("tmpfs", 300), store_lock():
        libvirtd.create(domain_xml("one", 64, memory_backing=""))
        shutil.rmtree(NOTES)
        NOTES.write_text("no directory")
        libvirtd.create(domain_xml("two", 64, memory_backing=""))
        NOTES.unlink()
    assert {event for event in events() if event in {"refused", "broken"}} == set()


def test_a_hook_that_does_not_end_holds_up_neither_the_doctor_nor_libvirt(hooked: Libvirtd) -> None:
    script = Path(SCRIPT)
    script.write_text(script.read_text().replace("\n", "\nexec sleep 1000\n", 1))
    found = json.loads(ramshelf("doctor", "--json", ok=(2,)).stdout)["findings"]
    (broken,) = [each for each in found if each["code"] == "hook.broken"]
    assert "did not end within" in broken["message"]
    assert not hooked.virsh("list", "--name").stdout.split()
