"""A guest from another host gets this host's policy for its memory before QEMU starts.

Otherwise it is refused then. Where anything is in doubt nothing is printed, and libvirt takes the
guest's XML as it was.
"""

from __future__ import annotations

import os
import sys

from ramshelf.core.domain.memory import parse_guest
from ramshelf.core.domain.xml import parse
from ramshelf.core.errors import RefusedError
from ramshelf.core.migration.arrival import check_backing, on_arrival
from ramshelf.core.requirements import DISCARD, punch_writes_back, version
from ramshelf.core.store.find import Store
from ramshelf.hook.thishost import limit_of
from ramshelf.system import arrivals
from ramshelf.system.backingstore import observe_store
from ramshelf.system.emulators import emulator_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ramshelf.core.domain.memory import Guest


def apply_policy(files: Sequence[str], name: str, xml: bytes) -> None:
    """Answer ``migrate begin``: print the guest's XML if it is to be another one here.

    A guest whose memory would have to be backed otherwise is refused as it starts, if it does
    (`check_arrival`).
    """
    guest = parse_guest(xml, page_size=os.sysconf("SC_PAGE_SIZE"))
    try:
        store = check_arrival(files, guest)
    except RefusedError:
        arrivals.expect_start(name)
        return
    if not guest.file_backed or store is None:
        return
    changed = on_arrival(xml, discard=_discard(xml, store))
    if changed is not None:
        sys.stdout.buffer.write(changed)


def check_arrival(files: Sequence[str], guest: Guest) -> Store | None:
    """Return the store of this host for a guest that comes running, or None without a store.

    Raises RefusedError ``migration.becomes-*`` where its memory would have to be backed otherwise.
    """
    store, limit = observe_store().store, limit_of(files)
    check_backing(guest, file_backed=isinstance(store, Store) and not limit.off, off=limit.off)
    return store if isinstance(store, Store) else None


def _discard(xml: bytes, store: Store) -> bool | None:
    """Tell whether to discard, as ``guest start`` does: where it costs nothing, and QEMU can.

    Return None where that is not known; what the XML says is then left as it is.
    """
    if punch_writes_back(store.mount.fstype, version(os.uname().release)):
        return False
    qemu = emulator_version(parse(xml).findtext("devices/emulator"))
    return None if qemu is None else qemu >= DISCARD.qemu
