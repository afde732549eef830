"""What is done for a guest once libvirt has done with its start.

The hook leaves ``python -m ramshelf.node.guest.aftercare GUEST ID TASK...`` behind, since libvirt
alone can talk to QEMU and cannot be asked from its own hook. Others leave it behind where a task
takes long. The tasks are ``discard`` (node/guest/discard.py) and ``trim`` (node/guest/trim.py), for
this run of the guest only, and ``resume`` (node/guest/let_go.py), for whichever run it was. The
hook's log tells what was done.
"""

import subprocess
import sys
import time

from ramshelf.core.errors import HostError, RamshelfError, RefusedError
from ramshelf.node.guest.discard import retract
from ramshelf.node.guest.let_go import until_resumed
from ramshelf.node.guest.trim import trim_guest
from ramshelf.system.hooklog import record
from ramshelf.system.hypervisor import Domain, Hypervisor

_URI = "qemu:///system"
_PATIENCE = 900
"""Seconds for libvirt to be there and to have done with the start.

An incoming migration is a start, too.
"""


def leave(name: str, domain_id: int, *tasks: str) -> "subprocess.Popen[bytes]":
    """Leave a process behind that does the tasks; it outlives this one."""
    return subprocess.Popen(  # noqa: S603 - this very program
        (sys.executable, "-I", "-m", "ramshelf.node.guest.aftercare", name, str(domain_id), *tasks),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main(name: str, domain_id: int, *tasks: str) -> None:
    """Do the tasks as soon as libvirt lets that be done, unless the guest has ended."""
    if "resume" in tasks:  # first: nothing else can be done with a guest that is paused
        until_resumed(_URI, name)
    left = [task for task in tasks if task != "resume"]
    deadline = time.monotonic() + _PATIENCE
    while left:
        try:
            with Hypervisor(_URI) as hypervisor:
                while left:
                    domain = hypervisor.find(name)
                    if domain.domain_id != domain_id:
                        return
                    _TASKS[left[0]](hypervisor, domain)
                    del left[0]
        except RamshelfError as error:
            if _final(error) or time.monotonic() > deadline:
                event = {"discard": "discard-kept", "trim": "not-trimmed"}[left[0]]
                record(event, guest=name, id=domain_id, code=error.code, reason=error.sentence)
                del left[0]
            else:
                time.sleep(0.5)


def _final(error: RamshelfError) -> bool:
    """Tell whether trying again does not help: the guest is gone, or there is no way."""
    return isinstance(error, RefusedError | HostError) and error.code != "guest.busy"


def _discard(hypervisor: Hypervisor, domain: Domain) -> None:
    backends = retract(hypervisor, domain.name)
    record(
        "discard-retracted",
        guest=domain.name,
        uuid=domain.uuid,
        id=domain.domain_id,
        backends=backends,
    )


def _trim(hypervisor: Hypervisor, domain: Domain) -> None:
    trim_guest(hypervisor, domain.name)


_TASKS = {"discard": _discard, "trim": _trim}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
