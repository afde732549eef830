"""ramshelf's hook on this host, which nova-compute asks through libvirt alone.

libvirt is asked for a guest that never starts. It asks its hook, which refuses with what the host
is (core/migration/answer.py). So nova-compute needs no privilege and sees none of the host's files.
"""

import re
import threading
import time
from collections.abc import Callable

import libvirt
from nova import exception
from nova.virt.libvirt.host import Host

from ramshelf_nova.conf import CONF
from ramshelf_nova.core.hook.call import HOST_PROBE, probe_xml
from ramshelf_nova.core.migration.answer import HostAnswer, read_answer

_KEPT_SECONDS = 5.0
"""The seconds for which an answer serves.

One look at a host's resources asks twice, and ten servers at once ask ten times.
"""

_PROBE = probe_xml(f"{HOST_PROBE}nova-compute")
"""The guest that is asked for, which always has the same name.

Where there is no hook that removes it, libvirt may leave a log for each name.
"""

_BROKEN_CONNECTION = {libvirt.VIR_FROM_REMOTE, libvirt.VIR_FROM_RPC}


_REFUSAL = re.compile(r"ramshelf: (.+?) \[[a-z.-]+\]", re.DOTALL)
"""Matches what the hook says to whoever starts a guest: a sentence and a code."""


class Hook:
    """The hook of the libvirt that ``host`` is connected to.

    Nova's own connection is used, whose calls leave the compute service's event loop alone.
    """

    def __init__(self, host: Host, clock: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self._clock = clock
        self._lock = threading.Lock()
        self._answer: HostAnswer | None = None
        self._until = float("-inf")

    def answer(self, *, fresh: bool = False) -> HostAnswer | None:
        """Return what the host is now, or what it was some seconds ago unless asked afresh.

        Return None where the hook does not say. Raises HypervisorUnavailable.
        """
        with self._lock:
            if fresh or self._clock() >= self._until:
                self._until = float("-inf")  # the answer before is none of a libvirt that is gone
                self._answer = self._ask()
                self._until = self._clock() + _KEPT_SECONDS
            return self._answer

    def _ask(self) -> HostAnswer | None:
        connection = self._host.get_connection()
        if connection is None:  # libvirt's own thread has just found it closed
            raise exception.HypervisorUnavailable(host=CONF.host)
        try:
            connection.createXML(_PROBE, libvirt.VIR_DOMAIN_START_PAUSED).destroy()
        except libvirt.libvirtError as error:
            if error.get_error_domain() in _BROKEN_CONNECTION:
                raise exception.HypervisorUnavailable(host=CONF.host) from error
            return read_answer(error.get_error_message() or "")
        return None


def refusal(error: libvirt.libvirtError) -> str | None:
    """Return the hook's own sentence where it has refused a guest; None for any other error."""
    match = _REFUSAL.search(error.get_error_message() or "")
    return match and match[1]


def trouble(answer: HostAnswer | None) -> str | None:
    """Return why a host with this answer can start no file-backed guest; None where it can."""
    if answer is None:
        return "ramshelf's hook does not answer; 'ramshelf hook status' on the host says more"
    if answer.kind is None:
        return f"there is no store ({answer.problem}); 'ramshelf doctor' on the host says more"
    return None
