"""Removing directories that belong to no guest; see ``core/store/clean``.

They are observed, it is decided which are to go, and these are removed.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from ramshelf.core.errors import HostError
from ramshelf.core.host import Unknown
from ramshelf.core.store.clean import stale, unchanged
from ramshelf.core.store.directory import GuestDirectory
from ramshelf.system import backingstore, memoryfiles, storetree
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.livestate import live_guests
from ramshelf.system.locks import store_lock
from ramshelf.system.processes import libvirt_daemons
from ramshelf.system.procfs import holders_of

_LOCK_TIMEOUT = 30


def find_stale(uri: str | None) -> tuple[GuestDirectory, ...]:
    """Return what ``clean`` would remove.

    The guests are those of libvirt at ``uri`` or, where that is None, those of libvirt's records.
    Raises ServiceError where libvirt does not answer. Without a URI raises HostError
    ``libvirt.running`` where libvirt runs or may run: a guest that starts has no record yet.
    """
    if uri is None:
        _require_no_daemon()
    listed = list_directories()
    if uri is None:
        return stale_among(listed, _recorded())
    with Hypervisor(uri, read_only=True) as hypervisor:
        active = [(domain.domain_id or 0, domain.name) for domain in hypervisor.active()]
    return stale_among(listed, active)


def list_directories() -> tuple[GuestDirectory, ...]:
    """List the guests' directories, of guests that run and of others.

    Who uses them is not looked at yet.
    """
    return backingstore.directories(backingstore.places())


def stale_among(
    listed: Iterable[GuestDirectory], active: Iterable[tuple[int | None, str]]
) -> tuple[GuestDirectory, ...]:
    """Return those that nobody owns or uses and that have not changed since they were listed.

    ``active`` are the guests (id, name) that libvirt named after that.
    """
    candidates = stale(listed, active)
    if not candidates:
        return ()
    now = {each.path: each for each in list_directories()}
    same = (
        now[each.path]
        for each in candidates
        if each.path in now and unchanged(each, now[each.path])
    )
    return tuple(each for each in same if not holders_of(_identities(each)))


def _identities(directory: GuestDirectory) -> set[tuple[int, int, int]]:
    return {(*directory.device, file.inode) for file in directory.files}


def _require_no_daemon() -> None:
    seen = libvirt_daemons()
    if isinstance(seen, Unknown):
        raise HostError("libvirt.running", f"Whether libvirt runs cannot be seen: {seen.reason}.")
    for daemon in seen:
        raise HostError(
            "libvirt.running",
            f"libvirt runs ({daemon.name}, process {daemon.pid}) and may be starting guests.",
            hint="Leave --without-libvirt away: libvirt is then asked which guests are active.",
            facts={"process": daemon.pid},
        )


def _recorded() -> Iterator[tuple[int | None, str]]:
    """Yield the guests that libvirt will look for when it starts: those of its records in /run."""
    for live in live_guests():
        yield live.guest.domain_id if live.guest is not None else None, live.name


def clean(
    found: tuple[GuestDirectory, ...], after_step: Callable[[str], None] = lambda _path: None
) -> tuple[GuestDirectory, ...]:
    """Remove what ``find_stale`` found, as far as it is still so; return what was removed.

    A directory in which somebody makes files all the while stays, and does not hold up the others.
    """
    removed = []
    for each in found:
        with (
            store_lock(timeout=_LOCK_TIMEOUT),
            suppress(OSError),
            _opened(each) as (parent, directory),
        ):
            now = storetree.observe(directory, each.path)
            if unchanged(each, now) and not holders_of(_identities(now)):
                memoryfiles.empty(directory)
                os.rmdir(each.name, dir_fd=parent)
                removed.append(each)
        after_step(each.path)
    return tuple(removed)


@contextmanager
def _opened(directory: GuestDirectory) -> Iterator[tuple[int, int]]:
    """Yield descriptors of the directory that it lies in and of the directory itself.

    Raises OSError.
    """
    above = os.path.dirname(directory.path)
    place = next((place for place in backingstore.places() if place.path == above), None)
    if place is None or place.mount is None:
        raise FileNotFoundError(above)
    with (
        storetree.open_directory(place.mount, above) as parent,
        storetree.open_guest(parent, directory.name) as descriptor,
    ):
        yield parent, descriptor
