"""Whether a running guest's memory may be trimmed.

Trimming makes empty pages of the memory holes again while the guest is paused.
"""

from collections.abc import Sequence

from ramshelf.core.domain.memory import Guest
from ramshelf.core.errors import RefusedError
from ramshelf.core.store.find import Store

_OWN_ACCESS = ("/dev/vfio/", "/dev/iommu", "/dev/vhost-vdpa", "/dev/bus/usb/")
"""Device files of what reaches a guest's memory without asking its vCPUs.

Such memory may be pinned, too.
"""


def check_trim(
    guest: Guest, store: Store, *, mappers: Sequence[int], opened: Sequence[str]
) -> None:
    """Raise RefusedError unless nothing but QEMU, which can be paused, writes to its memory.

    ``mappers`` are the processes that map its memory files, ``opened`` is what QEMU has open. A
    vhost-user back end must not write to the memory of a guest that is stopped ("suspended device
    state" of QEMU's vhost-user.rst, since 8.2); whether the one at hand keeps to that cannot be
    seen.
    """
    facts = {"guest": guest.name}
    if not store.kind.tmpfs:
        raise RefusedError(
            "guest.keeps-extents",
            f"The store is of kind {store.kind.value}: what a save or a dump reads there takes no "
            f"more space, and guest {guest.name} has nothing to give back.",
            facts={**facts, "kind": store.kind.value},
        )
    devices = sorted({path for path in opened if path.startswith(_OWN_ACCESS)})
    if guest.passthrough or devices:
        raise RefusedError(
            "guest.device-access",
            f"Guest {guest.name} has a device of the host, which reaches its memory even while it "
            "is paused.",
            hint="Its memory stays allocated until the guest ends.",
            facts={**facts, "devices": devices},
        )
    if guest.locked:
        raise RefusedError(
            "guest.memory-locked",
            f"Guest {guest.name} has all its memory locked in RAM.",
            facts=facts,
        )
    if len(mappers) > 1:
        raise RefusedError(
            "guest.memory-shared",
            f"Another process than QEMU maps the memory of guest {guest.name}, and may write to it "
            "even while the guest is paused.",
            hint=(
                "It is a vhost-user back end, such as virtiofsd: the memory stays allocated until "
                "the guest ends."
            ),
            facts={**facts, "processes": list(mappers)},
        )
