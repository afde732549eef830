"""Guests whose memory cannot leave RAM: they are admitted against RAM as well as against the store.

It is locked, or pinned for a device that may use all of it (VFIO, vDPA).
"""

from __future__ import annotations

from ramshelf.core.errors import RefusedError
from ramshelf.core.guest import Guest
from ramshelf.core.kind import Kind
from ramshelf.core.requirements import LONG_TERM_PIN_REFUSED_SINCE, Version, dotted
from ramshelf.core.store import Store
from ramshelf.core.units import MIB, align_up, to_mib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ramshelf.core.ledger import Note


def check_device(guest: Guest, store: Store, kernel: Version) -> None:
    """Refuse a guest with a device that needs pages pinned where the kernel does not pin them for long.

    QEMU would end with "VFIO_MAP_DMA failed: Bad address". Raises RefusedError ``guest.passthrough``.
    """
    if guest.passthrough and long_term_pin_refused(store.kind, kernel):
        raise RefusedError(
            "guest.passthrough",
            f"Guest {guest.name} has a host device or is encrypted, and Linux {dotted(kernel)} cannot pin "
            f"its memory on {store.mount.fstype}.",
            hint="Use a store of kind swap, or start this guest without file-backed memory.",
            facts={"guest": guest.name, "store": store.mount_point},
        )


def long_term_pin_refused(kind: Kind, kernel: Version) -> bool:
    """Whether the kernel does not pin pages of a store of this kind for a device (FOLL_LONGTERM)."""
    # check_vma_flags never allowed DAX file systems, writable_file_mapping_allowed came later.
    return kind is Kind.DAX or (not kind.tmpfs and kernel >= LONG_TERM_PIN_REFUSED_SINCE)


def ram_left(others: Iterable[Guest | Note], *, ram: int) -> int:
    """Bytes of RAM for a further guest that pins its memory; ``ram`` is what all such guests may have."""
    return ram - sum(other.pinned for other in others)


def check_ram(guest: Guest, others: Iterable[Guest | Note], *, ram: int, reserved: int) -> None:
    """Refuse a guest that pins its memory where RAM cannot hold it beside the others that do; bytes.

    ``others`` are the guests that run; ``ram`` is what the host has besides huge pages, and ``reserved`` what
    it needs for itself. Raises RefusedError ``ram.exceeded``.
    """
    if not guest.pinned:
        return
    left = ram_left(others, ram=ram - reserved)
    missing = guest.pinned - left
    if missing <= 0:
        return
    figures = {
        "pinned_mib": to_mib(guest.pinned),
        "others_mib": to_mib(ram - reserved - left),
        "missing_mib": to_mib(align_up(missing, MIB)),
        "ram_mib": to_mib(ram),
        "host_reserved_mib": to_mib(reserved),
    }
    raise RefusedError(
        "ram.exceeded",
        f"Guest {guest.name} keeps its {figures['pinned_mib']} MiB in RAM, "
        f"{figures['missing_mib']} MiB more than are left for guests like it "
        f"(RAM {figures['ram_mib']} MiB, held by others {figures['others_mib']} MiB, "
        f"for the host {figures['host_reserved_mib']} MiB).",
        hint="Its memory is locked or a device uses it: end another such guest, or take <locked/> or the "
        "device from this one.",
        facts={"guest": guest.name, **figures},
    )
