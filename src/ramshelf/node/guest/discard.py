"""Taking QEMU's discard flag back from a running guest whose memory would be written at its end.

QEMU punches out all of its memory when it ends and the flag is set (MADV_REMOVE,
file_backend_unparent), and XFS, and ext4 before Linux 6.14, write a range back before they punch
it. Without the flag libvirt unlinks the files and the kernel drops the pages.
"""

import os

from ramshelf.system.backingstore import places
from ramshelf.system.filesystem import resolved
from ramshelf.system.hypervisor import Hypervisor


def retract(hypervisor: Hypervisor, name: str) -> tuple[str, ...]:
    """Clear the flag of each memory file of the guest; return the ids of backends that had it."""
    directories = {place.path for place in places()}
    retracted = []
    for child in hypervisor.monitor(name, "qom-list", path="/objects"):
        if child["type"] != "child<memory-backend-file>":
            continue
        path = f"/objects/{child['name']}"
        file = hypervisor.monitor(name, "qom-get", path=path, property="mem-path")
        if resolved(os.path.dirname(os.path.dirname(file))) not in directories:
            continue
        if hypervisor.monitor(name, "qom-get", path=path, property="discard-data"):
            hypervisor.monitor(name, "qom-set", path=path, property="discard-data", value=False)
            retracted.append(child["name"])
    return tuple(retracted)
