"""``ramshelf status`` on a real libvirtd: a good host, a bare one, and one that does not answer."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ramshelf.core.hook.script import SCRIPT
from support.agent import agent
from support.cli import RAMSHELF, ramshelf
from support.domains import domain_xml
from support.libvirtd import Libvirtd
from support.process import run
from support.stores import MEMORY, store


@pytest.fixture
def hooked(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    """A disk store and the hook."""
    with store("ext4", 512):
        ramshelf("hook", "install")
        yield libvirtd


def status() -> dict[str, Any]:
    ended = ramshelf("status", "--json", ok=(0, 1, 2))
    document: dict[str, Any] = json.loads(ended.stdout)
    assert document["summary"]["exit_status"] == ended.status
    assert ended.stderr == ""
    return document


def test_a_host_with_a_guest_and_an_agent(hooked: Libvirtd) -> None:
    hooked.create(domain_xml("web", 64))
    hooked.create(domain_xml("other", 64, memory_backing=""))
    with agent() as running:
        found = status()
    assert found["store"]["kind"] == "disk"
    assert found["store"]["mount_point"] == str(MEMORY)
    assert found["store"]["promised_mib"] == found["store"]["used_mib"] == 64
    sizes = found["store"]
    assert sizes["free_mib"] == sizes["capacity_mib"] - 64
    assert found["hook"] == {"installed": True, "seen": True, "bypass_seconds": 0}
    pid = running.process.pid
    assert found["agent"] == {"installed": False, "running": True, "process": pid}
    assert found["guests"] == {
        "running": 2,
        "file_backed": 1,
        "promised_mib": 64,
        "used_mib": 64,
    }
    assert status()["agent"]["running"] is False
    screen = ramshelf("status", ok=(0, 1, 2)).stdout
    assert f"store     kind disk, mounted at {MEMORY}\n" in screen
    assert "agent     not installed\n" in screen
    assert (
        "guests    2 running, 1 of them file-backed, using 64 MiB of the 64 MiB promised\n"
        in screen
    )


def test_it_says_what_the_doctor_says_and_tries_nothing(hooked: Libvirtd) -> None:
    doctor = json.loads(ramshelf("doctor", "--json", ok=(0, 1, 2)).stdout)
    hooked.create(domain_xml("before", 64))
    found = status()
    hooked.create(domain_xml("after", 64))
    before, after = (int(hooked.virsh("domid", name).stdout) for name in ("before", "after"))
    assert after == before + 1  # libvirt has tried to start no guest in between
    assert {each["code"] for each in found["findings"]} == {
        each["code"] for each in doctor["findings"] if each["severity"] in {"warning", "failure"}
    }


def test_a_host_with_nothing(libvirtd: Libvirtd) -> None:
    libvirtd.stop()
    try:
        found = status()
    finally:
        libvirtd.start()
    assert found["summary"]["exit_status"] == 2
    assert found["store"]["kind"] is None
    assert found["hook"]["installed"] is False
    assert found["agent"] == {"installed": False, "running": False, "process": None}
    assert found["guests"]["running"] is None
    codes = {each["code"] for each in found["findings"]}
    assert {"versions.libvirt-unreachable", "hook.missing", "store.root-file-system"} <= codes


def test_an_ordinary_user_sees_what_is_not_hidden(hooked: Libvirtd, tmp_path: Path) -> None:
    hooked.create(domain_xml("web", 64))
    argv = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs")
    with agent() as running:
        ended = run(
            *argv,
            "env",
            f"HOME={tmp_path}",
            RAMSHELF,
            "status",
            "--json",
            ok=(1, 2),
        )
    found = json.loads(ended.stdout)
    assert found["store"]["kind"] == "disk"
    assert found["hook"]["installed"] is True
    assert found["agent"]["process"] == running.process.pid
    assert found["summary"]["exit_status"] == ended.status
    assert ended.stderr == ""


def test_a_libvirtd_that_hangs_is_not_waited_for_long(hooked: Libvirtd) -> None:
    os.kill(hooked.pid, signal.SIGSTOP)
    begun = time.monotonic()
    try:
        found = status()
    finally:
        os.kill(hooked.pid, signal.SIGCONT)
    assert time.monotonic() - begun < 15  # on a busy machine
    assert found["libvirt"]["reachable"] is False
    assert found["store"]["kind"] == "disk"


HEAVY = frozenset({"importlib.metadata", "jsonschema", "keystoneauth1", "lxml"})
HEAVY |= {"oslo_config", "placement", "prometheus_client", "psutil"}
"""What takes long to import; oslo.config is for hosts that have a configuration file."""

PROGRAM = """
import json, sys
programs = []
sys.addaudithook(lambda event, args: programs.append(args[1]) if event == "subprocess.Popen" else 0)
from ramshelf.cli.main import run
run(sys.argv[1:])
print(json.dumps([programs, sorted(sys.modules)]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("argv", "programs"),
    [
        ("status", [SCRIPT]),
        ("capacity", []),
        ("store show", []),
        ("guest list", []),
        ("guest show web", []),
        ("hook status", [SCRIPT]),
        ("placement provider-config", []),
        ("store clean --dry-run", []),
    ],
)
def test_a_look_costs_little(hooked: Libvirtd, argv: str, programs: list[str]) -> None:
    """It runs no program but the hook, once, and imports nothing heavy."""
    hooked.create(domain_xml("web", 64))
    ended = run(sys.executable, "-c", PROGRAM, *argv.split())
    run_by_it, modules = json.loads(ended.stderr.splitlines()[-1])
    assert [program[0] for program in run_by_it] == programs
    assert HEAVY.isdisjoint(modules)
