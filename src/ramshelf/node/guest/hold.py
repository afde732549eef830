"""Holding a guest still for moments, so that it goes on whatever becomes of this process.

First libvirt pauses the guest: its vCPUs stop, its devices stop, and block requests are drained
(QEMU's do_vm_stop). Only then are QEMU's threads stopped (system/ptrace.py), so that nobody else's
``virsh resume`` takes effect before the moment is over. Stopping the threads alone would not do: it
stops neither vhost nor I/O that is under way, and these write to the guest's memory.

The kernel lets QEMU go on when this process ends. libvirt's pause outlives it: a note
(system/heldnotes.py) tells whoever comes next (node/guest/let_go.py), and a guard is there to come
at once.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Self

from ramshelf.core.errors import RamshelfError, RefusedError, ServiceError
from ramshelf.core.guest.hold import PAUSABLE
from ramshelf.node.guard import Guard
from ramshelf.system.heldnotes import HeldNote
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.ptrace import require_untraced, stopped

_STOP_TIMEOUT = 2
"""Seconds for the threads of QEMU to stop."""

_UNKNOWN = frozenset({"libvirt.connection-lost", "libvirt.no-answer"})
"""The errors after which libvirt may still do what it was asked for."""


class Pauser:
    """Holds one run of a guest still, again and again; a context manager.

    ``pid`` is that of its QEMU. Nobody else can hold the guest meanwhile. Raises RefusedError
    ``guest.busy``, ``guest.state``, ``guest.not-found``, ``guest.traced``, ``guest.not-stopped``,
    HostError ``host.no-ptrace``, ServiceError.
    """

    def __init__(
        self, hypervisor: Hypervisor, name: str, uuid: str, domain_id: int, pid: int
    ) -> None:
        self._hypervisor = hypervisor
        self._name = name
        self._uuid = uuid
        self._domain_id = domain_id
        self._pid = pid

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # The note is let go of before the guard, which then looks whether it must do anything.
            guard = Guard("ramshelf.node.guest.hold_guard", self._hypervisor.uri, self._name)
            self._guard = stack.enter_context(guard)
            try:
                self._note = stack.enter_context(HeldNote(self._name))
            except BlockingIOError as error:
                raise RefusedError(
                    "guest.busy", "The guest's memory is being trimmed already."
                ) from error
            self._held = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._note.domain_id is not None:
            with suppress(ServiceError):  # without the guard somebody else resumes it
                self._guard.tell("paused")  # the guard is not waited for
        self._held.close()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the guest paused meanwhile; one that somebody else had paused stays so."""
        require_untraced(self._pid)
        state = self._hypervisor.state(self._domain_id)
        if state not in PAUSABLE:
            raise RefusedError("guest.state", f"The guest is {state}, and cannot be paused.")
        if state == "paused":
            with stopped(self._pid, timeout=_STOP_TIMEOUT):
                yield
            return
        self._note.write(self._domain_id, self._uuid)
        self._suspend()
        try:
            with stopped(self._pid, timeout=_STOP_TIMEOUT):
                yield
        finally:
            self._resume()

    def still_paused(self) -> bool:
        """Tell whether nobody has resumed the guest since; to be asked a while after it is held."""
        # QEMU tells libvirt before its vCPUs run (vm_prepare_start), and it was stopped after that.
        return self._hypervisor.state(self._domain_id) == "paused"

    def _suspend(self) -> None:
        try:
            self._hypervisor.suspend(self._domain_id)
        except RamshelfError as error:
            if error.code not in _UNKNOWN:
                self._note.clear()
            raise

    def _resume(self) -> None:
        try:
            self._hypervisor.resume(self._domain_id)
        except RefusedError as error:
            self._note.clear()
            if error.code != "guest.state":  # with that code somebody was quicker
                raise
        else:
            self._note.clear()
