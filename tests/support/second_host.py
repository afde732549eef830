"""A second host beside the tests' own: a ``scripts/isolated`` with libvirtd, a store and the hook.

The two share no namespace but the user's. They reach each other's libvirtd and QEMU through sockets
in a directory of the first host's $TMPDIR, or over a network of their own, a pair of virtual
interfaces. Run as a program (inside), this module serves requests, one line of JSON each, until its
input ends. Whatever becomes of the tests, it ends with them, and so do its guests, its store and
its devices.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ramshelf.core.units import MIB
from ramshelf.system.run import Completed
from support.cli import RAMSHELF
from support.counters import written
from support.devices import scratch, unmount
from support.domains import IMAGE, console_path, last_words
from support.libvirtd import Libvirtd
from support.process import HANG, run, wait_until
from support.stores import MEMORY, store

_CHECKOUT = Path(__file__).resolve().parents[2]
FIRST_ADDRESS, SECOND_ADDRESS = "192.0.2.1", "192.0.2.2"
_LIBVIRTD_CONF = """
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
auth_unix_rw = "none"
unix_sock_dir = "{}"
keepalive_interval = 1
"""


class SecondHost:
    """The second host as the first one sees it.

    ``uri`` is the URI of its libvirtd and ``migrate_uri`` where its QEMU takes a guest in, both by
    unix sockets; ``first_uri`` and ``back_uri`` are the first host's, for use on the second.
    ``tcp_uri`` and ``tcp_migrate_uri`` are the second's over the network, which can be cut.
    """

    tcp_uri = f"qemu+tcp://{SECOND_ADDRESS}/system"
    tcp_migrate_uri = f"tcp://{SECOND_ADDRESS}"

    def __init__(self, directory: Path, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.uri = f"qemu+unix:///system?socket={directory}/libvirt-sock"
        self.migrate_uri = f"unix:{directory}/migration"
        self.first_uri = f"qemu+unix:///system?socket={directory}/first/libvirt-sock"
        self.back_uri = f"unix:{directory}/migration-back"

    def run(
        self, *argv: str, ok: Sequence[int] = (0,), stdin: str | None = None, timeout: float = HANG
    ) -> str:
        """Run a command there, and return its output; a status not in ``ok`` fails the test."""
        answer = self._ask("run", argv, stdin, timeout)
        completed = Completed(
            argv=argv, status=answer["status"], stdout=answer["stdout"], stderr=answer["stderr"]
        )
        assert completed.status in ok, completed
        return completed.stdout

    def shell(self, script: str) -> str:
        """Run a script of shell there, and return what it prints."""
        return self.run("sh", "-ec", script)

    def virsh(self, *args: str, ok: Sequence[int] = (0,)) -> str:
        """Run virsh there, and return what it prints."""
        return self.run("virsh", *args, ok=ok)

    def guests(self) -> list[str]:
        """Return the guests that libvirt has there, running or coming in."""
        return self.virsh("list", "--name").split()

    def wait_running(self, name: str) -> None:
        """Wait until the guest runs there: it is held still for moments while it is trimmed."""
        wait_until(lambda: self.virsh("domstate", name).strip() == "running", f"{name} runs there")

    def capacity(self) -> dict[str, Any]:
        """Return the document of ``ramshelf capacity --json`` there."""
        document: dict[str, Any] = json.loads(self.run(RAMSHELF, "capacity", "--json"))
        return document

    def directories(self) -> list[str]:
        """Return what lies on its store."""
        return [name for name in self.run("ls", str(MEMORY)).split() if name != "lost+found"]

    def memory_mib(self, name: str) -> tuple[int, int]:
        """Return the size of a guest's memory file there, and what of it is allocated, in MiB."""
        size, blocks = self.shell(f"stat -c '%s %b' {MEMORY}/*-{name}/pc.ram").split()
        return int(size) // MIB, int(blocks) * 512 // MIB

    def written_mib(self) -> float:
        """Return the MiB written to its store's device so far; the store must be on a device."""
        return written(int(self.shell(f"stat -c %d {MEMORY}"))) / MIB

    def sync(self) -> None:
        """Have what its store still has to write to a file system written."""
        self.run("sync", "--file-system", str(MEMORY))

    def hook_log(self) -> list[dict[str, Any]]:
        """Return the entries of the hook's log there."""
        return [
            json.loads(line) for line in self.shell("cat /run/ramshelf/hook.log || :").splitlines()
        ]

    def console(self, name: str) -> str:
        """Return what the guest has said there since it came."""
        return self.shell(f"cat {console_path(name)} || :")

    def wait_console(self, name: str, text: str, timeout: float = HANG) -> None:
        """Wait until the guest has said ``text`` there."""
        wait_until(
            lambda: text in self.console(name), f"{name} says {text!r} there", timeout=timeout
        )

    def last_words(self, name: str) -> str:
        """Return all that a guest has said there which is there no more."""
        words: str = self._ask("last_words", name)
        return words

    def kill_qemu(self, name: str) -> None:
        """Kill the guest's QEMU with SIGKILL."""
        self.shell(f"kill -KILL $(cat /run/libvirt/qemu/{name}.pid)")

    def kill_libvirtd(self) -> None:
        """Kill its libvirtd with SIGKILL; its guests run on."""
        self._ask("kill_libvirtd")

    def start_libvirtd(self) -> None:
        """Start its libvirtd, unless it runs."""
        self._ask("start_libvirtd")

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Let nothing through the network meanwhile; connections that stand are not told."""
        run("ip", "link", "set", "second", "down")
        try:
            yield
        finally:
            run("ip", "link", "set", "second", "up")

    def _ask(self, request: str, *arguments: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([request, *arguments]), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


@contextmanager
def second_host(
    file_system: str = "tmpfs", size_mib: int = 300, *, hook: bool = True
) -> Iterator[SecondHost]:
    """Yield a second host with a store of ``support.stores`` and, unless told not to, the hook."""
    directory = scratch() / "second"
    directory.mkdir()
    directory.chmod(0o1777)  # QEMU listens there, as its own user.
    first = directory / "first"
    first.mkdir()
    run("mount", "--bind", "/run/libvirt", str(first))
    network = os.open("/proc/self/ns/net", os.O_RDONLY)
    process = subprocess.Popen(
        [
            str(_CHECKOUT / "scripts/isolated"),
            sys.executable,
            "-m",
            "support.second_host",
            str(directory),
            file_system,
            str(size_mib),
            "hook" if hook else "",
            str(network),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_CHECKOUT / "tests",
        pass_fds=(network,),
    )
    os.close(network)
    try:
        host = SecondHost(directory, process)
        assert host.run("hostname").strip() == "second"
        run("ip", "address", "add", f"{FIRST_ADDRESS}/24", "dev", "second")
        run("ip", "link", "set", "second", "up")
        yield host
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout=HANG)
        finally:
            process.terminate()  # scripts/isolated then kills whatever is inside.
            process.wait(timeout=HANG)
            assert process.stdout is not None
            process.stdout.close()
            unmount(str(first))
            shutil.rmtree(directory)
    assert process.returncode == 0, "the second host ends well"


def _serve(directory: str, file_system: str, size_mib: str, hook: str, network: str) -> None:
    """Be the second host; ``network`` is a descriptor of the first one's network namespace."""
    first = f"/proc/{os.getpid()}/fd/{network}"
    run("hostname", "second")  # libvirt refuses to migrate to a host of the same name.
    run("ip", "link", "add", "first", "type", "veth", "peer", "name", "second", "netns", first)
    run("ip", "address", "add", f"{SECOND_ADDRESS}/24", "dev", "first")
    run("ip", "link", "set", "first", "up")
    with Path("/etc/libvirt/libvirtd.conf").open("a", encoding="utf-8") as conf:
        conf.write(_LIBVIRTD_CONF.format(directory))
    for name in ("libvirt-sock", "libvirt-sock-ro"):
        Path("/run/libvirt", name).symlink_to(f"{directory}/{name}")
    run(sys.executable, str(_CHECKOUT / "scripts/guest_image.py"), str(IMAGE))
    libvirtd = Libvirtd("--listen")
    with ExitStack() as stack:
        libvirtd.start()
        stack.callback(libvirtd.close)
        stack.enter_context(store(file_system, int(size_mib)))
        stack.callback(libvirtd.start)  # The end of a store is that of its guests.
        if hook:
            run(RAMSHELF, "hook", "install")
        for line in sys.stdin:
            request, *arguments = json.loads(line)
            sys.stdout.write(json.dumps(_answer(libvirtd, request, *arguments)) + "\n")
            sys.stdout.flush()


def _answer(libvirtd: Libvirtd, request: str, *arguments: Any) -> object:
    if request == "run":
        argv, stdin, timeout = arguments
        ended = run(*argv, stdin=stdin, timeout=timeout, ok=range(-64, 256))
        return {"status": ended.status, "stdout": ended.stdout, "stderr": ended.stderr}
    if request == "last_words":
        return last_words(*arguments)
    return {"kill_libvirtd": libvirtd.kill, "start_libvirtd": libvirtd.start}[request]()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
