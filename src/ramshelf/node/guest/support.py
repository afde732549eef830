"""What this host would do with the discard flag."""

import os
from contextlib import suppress

from ramshelf.core.domain.backing import Support
from ramshelf.core.errors import RamshelfError
from ramshelf.core.requirements import version
from ramshelf.core.store.find import Store
from ramshelf.system.backingstore import observe_store
from ramshelf.system.hypervisor import Hypervisor


def observe_support(hypervisor: Hypervisor | None) -> Support:
    """Return what this host would do with discard, as far as it can be seen."""
    libvirt, qemu, fstype = None, None, None
    if hypervisor is not None:
        with suppress(RamshelfError):
            libvirt, qemu = hypervisor.libvirt_version(), hypervisor.qemu_version()
    with suppress(RamshelfError, OSError):
        store = observe_store().store
        fstype = store.mount.fstype if isinstance(store, Store) else None
    return Support(libvirt=libvirt, qemu=qemu, kernel=version(os.uname().release), fstype=fstype)
