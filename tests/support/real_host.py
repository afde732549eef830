"""A whole Debian host in a virtual machine (scripts/host), as an operator has one."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from ramshelf.system.run import Completed
from support.domains import IMAGE, domain_xml
from support.pages import commands
from support.process import run, wait_until

CHECKOUT = Path(__file__).parents[2]
MEMORY = "/var/lib/libvirt/qemu/ram"
_SCRIPT = str(CHECKOUT / "scripts/host")
_IMAGE_THERE = "/var/lib/guest"
"""Where the guests' kernel is on the host; unlike /run it outlives a boot."""

PATIENCE = 600
"""Seconds to wait for what takes some on a real machine: this one is emulated."""


class RealHost:
    """One host, running or not; whatever is run in it is run by root."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._command = ("env", f"HOST_NAME={name}", _SCRIPT)

    def start(self, *options: str) -> None:
        """Boot a clean one, with this checkout at /root/project and a kernel for guests."""
        self._host("start", *options)
        if not (IMAGE / "vmlinuz").exists():
            run(sys.executable, str(CHECKOUT / "scripts/guest_image.py"), str(IMAGE))
        self.put(IMAGE, os.path.dirname(_IMAGE_THERE))

    def install(self) -> None:
        """Install this checkout's ramshelf as README says, in place of one that is there."""
        self.run("rm -rf /opt/ramshelf /usr/local/bin/ramshelf")
        for line in install_lines((CHECKOUT / "README.md").read_text()):
            self.run(line)

    def install_quickly(self) -> None:
        """Install it in the environment that the image has for tests, and call that README's."""
        self.run("/opt/tests/bin/pip install --quiet --no-deps --no-build-isolation .")
        self.run(
            "ln -s /opt/tests /opt/ramshelf && ln -s /opt/ramshelf/bin/ramshelf /usr/local/bin/"
        )

    def stop(self) -> None:
        """End it and remove its disks."""
        self._host("stop")

    def run(self, line: str, ok: Sequence[int] = (0,), *, stdin: str | None = None) -> Completed:
        """Run a shell's line; an exit status that is not in ``ok`` fails the test."""
        return self._host("run", line, ok=ok, stdin=stdin)

    def said(self, line: str, ok: Sequence[int] = (0,)) -> str:
        """Return what a line writes to its standard output, without blanks at the ends."""
        return self.run(line, ok).stdout.strip()

    def holds(self, line: str) -> bool:
        """Tell whether a line ends with status 0."""
        return self._host("run", line, ok=range(256)).status == 0

    def json(self, *args: str, ok: Sequence[int] = (0,)) -> Any:
        """Return what a command of ramshelf's answers with ``--json``."""
        return json.loads(self.run(shlex.join(("ramshelf", *args, "--json")), ok).stdout)

    def findings(self) -> dict[str, dict[str, Any]]:
        """Return the doctor's findings that are not good, by code."""
        found = self.json("doctor", ok=(0, 1, 2))["findings"]
        return {each["code"]: each for each in found if each["severity"] not in {"ok", "info"}}

    def kept(self) -> set[str]:
        """Return what there is where state is kept, but for what libvirt keeps of its guests."""
        tops = "/etc /usr/local /var/lib/ramshelf /run/ramshelf"
        libvirts = ("/etc/apparmor.d/libvirt", "/etc/libvirt/qemu/autostart")
        pruned = " -o ".join(f"-path {path}" for path in libvirts)
        found = self.said(f"find {tops} -xdev \\( {pruned} \\) -prune -o -print", ok=(0, 1))
        return set(found.splitlines())

    def wait(self, line: str, what: str) -> None:
        """Wait until a line ends with status 0."""
        wait_until(lambda: self.holds(line), what, timeout=PATIENCE)

    def wait_console(self, guest: str, text: str) -> None:
        """Wait until a guest has said ``text``."""
        self.wait(f"grep -q {shlex.quote(text)} {_console(guest)}", f"{guest} says {text}")

    def define(self, xml: str) -> None:
        """Define a guest."""
        self.run("virsh --quiet define /dev/stdin", stdin=xml)

    def remove_guests(self) -> None:
        """Destroy and undefine all guests."""
        for name in self.said("virsh list --all --name").split():
            self.run(f"virsh --quiet destroy {name}", ok=(0, 1))
            self.run(f"virsh --quiet undefine {name}")

    def put(self, path: Path, directory: str) -> None:
        """Copy a file or directory into a directory of it."""
        self._host("put", str(path), directory)

    @contextmanager
    def lent(self, port: int) -> Iterator[None]:
        """Let it have what listens on this port of 127.0.0.1 here, at the same address there."""
        with subprocess.Popen((*self._command, "lend", str(port))) as lending:
            try:
                self.wait(f"ss -Hltn 'sport = {port}' | grep -q .", "the port is there")
                yield
            finally:
                lending.terminate()

    @property
    def key(self) -> Path:
        """The private key with which root is let in, here and on all others of its image."""
        return CHECKOUT / f".cache/host/vm-{self._name}/key"

    @property
    def port(self) -> int:
        """The port of 127.0.0.1 here at which root is let in, until it is booted again."""
        return int((CHECKOUT / f".cache/host/vm-{self._name}/port").read_text())

    def reboot(self) -> None:
        """Shut it down in order, and boot it again."""
        self._host("reboot")

    def power_cut(self) -> None:
        """Pull the plug, and boot it again."""
        self._host("crash")
        self._host("boot")

    def wait_booted(self) -> str:
        """Wait until the boot has finished; return systemd's word for how."""
        return self.said("systemctl is-system-running --wait", ok=(0, 1))

    def _host(self, *args: str, ok: Sequence[int] = (0,), stdin: str | None = None) -> Completed:
        try:
            return run(*self._command, *args, ok=ok, stdin=stdin, timeout=2 * PATIENCE)
        except AssertionError as error:
            said = run(*self._command, "console", ok=range(256)).stdout.splitlines()[-40:]
            error.add_note("\n".join(["The host's console:", *said]))
            raise


def guest_xml(name: str, memory_mib: int = 192, **wishes: Any) -> str:
    """Return the XML of a KVM guest for such a host, else as domain_xml's."""
    xml = domain_xml(name, memory_mib, virt_type="kvm", **wishes)
    return xml.replace(str(IMAGE), _IMAGE_THERE)


def _console(guest: str) -> str:
    return f"/var/log/libvirt/qemu/{guest}.console"


def install_lines(readme: str) -> list[str]:
    """Return what a README's section Install says, but for packages: the image has them."""
    section = readme.partition("\n## Install\n")[2].partition("\n## ")[0]
    lines = [line for line in commands(section) if not line.startswith("apt-get")]
    assert any("pip install" in line for line in lines)
    return lines


@contextmanager
def real_host(name: str, *options: str) -> Iterator[RealHost]:
    """Have a host for a while, with ramshelf."""
    host = RealHost(name)
    host.stop()
    try:
        host.start(*options)
        host.wait_booted()
        host.install_quickly()
        yield host
    finally:
        host.stop()


Boot = Callable[..., AbstractContextManager[RealHost]]
"""A function that takes a host's name and options, and has it for a while."""
