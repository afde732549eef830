"""Taking QEMU's discard flag back from a running guest, where ending it would write its memory first.

QEMU punches out all of its memory when it ends and the flag is set (MADV_REMOVE, file_backend_unparent), and
XFS, and ext4 before Linux 6.14, write a range back before they punch it. Without the flag libvirt unlinks the
files and the kernel drops the pages.

The hook starts ``python -m ramshelf.node.discard GUEST ID`` at the end of a guest's start.
"""

import os
import sys
import time

from ramshelf.core.errors import RamshelfError
from ramshelf.system.backingstore import memory_directories
from ramshelf.system.hooklog import record
from ramshelf.system.hypervisor import Hypervisor

_URI = "qemu:///system"
_PATIENCE = 900
"""Seconds for libvirt to be there and to have done with the start; an incoming migration is one, too."""

_FINAL = frozenset({"guest.not-found", "guest.state", "libvirt.permission", "libvirt.driver"})
"""The guest is gone, or there is no way: trying again does not help."""


def retract(hypervisor: Hypervisor, name: str) -> tuple[str, ...]:
    """Clear the flag of each memory file of the guest; the ids of the backends that had it."""
    directories = memory_directories()
    retracted = []
    for child in hypervisor.monitor(name, "qom-list", path="/objects"):
        if child["type"] != "child<memory-backend-file>":
            continue
        path = f"/objects/{child['name']}"
        file = hypervisor.monitor(name, "qom-get", path=path, property="mem-path")
        if os.path.dirname(os.path.dirname(file)) not in directories:
            continue
        if hypervisor.monitor(name, "qom-get", path=path, property="discard-data"):
            hypervisor.monitor(name, "qom-set", path=path, property="discard-data", value=False)
            retracted.append(child["name"])
    return tuple(retracted)


def main(name: str, domain_id: int) -> None:
    """Retract as soon as libvirt lets one, unless the guest has ended; the hook's log tells."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with Hypervisor(_URI) as hypervisor:
                domain = hypervisor.find(name)
                if domain.domain_id != domain_id:
                    return
                backends = retract(hypervisor, name)
                record("discard-retracted", guest=name, uuid=domain.uuid, id=domain_id, backends=backends)
                return
        except RamshelfError as error:
            if error.code in _FINAL or time.monotonic() > deadline:
                record("discard-kept", guest=name, id=domain_id, code=error.code, reason=error.sentence)
                return
        time.sleep(0.5)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
