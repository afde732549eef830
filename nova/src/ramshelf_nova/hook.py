"""ramshelf's hook on this host, as nova-compute asks it: through libvirt alone.

A guest that never starts is asked of libvirt, which asks its hook, which refuses with what the host
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
"""How long an answer serves: one look at a host's resources asks twice, ten servers at once ten times.
"""

_PROBE = probe_xml(f"{HOST_PROBE}nova-compute")
"""Always of one name: libvirt may leave a log of each where there is no hook that removes it."""

_BROKEN_CONNECTION = {libvirt.VIR_FROM_REMOTE, libvirt.VIR_FROM_RPC}


_REFUSAL = re.compile(r"ramshelf: (.+?) \[[a-z.-]+\]", re.DOTALL)
"""What the hook says to whoever starts a guest: a sentence and a code."""


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
        """What the host is now or, unless asked afresh, was some seconds ago; None: the hook does not
        say.

        Raises HypervisorUnavailable.
        """
        with self._lock:
            if fresh or self._clock() >= self._until:
                self._answer = self._ask()
                self._until = self._clock() + _KEPT_SECONDS
            return self._answer

    def _ask(self) -> HostAnswer | None:
        connection = self._host.get_connection()
        try:
            connection.createXML(_PROBE, libvirt.VIR_DOMAIN_START_PAUSED).destroy()
        except libvirt.libvirtError as error:
            if error.get_error_domain() in _BROKEN_CONNECTION:
                raise exception.HypervisorUnavailable(host=CONF.host) from error
            return read_answer(error.get_error_message() or "")
        return None


def refusal(error: libvirt.libvirtError) -> str | None:
    """The hook's own sentence where it is the one that refused a guest; None for any other error."""
    match = _REFUSAL.search(error.get_error_message() or "")
    return match and match[1]


def trouble(answer: HostAnswer | None) -> str | None:
    """Why a host by this answer can start no file-backed guest; None where nothing is wrong."""
    if answer is None:
        return "ramshelf's hook does not answer; 'ramshelf hook status' on the host says more"
    if answer.kind is None:
        return f"there is no store ({answer.problem}); 'ramshelf doctor' on the host says more"
    return None
