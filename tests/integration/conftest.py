"""Integration tests: real libvirt, QEMU, file systems; only inside ``scripts/isolated``."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from ramshelf.system.procfs import mounts
from support.devices import loops, own_swaps, release_all, scratch, unmount
from support.domains import IMAGE
from support.libvirtd import Libvirtd
from support.process import run, wait_until

_CHECKOUT = Path(__file__).parents[2]
_RESTORED = ("/etc/fstab", "/etc/sysctl.d", "/etc/systemd/system", "/etc/modules-load.d", "/run/sysctl-vm")
"""What tests and ramshelf change below /etc and /run, besides what libvirt's own reset puts right."""

_REMOVED = ("/etc/ramshelf", "/etc/nova", "/run/hugepages", "/run/ramshelf")


_OF_SWAP = (
    "test_bench",
    "test_doctor",
    "test_environment",
    "test_fill",
    "test_isolated",
    "test_pinned",
    "test_store",
)
"""Modules that make swap, look at all that the kernel has, or hold guests to less RAM than they use."""


class _OneForSwap(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """Swap is the kernel's, of all machines side by side: one worker of pytest-xdist has the tests of it."""

    def _split_scope(self, nodeid: str) -> str:
        path, _, name = nodeid.partition("::")
        of_swap = "swap" in name or "pressure" in name or Path(path).stem.startswith(_OF_SWAP)
        return "swap" if of_swap else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """How tests are spread over machines side by side."""
    return _OneForSwap(config, log)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to touch the machine itself; with pytest-xdist it is the workers that run tests."""
    distributes = session.config.getoption("tx", None) and not hasattr(session.config, "workerinput")
    if not distributes and not Path("/run/isolated").exists():
        raise pytest.UsageError("integration tests run inside scripts/isolated: use `make test`")


@pytest.fixture(scope="session")
def embedded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded Placement's database for all tests: a process can serve one, which may be removed."""
    return tmp_path_factory.mktemp("embedded") / "placement.sqlite"


@pytest.fixture(scope="session")
def daemon() -> Iterator[Libvirtd]:
    """The session's libvirtd; take ``libvirtd`` instead, which cleans up."""
    run(sys.executable, str(_CHECKOUT / "scripts/guest_image.py"), str(IMAGE))
    daemon = Libvirtd()
    daemon.start()
    yield daemon
    daemon.close()


@pytest.fixture
def host() -> Iterator[None]:
    """A host as it was shipped; what the test changed of it is put back at the end."""
    shipped = {path: _contents(Path(path)) for path in _RESTORED}
    before = {mount.mount_id for mount in mounts()}
    files = set(scratch().iterdir())
    yield
    for mount in reversed(mounts()):
        if mount.mount_id not in before:
            unmount(mount.mount_point)
    release_all()
    for file in set(scratch().iterdir()) - files:
        if not file.name.startswith("pytest-"):  # pytest's own
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    for path, contents in shipped.items():
        _put_back(Path(path), contents)
    for path in _REMOVED:
        shutil.rmtree(path, ignore_errors=True)
    assert (loops(), own_swaps()) == ({}, [])


@pytest.fixture
def libvirtd(host: None, daemon: Libvirtd) -> Iterator[Libvirtd]:  # noqa: ARG001 - guests end before the host is reset
    """A running libvirtd without guests and hooks, on a host as it was shipped."""
    yield daemon
    daemon.reset()
    leftovers = daemon.virsh("list", "--all", "--name").stdout.split()
    assert leftovers == []
    wait_until(lambda: run("pidof", "qemu-system-x86_64", ok=(0, 1)).status == 1, "no QEMU is left")


def _contents(top: Path) -> dict[Path, bytes]:
    """The regular files at or below ``top``."""
    files = [top] if top.is_file() else top.rglob("*")
    return {file: file.read_bytes() for file in files if file.is_file() and not file.is_symlink()}


def _put_back(top: Path, contents: dict[Path, bytes]) -> None:
    """Remove files that were not there, rewrite in place (some are bound elsewhere) those that were."""
    for file in _contents(top):
        if file not in contents:
            file.unlink()
    for file, content in contents.items():
        if not file.is_file() or file.read_bytes() != content:
            file.write_bytes(content)
