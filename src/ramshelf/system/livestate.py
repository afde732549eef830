"""The guests that run, by libvirt's own records in /run/libvirt/qemu.

libvirt itself is not asked. It writes a guest's record as soon as QEMU's process is there, and
removes it when the guest has ended. A record that cannot be understood hides no other.
"""

from __future__ import annotations

import os
import stat

from ramshelf.core.domain.memory import parse_guest
from ramshelf.core.errors import InputError
from ramshelf.core.record import dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ramshelf.core.domain.memory import Guest

STATE_DIR = "/run/libvirt/qemu"

_LARGEST = 64 << 20
"""The most bytes of a record that are read."""


@dataclass(frozen=True, kw_only=True)
class Live:
    """A guest that runs.

    ``guest`` is None where its record is not understood, and ``problem`` then says why.
    """

    name: str
    guest: Guest | None
    problem: str = ""


def live_names() -> frozenset[str]:
    """Return the names of the guests that libvirt has a record of."""
    try:
        entries = os.listdir(STATE_DIR)
    except FileNotFoundError:
        return frozenset()
    return frozenset(entry[: -len(".xml")] for entry in entries if entry.endswith(".xml"))


def read_live(name: str) -> Live | None:
    """Return one guest, or None where it has ended."""
    try:
        with open(f"{STATE_DIR}/{name}.xml", "rb") as file:
            xml = file.read(_LARGEST)
        guest = parse_guest(xml, page_size=os.sysconf("SC_PAGE_SIZE"))
        return Live(name=name, guest=replace(guest, name=name))
    except FileNotFoundError:
        return None
    except (InputError, OSError) as error:
        return Live(name=name, guest=None, problem=str(error))


def live_guests() -> tuple[Live, ...]:
    """Return all guests that run, sorted by name, whether their records are understood or not."""
    found = (read_live(name) for name in sorted(live_names()) if not is_forgotten(name))
    return tuple(live for live in found if live is not None)


def recorded_pid(name: str) -> int | None:
    """Return the guest's QEMU by libvirt's record, whether the process is there or not."""
    try:
        with open(f"{STATE_DIR}/{name}.pid", "rb") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return None


def opened_files(name: str) -> frozenset[int]:
    """Return the inodes of the regular files that the guest's QEMU has open.

    There are none where the process cannot be seen.
    """
    pid = qemu_pid(name)
    found = set()
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return frozenset()
    for descriptor in descriptors:
        try:
            status = os.stat(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            found.add(status.st_ino)
    return frozenset(found)


def is_forgotten(name: str) -> bool:
    """Tell whether a guest has ended though its record is there.

    Then QEMU is gone, and libvirt has not noticed. libvirt leaves the record for good where its
    daemon was killed while it ended the guest. As long as no daemon runs that sees the processes
    that this one sees, the guest counts as there.
    """
    pid = recorded_pid(name)
    if pid is None or os.path.exists(f"/proc/{pid}"):
        return False
    daemon = recorded_pid("driver")
    try:
        with open(f"/proc/{daemon}/comm", "rb") as file:
            return file.read().strip() in {b"libvirtd", b"virtqemud"}
    except OSError:
        return False


def qemu_pid(name: str) -> int | None:
    """Return the guest's QEMU by libvirt's record, or None where the process is gone."""
    pid = recorded_pid(name)
    return pid if pid is not None and os.path.exists(f"/proc/{pid}") else None
