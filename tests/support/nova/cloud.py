"""A cloud on this machine: where it runs, from its beginning to its end."""

import json
import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from support.devices import scratch
from support.domains import IMAGE, KERNEL_WORDS
from support.libvirtd import Libvirtd
from support.nova.client import Compute, Placement, Server
from support.nova.conf import NOVA_CONF, Settings, settings, write
from support.process import run, wait_until

_CHECKOUT = Path(__file__).resolve().parents[3]
VIRTUAL_ENVIRONMENT = _CHECKOUT / os.environ.get("NOVA", ".venv-nova")
"""The Nova that tests run.

``NOVA=.venv-nova-oldest make test-nova`` runs all of them with the oldest.
"""

OLDEST = _CHECKOUT / ".venv-nova-oldest"
"""The oldest Nova, if ``scripts/setup`` can install it."""

ALL_ROLES = ("conductor", "scheduler", "compute", "api")


class Cloud:
    """One run of Nova after the other over the same databases, images and configuration.

    ``user`` is the user that Nova runs as, ``wrapper`` the command that it is run by (to enter a
    container's namespaces, say), ``roles`` are those of its services that run on this host, and
    ``virtual_environment`` is where its Nova is. ``host`` is this host's name as the services know
    it, ``node`` its name in libvirt, which is also that of its resource provider. ``threads`` says
    what the services run on since they were started: "native" threads or "eventlet".
    """

    def __init__(
        self,
        more: Settings,
        *,
        user: str = "root",
        wrapper: Sequence[str] = (),
        roles: Sequence[str] = ALL_ROLES,
        virtual_environment: Path = VIRTUAL_ENVIRONMENT,
    ) -> None:
        with socket.create_server(("", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.compute = Compute(f"{self.url}/compute/v2.1")
        self.placement = Placement(f"{self.url}/placement")
        self.state = scratch() / "nova"
        self.host = socket.gethostname()
        self.node = run("virsh", "--connect", Libvirtd.uri, "hostname").stdout.strip()
        self.threads = ""
        self._user, self._wrapper, self._roles = user, wrapper, roles
        self._virtual_environment = virtual_environment
        self._process: subprocess.Popen[str] | None = None
        for directory in (self.state, self._images, self.state / "instances", self.state / "locks"):
            directory.mkdir()
            account = pwd.getpwnam(user)
            os.chown(directory, account.pw_uid, account.pw_gid)
        self._known: dict[tuple[tuple[str, str], ...], str] = {}
        self._kernel = self._put(IMAGE / "vmlinuz", disk_format="aki", container_format="aki")
        self._ramdisk = self._put(IMAGE / "initramfs", disk_format="ari", container_format="ari")
        self.configure(more)

    @contextmanager
    def placement_refusing(self, *rules: str) -> Iterator[None]:
        """Make Placement answer 403 to what these rules of its policy are for.

        Placement reads the file each time.
        """
        policy = self.state / "placement-policy.json"
        policy.write_text(json.dumps(dict.fromkeys(rules, "!")))
        try:
            yield
        finally:
            policy.write_text("{}")

    @property
    def _output(self) -> Path:
        return self.state / "output"

    @property
    def _images(self) -> Path:
        return self.state / "images"

    def configure(self, more: Settings) -> None:
        """Write nova.conf for the next start; ``more`` is what differs from the usual settings."""
        write(settings(self.url, self.state, more), self._virtual_environment)

    def start(self) -> None:
        """Start the services, and wait until all of them are up."""
        python = self._virtual_environment / "bin/python"
        with self._output.open("ab") as errors:
            self._process = subprocess.Popen(
                [
                    *self._wrapper,
                    *(str(python), "-W", "ignore", "-m", "support.nova.process"),
                    *(str(self._port), self._user, *self._roles),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=_CHECKOUT / "tests",
            )
        assert self._process.stdout is not None
        ready, _, self.threads = self._process.stdout.readline().strip().partition(" ")
        assert ready == "ready", (
            f"Nova does not start:\n{self._output.read_text()[-4000:]}\n{self.log()[-4000:]}"
        )

    @property
    def pid(self) -> int:
        """The process that all services run in, unless a ``wrapper`` runs it."""
        assert self._process is not None
        return self._process.pid

    def hammer(self, server: Server, seconds: float) -> dict[str, Any]:
        """Have nova-compute's driver called by many threads at once, and return what they saw.

        It is what support/nova/hammer.py reports.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"hammer {server.uuid} {seconds}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"Nova has ended:\n{self._output.read_text()[-4000:]}"
        report: dict[str, Any] = json.loads(answer)
        return report

    def stop(self) -> None:
        """End all services at once, as a crash does; servers run on."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def restart(self) -> None:
        """Restart the services, with nova.conf as it is now."""
        self.stop()
        self.start()

    def log(self) -> str:
        """Return all that Nova has logged."""
        path = self.state / "nova.log"
        return path.read_text() if path.exists() else ""

    def errors(self) -> str:
        """Return the latest 40 lines that it has logged as errors."""
        return "\n".join([line for line in self.log().splitlines() if " ERROR " in line][-40:])

    def stats(self, host: str) -> dict[str, str]:
        """Return the stats of a host's compute node, which the scheduler reads and no API shows."""
        with closing(sqlite3.connect(self.state / "cell1.sqlite")) as cell:
            [(text,)] = cell.execute("SELECT stats FROM compute_nodes WHERE host = ?", (host,))
        return {name: str(value) for name, value in json.loads(text).items()}

    def image(self, words: str | None = "", **properties: str) -> str:
        """Return the id of an image that boots the tests' guest, with these words for its kernel.

        With None its servers find nothing to boot. ``properties`` are the image's own.
        """
        if words is not None:
            properties |= {
                "kernel_id": self._kernel,
                "ramdisk_id": self._ramdisk,
                "os_command_line": f"{KERNEL_WORDS} {words}".rstrip(),
            }
        key = tuple(sorted(properties.items()))
        if key not in self._known:
            disk = self.state / "disk"
            disk.write_bytes(bytes(1 << 20))
            self._known[key] = self._put(
                disk, disk_format="raw", container_format="bare", **properties
            )
        return self._known[key]

    def boot(self, memory_mib: int = 128, words: str = "", **extra_specs: str) -> Server:
        """Start a new server, and wait until it is ACTIVE and its guest has come up."""
        server = self.compute.create(
            self.compute.flavor(memory_mib, **extra_specs), self.image(words)
        )
        server = self.compute.wait(server, "ACTIVE")
        self.wait_console(server, "GUEST-UP")
        return server

    def wait_console(self, server: Server, text: str, times: int = 1) -> None:
        """Wait until the server's guest has said ``text`` so many times since its latest start."""
        try:
            wait_until(
                lambda: self.compute.console(server).count(text) >= times,
                f"it says {text!r}",
            )
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it said:\n{self.compute.console(server)}") from None

    def clear(self) -> None:
        """Delete all servers, and wait until Placement has forgotten them too."""
        for server in self.compute.servers():
            self.compute.delete(server)
        wait_until(lambda: not self.placement.allocated_mib(self.node), "no allocation is left")

    def close(self) -> None:
        """End the services, and remove all that the cloud has made."""
        self.stop()
        shutil.rmtree(self.state)
        shutil.rmtree(NOVA_CONF.parent)

    def _put(self, contents: Path, **properties: str) -> str:
        identity = str(uuid.uuid4())
        shutil.copyfile(contents, self._images / f"{identity}.data")
        image = {
            "id": identity,
            "name": contents.name,
            "status": "active",
            "visibility": "public",
            "size": contents.stat().st_size,
            "min_ram": 0,
            "min_disk": 0,
            "tags": [],
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
            **properties,
        }
        (self._images / f"{identity}.json").write_text(json.dumps(image))
        return identity


@contextmanager
def cloud(
    more: Settings,
    *,
    user: str = "root",
    wrapper: Sequence[str] = (),
    virtual_environment: Path = VIRTUAL_ENVIRONMENT,
) -> Iterator[Cloud]:
    """Yield a running cloud of this one host, without servers; ``more`` is added to nova.conf.

    At the end its servers are deleted, the services ended, and nothing of them is left on the host.
    """
    here = Cloud(more, user=user, wrapper=wrapper, virtual_environment=virtual_environment)
    try:
        here.start()
        yield here
        here.clear()
    finally:
        here.close()


def nova_user() -> str:
    """Return the user that distributions run nova-compute as, who is only in the group libvirt."""
    if run("id", "nova", ok=(0, 1)).status != 0:
        run("useradd", "--system", "--no-create-home", "--groups", "libvirt", "nova")
    return "nova"
