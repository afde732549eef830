"""`ramshelf guest` and `capacity` with real libvirt, QEMU and guests."""

import json
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ramshelf.core.config import Config
from ramshelf.core.errors import RefusedError, ServiceError
from ramshelf.node.guest.start import start_guest
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.run import Completed
from support.cli import RAMSHELF, ramshelf
from support.domains import domain_xml, qemu_pid, wait_console
from support.libvirtd import Libvirtd
from support.process import HANG, run, wait_until
from support.stores import MEMORY, store

VETO = Path("/etc/libvirt/hooks/qemu.d/veto")


@pytest.fixture
def hooked(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    """A libvirtd with ramshelf's hook and a store of 512 MiB."""
    with store():
        ramshelf("hook", "install")
        yield libvirtd


def anonymous(name: str, memory_mib: int = 128, **more: Any) -> str:
    return domain_xml(name, memory_mib, memory_backing="", **more)


def file(tmp_path: Path, xml: str) -> str:
    path = tmp_path / "guest.xml"
    path.write_text(xml)
    return str(path)


def document(*args: str) -> Any:
    return json.loads(ramshelf(*args, "--json").stdout)


def refused(*args: str, status: int = 1) -> tuple[str, str]:
    """The code and the one line that ramshelf refuses with; nothing is on standard output."""
    ended = ramshelf(*args, ok=(status,))
    assert ended.stdout == ""
    line, *rest = ended.stderr.splitlines()
    assert all(more.startswith(("hint:", "note:", "warning:")) for more in rest), ended.stderr
    match = re.fullmatch(r"ramshelf: (.+[.?!]) \[(\S+)\]", line)
    assert match is not None, line
    return match[2], ended.stderr


def names(libvirtd: Libvirtd) -> list[str]:
    return libvirtd.virsh("list", "--all", "--name").stdout.split()


def definition(libvirtd: Libvirtd, name: str) -> str:
    return libvirtd.virsh("dumpxml", "--inactive", "--security-info", name).stdout


def test_a_file_s_guest_from_start_to_stop(hooked: Libvirtd, tmp_path: Path) -> None:
    path = file(tmp_path, anonymous("one", dirty_mib=40))
    said = ramshelf("guest", "start", path).stdout
    assert re.fullmatch(
        r"Guest one started in \d+\.\d s, with 128 MiB of file-backed memory\.\n"
        r"128 MiB reserved, [\d.]+ (B|KiB|MiB) written to the store's device meanwhile\.\n",
        said,
    )
    wait_console("one", "DIRTIED 40")

    (listed,) = document("guest", "list")["guests"]
    memory_file = MEMORY / f"{listed['id']}-one" / "pc.ram"
    assert (listed["name"], listed["state"]) == ("one", "running")
    assert [entry["path"] for entry in listed["files"]] == [str(memory_file)]
    assert listed["size_mib"] == listed["promised_mib"] == 128
    assert 40 <= listed["resident_mib"] <= listed["used_mib"] == listed["allocated_mib"] <= 128

    shown = document("guest", "show", "one")
    assert (shown["source"], shown["access"], shown["allocation"]) == ("file", "shared", "ondemand")
    assert shown["files"][0]["path"] == str(memory_file)

    figures = document("capacity")
    assert (figures["total_mib"], figures["promised_mib"], figures["free_mib"]) == (512, 128, 384)
    assert figures["capacity_mib"] == 512
    assert [guest["name"] for guest in figures["guests"]] == ["one"]
    assert figures["unknown"] == []

    stopped = document("guest", "stop", "one")
    assert stopped["how"] == "shut down"
    assert list(MEMORY.iterdir()) == []
    assert "Guest one is not running." in ramshelf("guest", "stop", "one").stdout

    ramshelf("guest", "start", path)  # the file once more: its guest has the UUID that it had
    assert names(hooked) == ["one"]


def test_a_defined_guest_is_made_file_backed_and_nothing_else_changes(hooked: Libvirtd) -> None:
    hooked.define(anonymous("one"))
    before = definition(hooked, "one")
    said = ramshelf("guest", "start", "one", "--verbose").stderr
    assert "+ virsh define /dev/stdin\n+ virsh start one\n" in said
    after = definition(hooked, "one")
    backing = re.search(r"  <memoryBacking>.*</memoryBacking>\n", after, re.DOTALL)
    assert backing is not None
    assert after.replace(backing[0], "") == before
    assert "<discard/>" in backing[0]
    assert "runs already" in ramshelf("guest", "start", "one").stdout


def test_guests_that_others_started_are_listed_and_stopped(hooked: Libvirtd) -> None:
    hooked.create(domain_xml("virsh"))
    hooked.create(anonymous("anonymous"))
    assert [guest["name"] for guest in document("guest", "list")["guests"]] == ["virsh"]
    assert document("guest", "show", "anonymous")["file_backed"] is False
    assert refused("guest", "start", "anonymous")[0] == "guest.not-file-backed"
    text = ramshelf("guest", "list").stdout
    assert re.split(r"  +", text.splitlines()[0])[:5] == [
        *("NAME", "ID", "STATE", "SIZE", "PROMISED")
    ]
    assert text.splitlines()[1].split()[0] == "virsh"
    for argv in (["guest", "list", "--no-headers"], ["--no-headers", "guest", "list"]):
        (row,) = ramshelf(*argv).stdout.splitlines()
        assert row.split()[0] == "virsh"
    of_store, of_guest = ramshelf("capacity", "--no-headers").stdout.splitlines()
    columns = re.split(r"  +", of_guest)
    assert re.split(r"  +", of_store.strip())[2:4] == ["128 MiB", columns[2]]
    assert columns[:2] == ["virsh", "128 MiB"]
    assert ramshelf("store", "clean", "--no-headers").stdout == ""
    assert document("guest", "stop", "virsh", "--now")["how"] == "destroyed"
    assert names(hooked) == ["anonymous"]


def logged() -> list[dict[str, Any]]:
    """The lines of the hook's log."""
    return [json.loads(line) for line in Path("/run/ramshelf/hook.log").read_text().splitlines()]


def refusals() -> list[dict[str, Any]]:
    return [each for each in logged() if each["event"] == "refused"]


def test_a_dry_run_says_what_a_start_does_and_changes_nothing(
    hooked: Libvirtd, tmp_path: Path
) -> None:
    path = file(tmp_path, anonymous("new", 64))
    hooked.define(
        anonymous(
            "known",
            256,
            devices="<graphics type='vnc' autoport='yes' passwd='secret'/>",
        )
    )
    hooked.create(domain_xml("running", 64))
    before = definition(hooked, "known")
    said = document("guest", "start", "known", "--dry-run")
    assert (said["dry_run"], said["already_running"]) == (True, False)
    assert (said["promised_mib"], said["store_free_mib"]) == (256, 448)
    assert 0 < said["ram_needed_mib"] < said["ram_free_mib"]
    define, start = said["actions"]
    assert {"+  <memoryBacking>", '+    <source type="file"/>'} <= set(define["change"])
    assert "secret" in before
    assert "secret" not in str(said)
    assert start["change"] == ["virsh start known"]
    text = ramshelf("guest", "start", path, "--dry-run").stdout
    assert text.startswith("# Define new with file-backed memory\nvirsh define /dev/stdin\n")
    assert "64 MiB of the store, which has 448 MiB free.\n" in text
    assert "runs already" in ramshelf("guest", "start", "running", "--dry-run").stdout
    assert sorted(names(hooked)) == ["known", "running"]
    assert definition(hooked, "known") == before
    assert not [each for each in logged() if each["guest"] in {"known", "new"}]
    running = int(hooked.virsh("domid", "running").stdout)
    ramshelf("guest", "start", "known")
    assert int(hooked.virsh("domid", "known").stdout) == running + 1  # nothing in between
    assert document("guest", "show", "known")["file_backed"] is True


def test_a_dry_run_is_refused_as_the_start_would_be(hooked: Libvirtd, tmp_path: Path) -> None:
    hooked.create(domain_xml("holder", 256))
    hooked.create(anonymous("anonymous", 64))
    for guest in (
        file(tmp_path, anonymous("large", 300)),
        "anonymous",
        "nobody",
        "./nothing.xml",
    ):
        before = refusals()
        code, _ = refused("guest", "start", guest, "--dry-run")
        assert refusals() == before
        assert refused("guest", "start", guest)[0] == code
    assert len(refusals()) == 1  # of the large one


def test_a_dry_run_sees_the_ram_that_the_hook_would_miss(hooked: Libvirtd, tmp_path: Path) -> None:
    conf = Path("/etc/ramshelf/ramshelf.conf")
    conf.parent.mkdir(exist_ok=True)
    conf.write_text("[ramshelf]\nhost_reserved_memory_mb = 100000000\n")
    try:
        path = file(tmp_path, anonymous("one", 64))
        code, said = refused("guest", "start", path, "--dry-run")
        assert code == "ram.exceeded"
        assert refused("guest", "start", path)[0] == code, said
    finally:
        conf.unlink()
    assert names(hooked) == []


def test_a_guest_that_does_not_fit_names_who_holds_the_space(
    hooked: Libvirtd, tmp_path: Path
) -> None:
    hooked.create(domain_xml("holder", 256))
    path = file(tmp_path, anonymous("large", 300))
    code, said = refused("guest", "start", path)
    assert code == "capacity.exceeded"
    assert "44 MiB more than are free" in said
    assert "Held by holder 256 MiB." in said
    assert names(hooked) == ["holder"]
    failed = json.loads(ramshelf("guest", "start", path, "--json", ok=(1,)).stderr)["error"]
    assert (
        failed["facts"]["holders"]
        == [{"guest": "holder", "directory": str(MEMORY / "1-holder"), "promised_mib": 256}]
        or failed["facts"]["holders"][0]["guest"] == "holder"
    )


def test_a_private_mapping_is_said_wherever_one_looks(hooked: Libvirtd) -> None:
    """Without shared access to its file a guest writes to anonymous memory, not to the file."""
    hooked.create(domain_xml("one", 128, memory_backing="<source type='file'/>", dirty_mib=40))
    wait_console("one", "DIRTIED 40")
    pid = qemu_pid("one")
    status = Path(f"/proc/{pid}/status").read_text()
    assert int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]) >= 40 << 10
    found = json.loads(ramshelf("doctor", "--json", ok=(0, 1, 2)).stdout)["findings"]
    [said] = [each for each in found if each["group"] == "guest"]
    assert (said["code"], said["severity"], said["facts"]["private_mib"]) == (
        "guest.private",
        "warning",
        128,
    )
    assert [note["code"] for note in document("guest", "start", "one")["notes"]] == [
        "guest.private"
    ]
    shown = document("guest", "show", "one")
    assert (shown["private_mib"], [note["code"] for note in shown["notes"]]) == (
        128,
        ["guest.private"],
    )
    hooked.virsh("destroy", "one")
    hooked.define(domain_xml("one", 128, memory_backing="<source type='file'/>"))
    assert document("guest", "start", "one")["notes"] == []
    assert document("guest", "show", "one")["private_mib"] == 0


def test_memory_of_qemu_commandline_on_the_store_is_seen_and_said(hooked: Libvirtd) -> None:
    """The guest's memory lies in a backend of its own on the store.

    What libvirt has made for the guest, and is promised, stays unused.
    """
    own = MEMORY / "own"
    own.write_bytes(b"")
    owner = MEMORY.parent.stat()
    os.chown(own, owner.st_uid, owner.st_gid)
    arguments = (
        "-object",
        f"memory-backend-file,id=own,mem-path={own},size=128M,share=on",
        "-machine",
        "memory-backend=own",
    )
    lines = "".join(f"<qemu:arg value='{argument}'/>" for argument in arguments)
    xml = domain_xml("one", 128, top=f"<qemu:commandline>{lines}</qemu:commandline>", dirty_mib=40)
    namespace = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"
    hooked.create(xml.replace("<domain ", f"<domain {namespace} ", 1))
    wait_console("one", "DIRTIED 40")
    assert own.stat().st_blocks * 512 >= 40 << 20
    found = json.loads(ramshelf("doctor", "--json", ok=(0, 1, 2)).stdout)["findings"]
    [said] = [each for each in found if each["code"] == "guest.own-backend"]
    assert said["facts"] == {"guest": "one", "own_mib": 128, "paths": [str(own)]}
    assert document("guest", "show", "one")["own_files"] == [{"path": str(own), "size_mib": 128}]
    assert f"{own} (128 MiB by qemu:commandline)" in ramshelf("guest", "show", "one").stdout
    hooked.virsh("destroy", "one")
    own.unlink()


def test_leftovers_are_shown_as_nobody_s(
    hooked: Libvirtd,  # noqa: ARG001 - a store is there
) -> None:
    stale = MEMORY / "7-gone"
    stale.mkdir()
    (stale / "pc.ram").write_bytes(bytes(8 << 20))
    free = document("capacity")["free_mib"]
    (unknown,) = document("capacity")["unknown"]
    assert unknown == {
        "directory": str(stale),
        "promised_mib": 0,
        "used_mib": 8,
        "allocated_mib": 8,
    }
    assert f"{stale} (no guest's)" in ramshelf("capacity").stdout
    (stale / "pc.ram").unlink()
    # Nobody was promised it, but it was in the way.
    assert document("capacity")["free_mib"] == free + 8


def test_without_hook_or_store_nothing_is_started(libvirtd: Libvirtd, tmp_path: Path) -> None:
    path = file(tmp_path, anonymous("one"))
    assert refused("guest", "start", path)[0] == "store.root-file-system"
    assert refused("guest", "list")[0] == "store.root-file-system"
    assert refused("capacity")[0] == "store.root-file-system"
    with store():
        code, said = refused("guest", "start", path)
    assert code == "hook.missing"
    assert "hint: ramshelf hook install" in said
    assert names(libvirtd) == []


def veto() -> None:
    VETO.write_text("#!/bin/sh\n[ $2 = start ] || exit 0\necho 'no, not today' >&2\nexit 1\n")
    VETO.chmod(0o755)


def test_a_failed_start_leaves_no_new_guest_and_the_old_definition(
    hooked: Libvirtd, tmp_path: Path
) -> None:
    hooked.define(anonymous("old"))
    before = definition(hooked, "old")
    veto()
    code, said = refused("guest", "start", "old")
    assert code == "guest.vetoed"
    assert "no, not today" in said
    assert definition(hooked, "old") == before
    assert refused("guest", "start", file(tmp_path, anonymous("new")))[0] == "guest.vetoed"
    assert names(hooked) == ["old"]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        pytest.param("web ", "web ", id="a blank at the end"),
        pytest.param(" &#9;web", " \tweb", id="blanks at the beginning"),
        pytest.param("we<!-- remark -->b", "web", id="a comment"),
    ],
)
def test_a_name_is_what_libvirt_makes_of_it(
    hooked: Libvirtd, tmp_path: Path, written: str, name: str
) -> None:
    path = file(tmp_path, anonymous("X", 64).replace("<name>X<", f"<name>{written}<"))
    veto()
    assert refused("guest", "start", path)[0] == "guest.vetoed"
    assert names(hooked) == []
    VETO.unlink()
    started = document("guest", "start", path)
    assert (started["name"], started["reserved_mib"]) == (name, 64)
    assert document("guest", "start", path)["already_running"]
    [listed] = document("guest", "list")["guests"]
    assert (listed["name"], listed["promised_mib"]) == (name, 64)
    assert [entry["path"] for entry in listed["files"]] == [
        f"{MEMORY}/{listed['id']}-{name}/pc.ram"
    ]
    assert document("guest", "show", name)["promised_mib"] == 64
    found = json.loads(ramshelf("doctor", "--json", ok=(0, 1, 2)).stdout)["findings"]
    assert {each["code"] for each in found if each["group"] == "guest"} == {"guest.ok"}
    assert document("guest", "stop", name, "--now")["how"] == "destroyed"
    assert document("capacity")["promised_mib"] == 0
    assert list(MEMORY.iterdir()) == []


def test_ramshelf_s_own_hook_speaks_for_itself(hooked: Libvirtd, tmp_path: Path) -> None:
    """If space is gone between the plan and the start, the hook's refusal comes through.

    It comes with its sentence, code and hint.
    """
    path = file(tmp_path, anonymous("late", 300))

    def take_the_space(step: str) -> None:
        if step == "define":
            hooked.create(domain_xml("quick", 256))

    with (
        Hypervisor(hooked.uri) as hypervisor,
        pytest.raises(RefusedError, match="Guest late needs") as caught,
    ):
        start_guest(hypervisor, Config(), Path(path).read_bytes(), after_step=take_the_space)
    assert caught.value.code == "capacity.exceeded"
    assert caught.value.hint.startswith("Held by quick 256 MiB. ")
    assert caught.value.hint.endswith(".")
    assert names(hooked) == ["quick"]


def test_a_guest_that_somebody_else_defined_meanwhile_stays(
    hooked: Libvirtd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file(tmp_path, anonymous("one"))
    define = Hypervisor.define

    def second(self: Hypervisor, xml: str, *, validate: bool = False) -> None:
        hooked.define(anonymous("one"))
        define(self, xml, validate=validate)

    monkeypatch.setattr(Hypervisor, "define", second)
    with Hypervisor(hooked.uri) as hypervisor, pytest.raises(ServiceError, match="already exists"):
        start_guest(hypervisor, Config(), Path(path).read_bytes())
    assert names(hooked) == ["one"]


START_AND_DIE = """
import os, signal, sys
from ramshelf.core.config import Config
from ramshelf.node.guest.start import start_guest
from ramshelf.system.hypervisor import Hypervisor

def die(step):
    if step == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)

wanted = sys.argv[2] if sys.argv[3] == "name" else open(sys.argv[2], "rb").read()
with Hypervisor("qemu:///system") as hypervisor:
    start_guest(hypervisor, Config(), wanted, after_step=die)
"""


@pytest.mark.parametrize("step", ["define", "start"])
@pytest.mark.parametrize("kind", ["name", "file"])
def test_the_next_start_goes_on_where_a_killed_one_stopped(
    hooked: Libvirtd, tmp_path: Path, step: str, kind: str
) -> None:
    path = file(tmp_path, anonymous("one"))
    if kind == "name":
        hooked.define(anonymous("one"))
    wanted = "one" if kind == "name" else path
    run(sys.executable, "-c", START_AND_DIE, step, wanted, kind, ok=(-signal.SIGKILL,))
    said = ramshelf("guest", "start", wanted).stdout
    assert ("runs already" if step == "start" else "started in") in said
    assert names(hooked) == ["one"]
    assert document("capacity")["promised_mib"] == 128


def test_libvirtd_goes_away_in_mid_command(hooked: Libvirtd, tmp_path: Path) -> None:
    path = file(tmp_path, anonymous("one"))
    with (
        Hypervisor(hooked.uri) as hypervisor,
        pytest.raises(ServiceError, match="went away in the middle") as caught,
    ):
        start_guest(
            hypervisor, Config(), Path(path).read_bytes(), after_step=lambda _step: hooked.kill()
        )
    assert caught.value.code == "libvirt.connection-lost"
    assert "may not be what it was before" in caught.value.hint
    for args in (["guest", "list"], ["guest", "stop", "one"], ["guest", "start", path]):
        assert refused(*args)[0] == "libvirt.unreachable"
    told = json.loads(ramshelf("capacity", "--json").stdout)
    assert (told["libvirt"], told["guests"], told["promised_mib"]) == (False, [], 0)
    assert told["total_mib"] > 0
    hooked.start()
    ramshelf("guest", "start", path)
    assert names(hooked) == ["one"]


def test_a_libvirtd_that_restarts_while_a_guest_is_stopped(hooked: Libvirtd) -> None:
    hooked.create(domain_xml("deaf", options="acpi=off"))
    wait_console("deaf", "GUEST-UP")
    with subprocess.Popen(
        [RAMSHELF, "guest", "stop", "deaf"], stderr=subprocess.PIPE, text=True
    ) as stop:
        time.sleep(1)
        hooked.restart()
        _, said = stop.communicate(timeout=HANG)
    assert stop.returncode == 1
    assert "[libvirt.connection-lost]" in said
    assert document("guest", "stop", "deaf", "--timeout", "0.5")["how"] == "destroyed"


def test_stop_ends_a_guest_that_does_not_listen(hooked: Libvirtd) -> None:
    hooked.create(domain_xml("deaf", options="acpi=off"))
    wait_console("deaf", "GUEST-UP")
    stopped = document("guest", "stop", "deaf", "--timeout", "1")
    assert stopped["how"] == "destroyed"
    assert stopped["seconds"] >= 1
    hooked.create(domain_xml("deaf", options="acpi=off"))
    said = ramshelf("guest", "stop", "deaf", "--timeout", "0.5").stdout
    assert said.startswith("Guest deaf did not shut down within 0.5 s, so it was ended.\n")
    assert list(MEMORY.iterdir()) == []


def test_a_paused_guest_is_only_ended_when_that_is_asked_for(hooked: Libvirtd) -> None:
    hooked.create(domain_xml("still"))
    hooked.virsh("suspend", "still")
    assert refused("guest", "stop", "still")[0] == "guest.paused"
    assert document("guest", "list")["guests"][0]["state"] == "paused"
    ramshelf("guest", "stop", "still", "--now")


def test_interrupted_while_it_waits(hooked: Libvirtd) -> None:
    hooked.create(domain_xml("deaf", options="acpi=off"))
    with subprocess.Popen(
        [RAMSHELF, "guest", "stop", "deaf"], stderr=subprocess.PIPE, text=True
    ) as stop:
        time.sleep(1)
        stop.send_signal(signal.SIGINT)
        _, said = stop.communicate(timeout=HANG)
    assert stop.returncode == 130
    assert said.startswith(
        "ramshelf: Interrupted: guest deaf was asked to shut down and still runs. [cli.interrupted]"
    )
    assert "hint: It may yet shut down" in said
    assert names(hooked) == ["deaf"]


def test_interrupted_while_it_starts(hooked: Libvirtd) -> None:
    hooked.define(domain_xml("one"))
    begun, go = Path("/run/begun"), Path("/run/go")
    VETO.write_text(
        f'#!/bin/sh\n[ "$2" = start ] || exit 0\ntouch {begun}\n'
        f"until [ -e {go} ]; do sleep 0.1; done\n"
    )
    VETO.chmod(0o755)
    hooked.reload()
    try:
        with subprocess.Popen(
            [RAMSHELF, "guest", "start", "one"], stderr=subprocess.PIPE, text=True
        ) as start:
            wait_until(begun.exists, "it starts")
            start.send_signal(signal.SIGINT)
            time.sleep(0.5)
            go.touch()
            _, said = start.communicate(timeout=HANG)
    finally:
        VETO.unlink()
        begun.unlink(missing_ok=True)
        go.unlink(missing_ok=True)
    assert start.returncode == 130
    assert said.startswith("ramshelf: Interrupted, but libvirt goes on starting guest one.")
    wait_until(lambda: names(hooked) == ["one"], "it runs")


def test_a_libvirtd_that_does_not_answer_can_be_left(hooked: Libvirtd) -> None:
    os.kill(hooked.pid, signal.SIGSTOP)
    try:
        with subprocess.Popen(
            [RAMSHELF, "guest", "list"], stderr=subprocess.PIPE, text=True
        ) as listing:
            time.sleep(1)
            listing.send_signal(signal.SIGINT)
            _, said = listing.communicate(timeout=HANG)
    finally:
        os.kill(hooked.pid, signal.SIGCONT)
    assert listing.returncode == 130
    assert said.strip() == "ramshelf: Interrupted. [cli.interrupted]"


def test_a_file_that_is_named_like_a_guest(
    hooked: Libvirtd,  # noqa: ARG001 - a libvirtd that answers
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "web1").write_text("<domain/>")
    monkeypatch.chdir(tmp_path)
    code, said = refused("guest", "start", "web1")
    assert code == "guest.not-found"
    assert "ramshelf guest start ./web1" in said


@pytest.mark.parametrize("machine", [" machine='pc'", ""])
def test_a_kvm_guest_where_there_is_no_kvm(hooked: Libvirtd, tmp_path: Path, machine: str) -> None:
    if "domain type='kvm'" in hooked.virsh("capabilities").stdout:
        pytest.skip("libvirt has found KVM here")
    xml = domain_xml("one", virt_type="kvm").replace(" machine='pc'", machine)
    code, said = refused("guest", "start", file(tmp_path, xml))
    assert code == "host.kvm"
    assert "hint: Enable virtualization" in said


def test_unknown_names(hooked: Libvirtd) -> None:  # noqa: ARG001 - a libvirtd that answers
    for verb in ("start", "stop", "show"):
        code, said = refused("guest", verb, "nobody")
        assert code == "guest.not-found"
        assert "knows no guest 'nobody'. [guest.not-found]\nhint: 'virsh list --all'" in said
    assert refused("guest", "start", "/nonexistent.xml")[0] == "xml.file"


def test_another_guest_of_the_same_name_stays(hooked: Libvirtd, tmp_path: Path) -> None:
    hooked.define(anonymous("one", 64))
    before = definition(hooked, "one")
    code, said = refused("guest", "start", file(tmp_path, anonymous("one")))
    assert code == "guest.exists"
    assert "ramshelf guest start one" in said
    assert definition(hooked, "one") == before


def test_a_file_with_the_uuid_of_a_guest_replaces_it(hooked: Libvirtd, tmp_path: Path) -> None:
    hooked.define(anonymous("one", 64))
    uuid = hooked.virsh("domuuid", "one").stdout.strip()
    xml = anonymous("one", 128).replace(
        "<name>one</name>", f"<name>one</name><uuid>{uuid.upper()}</uuid>"
    )
    ramshelf("guest", "start", file(tmp_path, xml))
    assert document("guest", "show", "one")["memory_mib"] == 128


def test_what_libvirt_refuses_is_said_in_one_line(hooked: Libvirtd, tmp_path: Path) -> None:
    path = file(tmp_path, anonymous("odd", top="<no-such-element/>"))
    assert refused("guest", "start", path)[0] == "xml.refused"
    assert names(hooked) == []


def test_a_saved_guest_comes_back_as_it_was_saved(hooked: Libvirtd) -> None:
    hooked.define(anonymous("anonymous"))
    hooked.virsh("start", "anonymous")
    wait_console("anonymous", "GUEST-UP")
    hooked.virsh("managedsave", "anonymous")
    assert refused("guest", "start", "anonymous")[0] == "guest.saved"
    hooked.virsh("managedsave-remove", "anonymous")
    ramshelf("guest", "start", "anonymous")
    hooked.virsh("managedsave", "anonymous")
    ramshelf("guest", "start", "anonymous")


def test_numa_cells_and_memory_devices(
    hooked: Libvirtd,  # noqa: ARG001 - a libvirtd that answers
    tmp_path: Path,
) -> None:
    cpu = (
        "<cpu><numa><cell id='0' cpus='0' memory='64' unit='MiB' memAccess='private'/>"
        "<cell id='1' memory='64' unit='MiB'/></numa></cpu>"
    )
    dimm = (
        "<memory model='dimm' access='private'><target><size "
        "unit='MiB'>128</size><node>0</node></target></memory>"
    )
    xml = anonymous(
        "parts", 256, cpu=cpu, devices=dimm, top="<maxMemory slots='2' unit='MiB'>384</maxMemory>"
    )
    ramshelf("guest", "start", file(tmp_path, xml))
    (guest,) = document("guest", "list")["guests"]
    assert {Path(entry["path"]).name: entry["size_mib"] for entry in guest["files"]} == {
        "ram-node0": 64,
        "ram-node1": 64,
        "dimm0": 128,
    }
    assert (guest["size_mib"], guest["promised_mib"]) == (256, 384)
    maps = Path(f"/proc/{run('pidof', 'qemu-system-x86_64').stdout.strip()}/maps").read_text()
    assert all(" rw-s " in line for line in maps.splitlines() if str(MEMORY) in line)


def test_off_starts_guests_without_files(hooked: Libvirtd, tmp_path: Path) -> None:
    conf = tmp_path / "ramshelf.conf"
    conf.write_text("[libvirt]\nfile_backed_memory = 0\n")
    started = ramshelf(
        "--config-file", str(conf), "guest", "start", file(tmp_path, anonymous("one"))
    )
    assert "[config.off]" in started.stderr
    assert "memory that is not file-backed" in started.stdout
    assert "memoryBacking" not in definition(hooked, "one")


def complete(*words: str) -> list[str]:
    environment = {
        **os.environ,
        "_RAMSHELF_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["ramshelf", *words]),
        "COMP_CWORD": str(len(words)),
    }
    ended = subprocess.run([RAMSHELF], env=environment, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    return [line.split(",")[1] for line in ended.stdout.splitlines() if line.startswith("plain")]


def test_completion_of_guests_names(hooked: Libvirtd) -> None:
    hooked.create(domain_xml("running"))
    hooked.define(anonymous("resting"))
    assert complete("guest", "stop", "r") == ["running"]
    assert complete("guest", "start", "r") == ["resting"]
    hooked.kill()
    assert complete("guest", "stop", "r") == []
    hooked.start()


def as_nobody(*args: str) -> Completed:
    nobody = pwd.getpwnam("nobody")
    return run(
        "setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups",
        RAMSHELF, *args,
        ok=(1,),
    )  # fmt: skip


def test_without_permission(hooked: Libvirtd) -> None:  # noqa: ARG001 - a libvirtd that answers
    for socket in Path("/run/libvirt").glob("*-sock*"):
        socket.chmod(0o700)
    for args in (["guest", "list"], ["guest", "stop", "one"], ["capacity"]):
        assert re.match(r"ramshelf: .+ \[libvirt\.permission\]\nhint: ", as_nobody(*args).stderr)


def test_a_closed_pipe(hooked: Libvirtd) -> None:  # noqa: ARG001 - a libvirtd that answers
    ended = run(
        "bash", "-c", f"sleep 0.5 | {RAMSHELF} guest list --json | true; echo ${{PIPESTATUS[1]}}"
    )
    assert ended.stdout in {"0\n", "1\n"}
    assert ended.stderr == ""


def test_a_host_that_is_not_there(hooked: Libvirtd) -> None:
    hooked.create(domain_xml("one"))
    there = "qemu+tcp://nowhere.invalid/system"
    code, said = refused("guest", "migrate", "one", there)
    assert code == "libvirt.unreachable"
    assert f"hint: 'virsh --connect {there} list' has to work here" in said


def test_other_libvirts_are_refused() -> None:
    for uri in (
        "qemu+ssh://elsewhere/system",
        "qemu:///session",
        "test:///default",
        "nonsense:///",
    ):
        code, _ = refused("--connect", uri, "guest", "list")
        assert code in {
            "libvirt.remote",
            "libvirt.session",
            "libvirt.driver",
            "libvirt.unreachable",
        }


def test_the_progress_on_a_terminal(hooked: Libvirtd) -> None:
    hooked.create(domain_xml("one"))
    wait_console("one", "GUEST-UP")
    ended = run("script", "-qec", f"{RAMSHELF} guest stop one", "/dev/null")
    assert "Waiting for one to shut down: 0 of 120 s" in ended.stdout
    wait_until(lambda: list(MEMORY.iterdir()) == [], "nothing is left")
