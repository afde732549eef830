"""The machine that tests have inside ``scripts/isolated``, and how it is restored after a test."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ramshelf.system.procfs import mounts
from support.devices import loops, own_swaps, release_all, scratch, unmount
from support.domains import IMAGE
from support.libvirtd import Libvirtd
from support.process import run, wait_until

_CHECKOUT = Path(__file__).resolve().parents[2]
_RESTORED = (
    "/etc/fstab",
    "/etc/sysctl.d",
    "/etc/systemd/system",
    "/etc/modules-load.d",
    "/run/sysctl-vm",
)
"""What tests and ramshelf change below /etc and /run and libvirt's own reset does not put right."""

_REMOVED = (
    "/etc/ramshelf",
    "/etc/nova",
    "/run/hugepages",
    "/run/ramshelf",
    "/usr/local/lib/ramshelf/hook",
)
_RECORD = "/var/lib/ramshelf/promised-before"


@contextmanager
def guests_can_run() -> Iterator[Libvirtd]:
    """Yield a running libvirtd, and provide what its guests boot from."""
    run(sys.executable, str(_CHECKOUT / "scripts/guest_image.py"), str(IMAGE))
    daemon = Libvirtd()
    daemon.start()
    yield daemon
    daemon.close()


@contextmanager
def as_shipped() -> Iterator[None]:
    """Put back at the end what was changed of the host."""
    shipped = {path: _contents(Path(path)) for path in _RESTORED}
    before = {mount.mount_id for mount in mounts()}
    files = set(scratch().iterdir())
    yield
    for mount in reversed(mounts()):
        if mount.mount_id not in before:
            unmount(mount.mount_point)
    release_all()
    for file in set(scratch().iterdir()) - files:
        if not file.name.startswith("pytest-"):  # Those are pytest's own.
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    for path, contents in shipped.items():
        _put_back(Path(path), contents)
    for path in _REMOVED:
        shutil.rmtree(path, ignore_errors=True)
    Path(_RECORD).unlink(missing_ok=True)
    assert (loops(), own_swaps()) == ({}, [])


@contextmanager
def without_guests(daemon: Libvirtd) -> Iterator[None]:
    """Leave libvirtd at the end running, without guests and hooks."""
    yield
    daemon.reset()
    leftovers = daemon.virsh("list", "--all", "--name").stdout.split()
    assert leftovers == []
    wait_until(lambda: run("pidof", "qemu-system-x86_64", ok=(0, 1)).status == 1, "no QEMU is left")


def _contents(top: Path) -> dict[Path, bytes]:
    """Return the contents of the regular files at or below ``top``."""
    files = [top] if top.is_file() else top.rglob("*")
    return {file: file.read_bytes() for file in files if file.is_file() and not file.is_symlink()}


def _put_back(top: Path, contents: dict[Path, bytes]) -> None:
    """Remove files that were not there, and rewrite the changed ones in place.

    Some of them are bound elsewhere.
    """
    for file in _contents(top):
        if file not in contents:
            file.unlink()
    for file, content in contents.items():
        if not file.is_file() or file.read_bytes() != content:
            file.write_bytes(content)
