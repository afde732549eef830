"""Holding a guest still for moments, so that it goes on whatever becomes of this process.

First libvirt pauses the guest: its vCPUs stop, its devices stop, and block requests are drained
(QEMU's do_vm_stop). Then QEMU's threads are stopped (system/ptrace.py), and libvirt is asked at
once, on a connection of its own, to resume the guest. QEMU obeys when its threads go on. Until then
libvirt is busy with the guest, so whoever wants to save, migrate or pause it waits for the moment
to pass, and finds it running: a migration that found it paused would leave it so. Stopping the
threads alone would not do: it stops neither vhost nor I/O that is under way, and these write to the
guest's memory.

The kernel lets QEMU go on when this process ends, and the guest with it. Only a process that ends
between the pause and the request to resume leaves the guest paused: a note (system/heldnotes.py)
tells whoever comes next (node/guest/let_go.py), and a guard is there to come at once. A save or a
migration that begins in that instant is given up.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Self

from ramshelf.core.errors import RamshelfError, RefusedError, ServiceError
from ramshelf.core.guest.hold import IN_THE_WAY, PAUSABLE
from ramshelf.node.guard import Guard
from ramshelf.system.heldnotes import HeldNote
from ramshelf.system.hooklog import record
from ramshelf.system.hypervisor import Domain, Hypervisor, Request
from ramshelf.system.ptrace import Holder, require_untraced, stopped

_STOP_TIMEOUT = 2
"""Seconds for the threads of QEMU to stop."""

_OBEYS = 0.05
"""Seconds for a QEMU that goes on to have the guest run.

Then it is looked whether a job of libvirt's keeps it from that.
"""

_UNKNOWN = frozenset({"libvirt.connection-lost", "libvirt.no-answer"})
"""The errors after which libvirt may still do what it was asked for."""


def require_idle(hypervisor: Hypervisor, name: str, domain_id: int) -> None:
    """Raise RefusedError ``guest.busy`` while this run of the guest is saved, dumped or moved."""
    if hypervisor.busy(domain_id):
        raise RefusedError(
            "guest.busy",
            f"Guest {name} is being saved, dumped or migrated.",
            hint="Trim it when that has ended.",
            facts={"guest": name},
        )


class Pauser:
    """Holds one run of a guest still, again and again; a context manager.

    ``domain`` is active, and ``pid`` that of its QEMU. Nobody else can hold the guest meanwhile.
    ``after_step`` is told ``paused`` when libvirt has paused it. Raises RefusedError
    ``guest.busy``, ``guest.state``, ``guest.not-found``, ``guest.traced``, ``guest.not-stopped``,
    HostError ``host.no-ptrace``, ServiceError.
    """

    def __init__(
        self,
        hypervisor: Hypervisor,
        domain: Domain,
        pid: int,
        after_step: Callable[[str], None],
    ) -> None:
        self._hypervisor = hypervisor
        self._name = domain.name
        self._uuid = domain.uuid
        self._domain_id = domain.domain_id or 0
        self._pid = pid
        self._after_step = after_step

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
            other = Hypervisor(self._hypervisor.uri)
            stack.callback(other.close)
            self._begin_resume = other.resumer(self._domain_id)
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
    def held(self) -> Iterator[Holder]:
        """Keep the guest paused meanwhile; one that somebody else had paused stays so.

        Where QEMU is to end it may run the guest again, except within ``Holder.kept``.
        """
        require_untraced(self._pid)
        state = self._hypervisor.state(self._domain_id)
        if state not in PAUSABLE:
            raise RefusedError("guest.state", f"The guest is {state}, and cannot be paused.")
        # libvirt pauses a guest that is being migrated, but does not resume it.
        require_idle(self._hypervisor, self._name, self._domain_id)
        if state == "paused":
            with stopped(self._pid, timeout=_STOP_TIMEOUT) as qemu:
                yield qemu
            return
        self._note.write(self._domain_id, self._uuid)
        self._suspend()
        resumption = None
        try:
            self._after_step("paused")
            with stopped(self._pid, timeout=_STOP_TIMEOUT) as qemu:
                resumption = self._begin_resume()
                self._note.paused()
                yield qemu
        finally:
            self._go_on(resumption or self._begin_resume())

    def still_paused(self) -> bool:
        """Tell whether nobody has resumed the guest since; to be asked a while after it is held."""
        # QEMU tells libvirt before its vCPUs run (vm_prepare_start), and it was stopped after that.
        # The request to resume it is in QEMU's socket: libvirt says "paused" until QEMU obeys.
        return self._hypervisor.state(self._domain_id) == "paused"

    def _suspend(self) -> None:
        try:
            self._hypervisor.suspend(self._domain_id)
        except RamshelfError as error:
            if error.code not in _UNKNOWN:
                self._note.clear()
            raise

    def _go_on(self, resumption: Request) -> None:
        """Wait until the guest goes on, and give up what keeps it from that."""
        given_up = False
        try:
            while not resumption.ended(_OBEYS):
                given_up = given_up or self._give_up()
        except RefusedError as error:
            self._note.clear()
            if error.code != "guest.state":  # with that code somebody was quicker
                raise
        else:
            self._note.clear()

    def _give_up(self) -> bool:
        """Give up a job that takes the guest for one that somebody has paused; tell of it.

        Where the guest has gone on meanwhile, a job that has waited for that may have begun. It
        finds a guest that runs, or has paused it itself.
        """
        with suppress(RamshelfError):  # it has ended, or cannot be given up: it is waited for
            job = self._hypervisor.job(self._domain_id)
            if job in IN_THE_WAY and self._hypervisor.paused_by_request(self._domain_id):
                self._hypervisor.abort_job(self._name)
                record(
                    "job-given-up", guest=self._name, uuid=self._uuid, id=self._domain_id, job=job
                )
                return True
        return False
