"""Whether the kernel can pin all of a guest's memory, as its device may need (VFIO, vDPA)."""

from __future__ import annotations

from ramshelf.core.domain.memory import Guest
from ramshelf.core.errors import RefusedError
from ramshelf.core.requirements import LONG_TERM_PIN_REFUSED_SINCE, Version, dotted
from ramshelf.core.store.find import Store
from ramshelf.core.store.kind import Kind


def check_device(guest: Guest, store: Store, kernel: Version) -> None:
    """Refuse a guest whose memory must be pinned where the kernel does not pin it for long.

    QEMU would end with "Bad address", since VFIO cannot map it. Raises RefusedError
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
    """Tell whether the kernel refuses to pin pages of such a store for a device (FOLL_LONGTERM)."""
    # check_vma_flags never allowed it on DAX file systems; writable_file_mapping_allowed, which
    # refuses the others, came later.
    return kind.dax or (not kind.tmpfs and kernel >= LONG_TERM_PIN_REFUSED_SINCE)
