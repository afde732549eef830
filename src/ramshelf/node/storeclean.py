"""Remove directories that belong to no guest: observe, decide, remove; see ``core/storeclean``."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ramshelf.core.capacity import promised
from ramshelf.core.errors import HostError
from ramshelf.core.guest import parse_guest
from ramshelf.core.host import Unknown
from ramshelf.core.storeclean import GUEST_DIRECTORY, Listed, stale, still_stale
from ramshelf.system import memoryfiles
from ramshelf.system.backingstore import memory_directories
from ramshelf.system.filesystem import store_lock
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.processes import processes
from ramshelf.system.procfs import holders

_STATE_DIR = Path("/run/libvirt/qemu")
_DAEMONS = ("libvirtd", "virtqemud")
_LOCK_TIMEOUT = 30


def find_stale(uri: str | None) -> tuple[Listed, ...]:
    """What ``clean`` would remove, by libvirt at ``uri`` or, where that is None, by libvirt's records.

    Raises ServiceError where libvirt does not answer; without a URI HostError ``libvirt.running`` where it
    runs: a guest that starts has no record yet.
    """
    if uri is None:
        _require_no_daemon()
    listed = list_directories()
    if uri is None:
        return stale_among(listed, _recorded())
    with Hypervisor(uri, read_only=True) as hypervisor:
        active = [(domain.domain_id or 0, domain.name) for domain in hypervisor.active()]
    return stale_among(listed, active)


def list_directories() -> tuple[Listed, ...]:
    """The guests' directories, of guests that run and others; who uses them is not looked at yet."""
    return tuple(
        each
        for parent in memory_directories()
        if os.path.isdir(parent)
        for name in sorted(os.listdir(parent))
        if GUEST_DIRECTORY.fullmatch(name) and (each := _list(os.path.join(parent, name)))
    )


def stale_among(listed: Iterable[Listed], active: Iterable[tuple[int, str]]) -> tuple[Listed, ...]:
    """Those that nobody owns or uses and that have not changed since they were listed.

    ``active``: the guests (id, name) that libvirt named after that.
    """
    candidates = ((each, _look(each.path)) for each in stale(listed, active))
    return tuple(now for before, now in candidates if now is not None and still_stale(before, now))


def _require_no_daemon() -> None:
    seen = processes()
    if isinstance(seen, Unknown):
        raise HostError("libvirt.running", f"Whether libvirt runs cannot be seen: {seen.reason}.")
    for process in seen:
        if process.name in _DAEMONS:
            raise HostError(
                "libvirt.running",
                f"libvirt runs ({process.name}, process {process.pid}) and may be starting guests.",
                hint="Without --without-libvirt it is asked which guests are active.",
                facts={"process": process.pid},
            )


def _recorded() -> Iterator[tuple[int, str]]:
    """The guests that libvirt will look for when it starts: those of its records in /run."""
    for path in sorted(_STATE_DIR.glob("*.xml")):
        guest = parse_guest(path.read_bytes())
        yield guest.domain_id or 0, guest.name


def clean(
    found: tuple[Listed, ...], after_step: Callable[[str], None] = lambda _path: None
) -> tuple[Listed, ...]:
    """Remove what ``find_stale`` found and is still so; gives what was removed."""
    removed = []
    for each in found:
        with store_lock(timeout=_LOCK_TIMEOUT):
            if still_stale(each, _look(each.path)):
                memoryfiles.empty(memoryfiles.observe_directory(each.path))
                os.rmdir(each.path)
                removed.append(each)
        after_step(each.path)
    return tuple(removed)


def _list(path: str) -> Listed | None:
    """The directory, its contents not looked at; None where it is gone or is a link or a file."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(status.st_mode):
        return None
    return Listed(path=path, identity=(status.st_dev, status.st_ino), changed=status.st_ctime_ns)


def _look(path: str) -> Listed | None:
    """The directory as it is, with its files and who uses them; None as ``_list``."""
    try:
        directory = memoryfiles.observe_directory(path)
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        if os.path.islink(path):
            return None
        raise
    return Listed(
        path=path,
        identity=(status.st_dev, status.st_ino),
        changed=status.st_ctime_ns,
        promised=promised(directory.files),
        allocated=sum(file.allocated for file in directory.files),
        holders=holders(file.path for file in directory.files),
    )
