"""``ramshelf hook``: installed beside other hooks, seen by the daemon that runs, and removed."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from ramshelf.core.hook.call import AFTERCARE
from ramshelf.core.hook.copy import DIRECTORY, MAIN
from ramshelf.node.hook import manage as hook
from ramshelf.system import ledger
from support.agent import agent
from support.cli import RAMSHELF, ramshelf
from support.domains import domain_xml
from support.libvirtd import Libvirtd
from support.process import HANG, run
from support.stores import MEMORY, store

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
        "view": [],
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
    # The option strict is an old one.
    conf.write_text("[ramshelf]\nstrict = true\n[libvirt]\nfile_backed_memory = 64\n")
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


def findings() -> dict[str, dict[str, Any]]:
    found = json.loads(ramshelf("doctor", "--json", ok=(0, 1, 2)).stdout)["findings"]
    return {each["code"]: each for each in found}


@pytest.mark.usefixtures("libvirtd")
def test_it_runs_on_the_distributions_python_from_a_copy_of_its_own() -> None:
    ramshelf("hook", "install")
    [copy] = Path(DIRECTORY).iterdir()
    assert f"/usr/bin/python3 -IS {copy}/{MAIN} " in SCRIPT.read_text()
    assert sys.prefix not in SCRIPT.read_text()
    assert (copy / AFTERCARE).read_text() == f"{sys.executable}\n"
    for path in (copy, *copy.rglob("*")):
        status = path.stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (
            0,
            0o755 if path.is_dir() else 0o644,
        )
    assert {path.name for path in copy.iterdir() if path.is_file()} == {AFTERCARE, compiled().name}
    assert list(copy.rglob("__pycache__")) == []
    ramshelf("hook", "remove")
    assert not Path(DIRECTORY).exists()


def compiled() -> Path:
    """The one file from which the hook has its modules."""
    [copy] = Path(DIRECTORY).iterdir()
    [file] = copy.glob("modules.*")
    return file


def test_what_is_dear_in_os_is_imported_by_no_usual_call(libvirtd: Libvirtd) -> None:
    ramshelf("hook", "install")
    [copy] = Path(DIRECTORY).iterdir()
    with store():
        libvirtd.create(domain_xml("guest"))
        directory = MEMORY / "999-next"
        directory.mkdir()
        xml = domain_xml("next", 64).replace("<domain ", "<domain id='999' ", 1)
        for guest, operation in (("guest", "started"), ("next", "start")):
            argv = (
                "/usr/bin/python3",
                "-IS",
                "-X",
                "importtime",
                f"{copy}/{MAIN}",
                "--",
                guest,
                operation,
            )
            said = run(*argv, "begin", "-", stdin=xml).stderr
            assert " posixpath" in said
            assert " _collections_abc" not in said
        assert (directory / "pc.ram").stat().st_size == 64 << 20
        ledger.remove_note("next")
        shutil.rmtree(directory)


def test_after_an_upgrade_of_python_the_hook_works_from_the_texts(libvirtd: Libvirtd) -> None:
    ramshelf("hook", "install")
    file = compiled()
    file.rename(file.with_name("modules.cpython-30"))
    with store():
        libvirtd.create(domain_xml("guest"))
        assert "[capacity.exceeded]" in libvirtd.create(domain_xml("big", 600), ok=(1,)).stderr
    found = status(1)
    assert (found["current"], found["problem"]) == (False, "")
    ramshelf("hook", "install")
    assert status(0)["current"] is True
    assert compiled() == file


def cut(content: bytes) -> bytes:
    return content[:-1]


def misspelt(content: bytes) -> bytes:
    """The hook's modules still load; the misspelt function is looked up only where it is called."""
    return content.replace(b"ftruncate", b"ftruncase", 1)


@pytest.mark.parametrize("spoil", [cut, misspelt], ids=["cut", "inside"])
def test_a_guest_is_refused_where_what_was_compiled_is_spoilt(
    libvirtd: Libvirtd, spoil: Callable[[bytes], bytes]
) -> None:
    """And the installation knows it, and mends it."""
    ramshelf("hook", "install")
    file = compiled()
    file.write_bytes(spoil(file.read_bytes()))
    assert status(1)["current"] is False
    assert "hook.outdated" in findings()
    with store(), agent() as running:
        assert "[hook.broken]" in libvirtd.create(domain_xml("guest"), ok=(1,)).stderr
        assert running.wait_log("guest-refused")["code"] == "hook.broken"
        libvirtd.create(domain_xml("other", 32, memory_backing=""))
        ramshelf("hook", "install")
        assert (status(0)["current"], status(0)["problem"]) == (True, "")
        libvirtd.create(domain_xml("guest"))


def of_another_python(content: bytes) -> bytes:
    return content[:32] + b"\0\0" + content[34:]


def empty(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("spoil", [of_another_python, empty])
def test_what_this_python_has_not_compiled_is_not_run(
    libvirtd: Libvirtd, spoil: Callable[[bytes], bytes]
) -> None:
    """Its magic number tells, and the texts are there."""
    ramshelf("hook", "install")
    file = compiled()
    file.write_bytes(spoil(file.read_bytes()))
    with store():
        libvirtd.create(domain_xml("guest"))
    assert status(1)["problem"] == ""
    ramshelf("hook", "install")
    assert status(0)["current"] is True


@pytest.mark.usefixtures("libvirtd")
def test_a_copy_that_is_not_as_it_should_be_is_outdated_and_made_anew() -> None:
    ramshelf("hook", "install")
    [copy] = Path(DIRECTORY).iterdir()
    main = copy / MAIN
    text = main.read_text()
    for spoil in (
        lambda: main.write_text("edited\n"),
        lambda: main.chmod(0o666),
        main.unlink,
        (copy / "ramshelf/core/added.py").touch,
    ):
        spoil()
        assert status(1)["current"] is False
        assert "hook.outdated" in findings()
        ramshelf("hook", "install")
        assert status(0)["current"] is True
        assert (main.read_text(), stat.S_IMODE(main.stat().st_mode)) == (text, 0o644)
        assert list(Path(DIRECTORY).iterdir()) == [copy]


@pytest.mark.usefixtures("libvirtd")
def test_the_copy_of_the_former_version_stays_until_the_next_installation() -> None:
    """A call that is under way imports from it."""
    ramshelf("hook", "install")
    [copy] = Path(DIRECTORY).iterdir()
    former = copy.with_name("0123456789abcdef")
    copy.rename(former)
    SCRIPT.write_text(SCRIPT.read_text().replace(copy.name, former.name))
    assert status(1)["current"] is False
    for left in ({copy, former}, {copy}):
        ramshelf("hook", "install")
        assert set(Path(DIRECTORY).iterdir()) == left
    assert status(0)["current"] is True


def test_something_else_of_that_name_is_somebody_elses(libvirtd: Libvirtd) -> None:
    del libvirtd
    SCRIPT.parent.mkdir()
    for make in (SCRIPT.mkdir, partial(SCRIPT.symlink_to, "/bin/true"), SCRIPT.touch):
        make()
        for verb in ("install", "remove"):
            assert "[hook.foreign]" in ramshelf("hook", verb, ok=(1,)).stderr
        assert (status(1)["foreign"], status(1)["installed"]) == (True, False)
        assert findings()["hook.foreign"]["severity"] == "failure"
        assert os.path.lexists(SCRIPT)
        if SCRIPT.is_dir() and not SCRIPT.is_symlink():
            SCRIPT.rmdir()
        else:
            SCRIPT.unlink()


@pytest.mark.usefixtures("libvirtd")
def test_many_that_install_and_remove_it_at_once() -> None:
    verbs = ["install", "install", "remove", "install", "remove"]
    processes = [
        subprocess.Popen([RAMSHELF, "hook", verb], stderr=subprocess.PIPE) for verb in verbs
    ]
    for process in processes:
        _, said = process.communicate(timeout=HANG)
        # One that was removed right after it was installed may not be called any more, or be gone
        # when libvirt executes it.
        gone = (b"hook.not-called", b"hook.broken", b"hook.denied")
        assert process.returncode == 0 or any(code in said for code in gone), said
    ramshelf("hook", "install")
    assert status(0)["current"] is True


def kill_at(last: int, number: int) -> None:
    if number == last:
        os.kill(os.getpid(), SIGKILL)


def test_killed_after_each_step_the_next_run_goes_on(libvirtd: Libvirtd) -> None:
    """Before the script is there guests start as if nothing were; from then on it works."""
    before = tree()
    for last in range(20):
        if child := os.fork():
            killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        else:
            try:
                hook.install(
                    Libvirtd.uri,
                    hook.wanted_hook(),
                    dry_run=False,
                    after_step=partial(kill_at, last),
                )
            finally:
                os._exit(0)
        libvirtd.create(domain_xml("other", 32, memory_backing=""))
        libvirtd.virsh("destroy", "other")
        ramshelf("hook", "install")
        assert status(0)["current"] is True
        ramshelf("hook", "remove")
        assert not Path(DIRECTORY).exists()
        if SCRIPT.parent.exists():  # that it was made for this a run that was killed could not say
            SCRIPT.parent.rmdir()
        assert tree() == before
        if not killed:
            break
    assert last > 3
    assert not killed


@pytest.mark.parametrize(
    ("mode", "code", "ended"),
    [(0o644, "hook.denied", "126"), (0o755, "hook.no-python", "127")],
    ids=["denied", "not-there"],
)
def test_libvirt_cannot_run_what_root_can(
    libvirtd: Libvirtd, tmp_path: Path, mode: int, code: str, ended: str
) -> None:
    """As by a security profile, or in a container."""
    file = tmp_path / "python3"
    file.write_text("#!/nonexistent\n")
    file.chmod(mode)
    with libvirtd.seeing(f"mount --bind {file} /usr/bin/python3"):
        said = ramshelf("hook", "install", ok=(1,)).stderr
        assert f"[{code}]" in said
        assert f"(status {ended})" in said
        assert "hint: " in said
        found = status(1)
        assert (found["seen"], f"(status {ended})" in found["problem"]) == (True, True)
        assert findings()["hook.broken"]["severity"] == "failure"
        with store():
            assert "[hook.broken]" in libvirtd.create(domain_xml("guest"), ok=(1,)).stderr
            libvirtd.create(domain_xml("other", 32, memory_backing=""))
    ramshelf("hook", "install")
    assert status(0)["problem"] == ""


def test_the_bypass_lets_guests_pass_until_it_ends(libvirtd: Libvirtd) -> None:
    ramshelf("hook", "install")
    big = domain_xml("guest", 600)
    with store():
        assert "[capacity.exceeded]" in libvirtd.create(big, ok=(1,)).stderr
        begun = json.loads(ramshelf("hook", "bypass", "--for", "30min", "--json").stdout)
        assert 0 < begun["bypass_seconds"] <= 1800
        assert begun["bypassed_guests"] == 0
        libvirtd.create(big)
        found = status(0)
        assert 0 < found["bypass_seconds"] <= 1800
        assert (found["bypassed_guests"], found["seen"]) == (1, True)
        finding = findings()["hook.bypassed"]
        assert finding["severity"] == "warning"
        assert "1 guest passed" in finding["message"]
        libvirtd.virsh("destroy", "guest")
        ended = ramshelf("hook", "bypass", "--end").stdout
        assert "guests that passed by it: 1" in ended
        assert "not bypassed" in ramshelf("hook", "bypass", "--end").stdout
        assert "[capacity.exceeded]" in libvirtd.create(big, ok=(1,)).stderr
        assert "hook.bypassed" not in findings()


@pytest.mark.usefixtures("libvirtd")
@pytest.mark.parametrize(
    "words", [["--for", "0min"], ["--for", "25h"], ["--for", "soon"], [], ["--for", "1h", "--end"]]
)
def test_a_bypass_that_makes_no_sense(words: list[str]) -> None:
    assert "[hook.bypass-time]" in ramshelf("hook", "bypass", *words, ok=(255,)).stderr
    assert status(1)["bypass_seconds"] == 0


@pytest.mark.usefixtures("libvirtd")
@pytest.mark.usefixtures("libvirtd")
@pytest.mark.parametrize(
    "place", [Path(DIRECTORY).parent.parent, Path(SCRIPT).parent.parent], ids=str
)
def test_a_file_system_that_is_read_only_is_named(place: Path) -> None:
    run("mount", "--bind", str(place), str(place))
    run("mount", "-o", "remount,bind,ro", str(place))
    try:
        said = ramshelf("hook", "install", ok=(1,)).stderr
    finally:
        run("umount", str(place))
    assert f"ramshelf: {place}/" in said
    assert "Read-only file system. [system.io]\nhint: 'findmnt --target" in said
    assert not Path(SCRIPT).exists()


def test_not_root() -> None:
    as_nobody = ("setpriv", "--reuid", "65534", "--clear-groups", RAMSHELF, "hook")
    for verb in (["install"], ["bypass", "--for", "1h"], ["bypass", "--end"]):
        assert "[hook.needs-root]" in run(*as_nobody, *verb, ok=(1,)).stderr
    ramshelf("hook", "install")
    for verb in (["status"], ["install", "--dry-run"]):
        assert run(*as_nobody, *verb).stderr == ""
    assert "[hook.needs-root]" in run(*as_nobody, "remove", ok=(1,)).stderr
    assert SCRIPT.exists()
