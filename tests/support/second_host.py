"""A second host beside the tests': another ``scripts/isolated`` with libvirtd, a store and the hook.

The two share no namespace but the user's; libvirtd and QEMU are reached through sockets in a directory of
the first host's $TMPDIR. Run as a program (inside), it serves commands, a line of JSON each, until its input
ends.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).parents[2]


class SecondHost:
    """The second host as the first one sees it."""

    def __init__(self, directory: Path, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.uri = f"qemu+unix:///system?socket={directory}/libvirt-sock"
        self.migrate_uri = f"unix:{directory}/migration"

    def run(self, *argv: str) -> str:
        """What a command prints there; its failure fails the test."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(argv), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert answer["status"] == 0, (argv, answer)
        return str(answer["output"])


@contextmanager
def second_host(directory: Path, store_mib: int) -> Iterator[SecondHost]:
    """A second host with a store of kind ram; it is killed at the end."""
    directory.mkdir()
    directory.chmod(0o1777)  # QEMU listens there, as its own user
    process = subprocess.Popen(
        [
            str(_CHECKOUT / "scripts/isolated"),
            sys.executable,
            "-m",
            "support.second_host",
            str(directory),
            str(store_mib),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_CHECKOUT / "tests",
    )
    try:
        host = SecondHost(directory, process)
        assert host.run("hostname").strip() == "second"
        yield host
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)
        assert process.stdout is not None
        process.stdout.close()


def _serve(directory: str, store_mib: str) -> None:
    from support.domains import IMAGE  # noqa: PLC0415 - not of the first host's half
    from support.libvirtd import Libvirtd  # noqa: PLC0415
    from support.process import run  # noqa: PLC0415

    run("hostname", "second")  # libvirt refuses to migrate to a host of the same name
    with Path("/etc/libvirt/libvirtd.conf").open("a", encoding="utf-8") as conf:
        conf.write(f'unix_sock_dir = "{directory}"\nauth_unix_rw = "none"\n')
    os.environ["LIBVIRT_DEFAULT_URI"] = Libvirtd.uri = f"qemu+unix:///system?socket={directory}/libvirt-sock"
    run(sys.executable, str(_CHECKOUT / "scripts/guest_image.py"), str(IMAGE))
    libvirtd = Libvirtd()
    libvirtd.start()
    ramshelf = str(Path(sys.executable).with_name("ramshelf"))
    run(ramshelf, "store", "create", "--kind", "ram", "--size", f"{store_mib}M")
    run(ramshelf, "--connect", Libvirtd.uri, "hook", "install")
    for line in sys.stdin:
        ended = subprocess.run(
            json.loads(line),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        sys.stdout.write(json.dumps({"status": ended.returncode, "output": ended.stdout}) + "\n")
        sys.stdout.flush()
    for name in libvirtd.virsh("list", "--name").stdout.split():
        libvirtd.virsh("destroy", name)
    libvirtd.close()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
