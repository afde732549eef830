"""Guests with a device that may use all of their memory (VFIO, vDPA): where the kernel can pin that."""

from __future__ import annotations

from ramshelf.core.domain.memory import Guest
from ramshelf.core.errors import RefusedError
from ramshelf.core.requirements import LONG_TERM_PIN_REFUSED_SINCE, Version, dotted
from ramshelf.core.store.find import Store
from ramshelf.core.store.kind import Kind


def check_device(guest: Guest, store: Store, kernel: Version) -> None:
    """Refuse a guest with a device that needs pages pinned where the kernel does not pin them for
    long.

    QEMU would end with "VFIO_MAP_DMA failed: Bad address". Raises RefusedError
    ``guest.passthrough``.
    """
    if guest.passthrough and long_term_pin_refused(store.kind, kernel):
        raise RefusedError(
            "guest.passthrough",
            f"Guest {guest.name} has a host device or is encrypted, and Linux {dotted(kernel)} "
            f"cannot pin its memory on {store.mount.fstype}.",
            hint="Use a store of kind swap, or start this guest without file-backed memory.",
            facts={"guest": guest.name, "store": store.mount_point},
        )


def long_term_pin_refused(kind: Kind, kernel: Version) -> bool:
    """Whether the kernel does not pin pages of a store of this kind for a device (FOLL_LONGTERM)."""
    # check_vma_flags never allowed DAX file systems, writable_file_mapping_allowed came later.
    return kind.dax or (not kind.tmpfs and kernel >= LONG_TERM_PIN_REFUSED_SINCE)
