"""What local users without privileges can do to ramshelf: nothing."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ramshelf.core.agent.unit import DOOR
from ramshelf.core.config import Config
from ramshelf.core.host import Unknown
from ramshelf.node.placement import nova_owns
from ramshelf.system.filesystem import read_text
from ramshelf.system.processes import libvirt_daemons, nova_compute, processes
from support.agent import Agent, agent
from support.cli import RAMSHELF, ramshelf
from support.domains import domain_xml
from support.libvirtd import Libvirtd
from support.listener import UNPRIVILEGED, Listener, listener
from support.process import HANG, run, wait_until
from support.stores import store

NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
HALF_OPEN = """
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 2048))
clients = []
for _ in range(1000):
    clients.append(socket.create_connection(("127.0.0.1", 10177), timeout=60))
    try:
        clients[-1].sendall(b"GET /metrics HT")
    except OSError:
        pass
print("open", flush=True)
time.sleep(600)
"""
SLEEP = "import time; time.sleep(600)\n"


@contextmanager
def process(*argv: str, **how: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **how) as started:
        try:
            yield started
        finally:
            started.kill()


@contextmanager
def program(name: str, *before: str, arguments: tuple[str, ...] = ()) -> Iterator[int]:
    """A program of this name that does nothing, started by ``before``; its process."""
    directory = Path(os.environ["TMPDIR"], "programs")
    directory.mkdir(exist_ok=True)
    file = directory / name
    shutil.copy("/usr/bin/sleep", file)
    with process(*before, str(file), "600", *arguments) as started:
        wait_until(lambda: comm(started.pid) == name[:15], f"{name} runs")
        yield started.pid
    file.unlink()


def comm(pid: int) -> str:
    return read_text(f"/proc/{pid}/comm", "").removesuffix("\n")


@contextmanager
def script(name: str, *before: str) -> Iterator[int]:
    """A Python script of this name that does nothing."""
    file = Path(os.environ["TMPDIR"], name)
    file.write_text(SLEEP)
    with process(*before, "/usr/bin/python3", "-s", str(file)) as started:
        wait_until(
            lambda: (
                comm(started.pid).startswith("python")
                and name in read_text(f"/proc/{started.pid}/cmdline")
            ),
            f"{name} runs",
        )
        yield started.pid


def is_script(pid: int, file: Path) -> bool:
    """The kernel changes the name first, the arguments last."""
    arguments = read_text(f"/proc/{pid}/cmdline", "").split("\0")
    return "python" in comm(pid) and "python" in arguments[0] and str(file) in arguments


def doctor() -> dict[str, Any]:
    ended = ramshelf("doctor", "--json", ok=(0, 1, 2))
    assert ended.stderr == ""
    return {each["code"]: each for each in json.loads(ended.stdout)["findings"]}


def service(pid: int) -> str:
    found = processes()
    assert not isinstance(found, Unknown)
    return next(each.service for each in found if each.pid == pid)


def daemons() -> list[int]:
    found = libvirt_daemons()
    assert not isinstance(found, Unknown)
    return [daemon.pid for daemon in found]


@pytest.mark.parametrize("who", ["agent", "listener"])
def test_a_thousand_half_open_clients_keep_no_scrape_and_nothing_else_waiting(
    libvirtd: Libvirtd, who: str
) -> None:
    with ExitStack() as stack:
        stack.enter_context(store("tmpfs", 256))
        serving: Listener | Agent
        if who == "listener":
            serving = stack.enter_context(listener(Path(DOOR), UNPRIVILEGED))
            running = stack.enter_context(agent(door=DOOR))
        else:
            serving = running = stack.enter_context(agent())
        directory = Path(f"/proc/{serving.process.pid}")

        def counts() -> tuple[int, int]:
            return len(list((directory / "task").iterdir())), len(
                list((directory / "fd").iterdir())
            )

        threads, descriptors = counts()
        with process(*NOBODY, sys.executable, "-c", HALF_OPEN) as clients:
            assert clients.stdout is not None
            assert clients.stdout.readline() == "open\n"
            assert running.scrape()["libvirt_up"] == 1
            libvirtd.create(domain_xml("guest", 64))
            running.wait_log("guest-started", guest="guest")
            running.wait_metric('ramshelf_guests{backing="store"}', lambda value: value == 1)
            now = counts()
            assert now[0] <= threads + 2
            assert now[1] <= descriptors + 40


def test_no_other_user_can_hold_the_agents_lock(libvirtd: Libvirtd) -> None:  # noqa: ARG001
    lock = "/run/ramshelf/agent.lock"
    with agent(wait=False) as running:
        running.wait_log("started")
    os.chmod(lock, 0o644)  # as a ramshelf before had it
    with agent(wait=False) as running:
        running.wait_log("started")
        assert run(*NOBODY, "flock", "--nonblock", lock, "true", ok=range(256)).status != 0
    with process(*NOBODY, "flock", lock, "sleep", "600") as refused:
        assert refused.wait(timeout=HANG) != 0
        with agent(wait=False) as running:
            running.wait_log("started")


def test_neither_scrape_nor_log_tells_a_secret(libvirtd: Libvirtd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    conf = (
        "placement_owner = true\nreport_interval = 1\n[placement]\nauth_type = password\nauth_url "
        f"= http://user:geheim1@127.0.0.1:{port}/identity\nusername = nova\npassword = "
        "geheim2\nproject_name = service\n"
    )
    with store("tmpfs", 256), agent(conf=conf) as running:
        libvirtd.create(domain_xml("guest", 64))
        running.wait_log("began", code="placement.unreachable")
        running.wait_metric("ramshelf_placement_up", lambda value: value == 0)
        running.wait_metric('ramshelf_guests{backing="store"}', lambda value: value == 1)
        uuid = libvirtd.virsh("domuuid", "guest").stdout.strip()
        scraped, logged = running.scraped(), json.dumps(running.log())
        said = ramshelf("doctor", "--json", ok=(0, 1, 2)).stdout
        said += ramshelf("placement", "show", ok=(0, 1)).stdout
    assert "guest" in scraped
    for secret in ("geheim", "user:", uuid, str(port), "/etc/"):
        assert secret not in scraped
    assert "geheim" not in logged
    assert "geheim" not in said


@pytest.mark.parametrize(
    "name", ["x kB", "VmRSS: x kB", "a) S 1 (", "line\nend kB", "\udcff\x1b[31m"]
)
def test_the_doctor_answers_whatever_runs(libvirtd: Libvirtd, name: str) -> None:  # noqa: ARG001
    before = doctor()
    with program(name, *NOBODY):
        assert set(doctor()) == set(before)


def test_who_is_called_nova_compute_is_none(libvirtd: Libvirtd) -> None:  # noqa: ARG001
    with ExitStack() as stack:
        pids = [stack.enter_context(program("nova-compute", *NOBODY))]
        pids += [stack.enter_context(script("nova-compute", *NOBODY))]
        assert [service(pid) for pid in pids] == ["", ""]
        assert nova_compute() is None
        assert nova_owns(Config()) == ""


def test_a_nova_compute_of_root_is_one() -> None:
    with script("nova-compute") as pid:
        assert service(pid) == "nova-compute"
        assert nova_owns(Config()) == f"nova-compute runs here, process {pid}"


@pytest.fixture
def nova_user(host: None) -> Iterator[str]:  # noqa: ARG001 - /etc is a copy
    passwd = Path("/etc/passwd")
    before = passwd.read_text()
    passwd.write_text(f"{before}nova:x:64060:64060::/var/lib/nova:/usr/sbin/nologin\n")
    yield "64060"
    passwd.write_text(before)


def test_a_nova_compute_of_the_user_nova_is_one(nova_user: str) -> None:
    as_nova = ("setpriv", f"--reuid={nova_user}", f"--regid={nova_user}", "--clear-groups")
    with script("nova-compute", *as_nova) as pid:
        assert (service(pid), nova_compute()) == ("nova-compute", pid)
    with program("libvirtd", *as_nova) as pid:
        assert service(pid) == ""


CONTAINER = """
mount --bind "$1" /etc/passwd
exec setpriv --reuid=42436 --regid=42436 --clear-groups /usr/bin/python3 "$2"
"""


@pytest.mark.parametrize(("owner", "expected"), [("root", "nova-compute"), ("nobody", "")])
def test_a_nova_compute_in_a_container_is_one_by_the_containers_users(
    tmp_path: Path, owner: str, expected: str
) -> None:
    """As Kolla runs it; a passwd file that is not root's says nothing."""
    passwd, file = tmp_path / "passwd", Path(os.environ["TMPDIR"], "nova-compute")
    passwd.write_text(
        "root:x:0:0::/root:/bin/sh\nnova:x:42436:42436::/var/lib/nova:/sbin/nologin\n"
    )
    shutil.chown(passwd, owner)
    file.write_text(SLEEP)
    with process(
        "unshare", "--mount", "bash", "-ec", CONTAINER, "-", str(passwd), str(file)
    ) as started:
        wait_until(lambda: is_script(started.pid, file), "it runs")
        assert service(started.pid) == expected
        assert nova_compute() == (started.pid if expected else None)


def test_a_container_of_a_users_own_proves_nothing() -> None:
    """In a user namespace anybody is root, and mounts what he likes."""
    rights = ("unshare", "--user", "--map-root-user", "--mount")
    if run(*NOBODY, *rights, "true", ok=range(256)).status != 0:
        pytest.skip("users may not make namespaces here")
    passwd, file = (Path(os.environ["TMPDIR"], name) for name in ("passwd", "nova-compute"))
    passwd.write_text("nova:x:0:0::/:/bin/sh\nnova:x:65534:65534::/:/bin/sh\n")
    file.write_text(SLEEP)
    inside = 'mount --bind "$1" /etc/passwd; exec /usr/bin/python3 "$2"'
    with process(*NOBODY, *rights, "bash", "-ec", inside, "-", str(passwd), str(file)) as started:
        wait_until(lambda: is_script(started.pid, file), "it runs")
        assert service(started.pid) == ""
        assert nova_compute() is None


def test_who_is_called_libvirtd_is_none(libvirtd: Libvirtd) -> None:
    libvirtd.virsh("version")
    with program("libvirtd", *NOBODY), program("virtqemud", *NOBODY):
        assert daemons() == [libvirtd.pid]
        ramshelf("hook", "install")
        assert json.loads(ramshelf("hook", "status", "--json").stdout)["seen"] is True
    ramshelf("hook", "remove")


def test_a_program_of_root_of_that_name_does_not_end_of_it(libvirtd: Libvirtd) -> None:
    """Such as a daemon that starts, and has no handler for SIGHUP yet."""
    with program("libvirtd") as named, program("virtqemud") as other:
        assert set(daemons()) == {libvirtd.pid, named, other}
        ramshelf("hook", "install")
        assert json.loads(ramshelf("hook", "status", "--json").stdout)["seen"] is True
        ramshelf("hook", "remove")
        for pid in (named, other):
            assert "sleeping" in read_text(f"/proc/{pid}/status")


def test_a_program_of_root_that_a_user_gives_a_name_is_none(libvirtd: Libvirtd) -> None:
    """As sudo under another name: root's, but another executable."""
    pause = (
        "/usr/bin/python3",
        "-c",
        "import ctypes, time; ctypes.CDLL(None).prctl(15, b'libvirtd'); time.sleep(600)",
    )
    with process(*pause) as started:
        wait_until(lambda: comm(started.pid) == "libvirtd", "it has its name")
        assert daemons() == [libvirtd.pid]


def test_who_has_a_guests_uuid_on_the_command_line_is_not_its_qemu(libvirtd: Libvirtd) -> None:
    """Started first, so that it is found first, and with far more memory than the guest has."""
    with store("tmpfs", 256):
        ramshelf("hook", "install")
        xml = domain_xml("guest", 64)
        uuid = "8e4b4c5e-5f5f-4c3c-9d0c-52c1b1c1a0aa"
        xml = xml.replace("<name>guest</name>", f"<name>guest</name><uuid>{uuid}</uuid>")
        libvirtd.create(xml)
        expected = {code for code in doctor() if code.startswith("guest.")}
        libvirtd.virsh("destroy", "guest")
        with program(
            "qemu-system-x86_64", *NOBODY, arguments=("-uuid", uuid, "-object", "mem-path=/x")
        ):
            libvirtd.create(xml)
            assert {code for code in doctor() if code.startswith("guest.")} == expected


def test_the_doctor_warns_where_nothing_keeps_guests_apart(libvirtd: Libvirtd) -> None:
    """Here the security_driver of libvirt is none; a user of its own for each guest will do."""
    with store("tmpfs", 256):
        assert doctor()["host.unconfined"]["facts"] == {"models": ["none", "dac"], "guests": []}
        libvirtd.create(domain_xml("one", 64))
        assert doctor()["host.unconfined"]["facts"]["guests"] == ["one"]
        libvirtd.virsh("destroy", "one")


def test_an_ordinary_users_doctor_answers_too(libvirtd: Libvirtd) -> None:  # noqa: ARG001
    with program("x kB", *NOBODY), program("nova-compute", *NOBODY):
        ended = subprocess.run(
            [*NOBODY, RAMSHELF, "doctor", "--json"], capture_output=True, text=True, check=False
        )
        assert ended.stderr == ""
        assert json.loads(ended.stdout)["findings"]


def test_signals_meant_for_libvirt_reach_nobody_else(libvirtd: Libvirtd) -> None:  # noqa: ARG001
    """'hook install' sends SIGHUP, of which this one would die."""
    with program("libvirtd", *NOBODY) as pid:
        ramshelf("hook", "install")
        ramshelf("hook", "remove")
        time.sleep(0.2)
        os.kill(pid, signal.SIGCONT)
        assert comm(pid) == "libvirtd"
