"""``ramshelf hook``: installed beside other hooks, seen by the daemon that runs, and removed."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from support.cli import ramshelf
from support.domains import domain_xml
from support.libvirtd import Libvirtd
from support.stores import store

HOOKS = Path("/etc/libvirt/hooks")
SCRIPT = HOOKS / "qemu.d/ramshelf"
PASSING = '#!/bin/sh\necho "$*" >>/run/other-hook.log\n'


def status(ok: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ramshelf("hook", "status", "--json", ok=(ok,)).stdout)
    return found


def tree() -> dict[str, tuple[int, str]]:
    """Mode and text of all that is in libvirt's hook directory."""
    return {
        str(path.relative_to(HOOKS)): (
            stat.S_IMODE(path.stat().st_mode),
            path.read_text() if path.is_file() else "",
        )
        for path in HOOKS.rglob("*")
    }


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_installed_where_there_was_none(libvirtd: Libvirtd) -> None:
    """The daemon runs, and has looked for hooks before: it is made to look again."""
    libvirtd.create(domain_xml("before"))
    assert status(1)["installed"] is False
    said = ramshelf("hook", "install").stdout
    assert "The running libvirt calls it." in said
    assert stat.S_IMODE(SCRIPT.stat().st_mode) == 0o755
    found = status(0)
    assert found == {
        "path": str(SCRIPT),
        "installed": True,
        "current": True,
        "executable": True,
        "foreign": False,
        "problem": "",
        "seen": True,
        "bypass_seconds": 0,
        "bypassed_guests": 0,
    }
    with store():
        assert "[capacity.exceeded]" in libvirtd.create(domain_xml("guest", 600), ok=(1,)).stderr
    assert list(Path("/var/log/libvirt/qemu").glob("ramshelf-probe-*")) == []
    assert "ramshelf-probe" not in libvirtd.virsh("list", "--all", "--name").stdout


def test_installed_twice_changes_nothing(libvirtd: Libvirtd) -> None:
    del libvirtd
    ramshelf("hook", "install")
    before, changed = tree(), SCRIPT.stat().st_ctime_ns
    said = json.loads(ramshelf("hook", "install", "--json").stdout)
    assert (said["actions"], said["seen"]) == ([], True)
    assert (tree(), SCRIPT.stat().st_ctime_ns) == (before, changed)


def test_removed_as_if_it_had_never_been(libvirtd: Libvirtd) -> None:
    before = tree()
    ramshelf("hook", "install")
    ramshelf("hook", "remove")
    assert tree() == before
    assert "no hook to remove" in ramshelf("hook", "remove").stdout
    libvirtd.create(domain_xml("guest"))


def test_dry_run_changes_nothing(libvirtd: Libvirtd) -> None:
    before = tree()
    plan = ramshelf("hook", "install", "--dry-run").stdout
    assert f"+++ {SCRIPT}" in plan
    assert f"chmod 0755 {SCRIPT}" in plan
    assert f"kill -HUP {libvirtd.pid}" in plan
    assert tree() == before
    ramshelf("hook", "install")
    before = tree()
    assert f"rm --force {SCRIPT}" in ramshelf("hook", "remove", "--dry-run").stdout
    assert tree() == before


def test_other_hooks_stay_and_are_called(libvirtd: Libvirtd) -> None:
    executable(HOOKS / "qemu", PASSING)
    executable(HOOKS / "qemu.d/10-other", PASSING)
    libvirtd.reload()
    before = tree()
    ramshelf("hook", "install")
    with store():
        libvirtd.create(domain_xml("guest"))
        calls = Path("/run/other-hook.log").read_text().splitlines()
        assert calls.count("guest start begin -") == 2
        assert any(path.name == "pc.ram" for path in Path("/var/lib/libvirt/qemu/ram").rglob("*"))
    ramshelf("hook", "remove")
    assert tree() == before


def test_somebody_elses_script_of_that_name(libvirtd: Libvirtd) -> None:
    del libvirtd
    executable(SCRIPT, PASSING)
    for verb in ("install", "remove"):
        assert "[hook.foreign]" in ramshelf("hook", verb, ok=(1,)).stderr
    assert SCRIPT.read_text() == PASSING


def test_what_makes_it_outdated_or_unseen(libvirtd: Libvirtd) -> None:
    ramshelf("hook", "install")
    SCRIPT.chmod(0o644)
    assert status(1)["executable"] is False
    ramshelf("hook", "install")
    SCRIPT.write_text(SCRIPT.read_text() + "# edited\n")
    assert status(1)["current"] is False
    ramshelf("hook", "install")
    text = SCRIPT.read_text()
    SCRIPT.unlink()
    libvirtd.reload()
    executable(SCRIPT, text)
    assert status(1)["seen"] is False
    ramshelf("hook", "install")
    assert status(0)["seen"] is True


@pytest.mark.usefixtures("libvirtd")
def test_configuration_files_are_embedded(tmp_path: Path) -> None:
    conf = tmp_path / "own.conf"
    conf.write_text("[ramshelf]\nstrict = true\n[libvirt]\nfile_backed_memory = 64\n")  # strict: of old
    ramshelf("--config-file", str(conf), "hook", "install")
    assert str(conf) in SCRIPT.read_text()
    assert status(1)["current"] is False  # for the default files it would be another
    found = json.loads(ramshelf("--config-file", str(conf), "hook", "status", "--json").stdout)
    assert found["current"] is True


def test_without_a_running_daemon(libvirtd: Libvirtd) -> None:
    libvirtd.stop()
    assert json.loads(ramshelf("hook", "install", "--json").stdout)["seen"] is None
    assert status(0)["seen"] is None
    libvirtd.start()
    with store():
        assert "[capacity.exceeded]" in libvirtd.create(domain_xml("guest", 600), ok=(1,)).stderr
    assert status(0)["seen"] is True
