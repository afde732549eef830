"""Holding a guest still for moments, such that it goes on whatever becomes of the process that does it.

libvirt pauses the guest: its vCPUs stop, its devices stop, block requests are drained (QEMU's do_vm_stop).
Then QEMU itself is stopped (SIGSTOP), so that nobody else's ``virsh resume`` takes effect before the moment
is over. A guard, ``python -m ramshelf.node.pausing URI ID PIDFD``, reads from a pipe how things stand; when
the pipe ends it lets the guest go on, if that is still to be done.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Self

from ramshelf.core.errors import RamshelfError, RefusedError, ServiceError
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.procfs import thread_states

PAUSABLE = frozenset({"running", "idle", "paused"})
"""The states of a guest that can be held still."""

_GOING, _STOPPED, _PAUSING, _PAUSED = "going", "stopped", "pausing", "paused"
"""What the guard is told: it goes on; QEMU is stopped, or about to be; libvirt is asked to pause; it has."""

_LIBVIRT_WAIT = 60
"""Seconds in which libvirt may still do what a dead process has asked for: it waits 30 s for other jobs."""

_PATIENCE = 900
"""Seconds for libvirt to be there again and to have ended other jobs."""

_STOP_TIMEOUT = 2
"""Seconds for the threads of QEMU to stop."""


class Pauser:
    """Holds one run of a guest still, again and again; a context manager.

    ``pid`` is its QEMU's, ``directory`` that of its memory files, which is locked as long as the guard lives.
    Raises RefusedError ``guest.busy``, ``guest.state``, ``guest.not-found``, ServiceError.
    """

    def __init__(self, hypervisor: Hypervisor, domain_id: int, pid: int, directory: str) -> None:
        self._hypervisor = hypervisor
        self._domain_id = domain_id
        self._pid = pid
        self._directory = directory
        self._word = _GOING

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, lock)
                self._qemu = os.pidfd_open(self._pid)
                stack.callback(os.close, self._qemu)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (FileNotFoundError, ProcessLookupError) as error:
                raise RefusedError("guest.not-found", "The guest has ended.") from error
            except BlockingIOError as error:
                raise RefusedError("guest.busy", "The guest's memory is being trimmed already.") from error
            arguments = (self._hypervisor.uri, str(self._domain_id), str(self._qemu))
            self._guard = subprocess.Popen(  # noqa: S603 - this very program
                (sys.executable, "-I", "-m", "ramshelf.node.pausing", *arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(self._qemu, lock),
                start_new_session=True,
            )
            assert self._guard.stdout is not None  # noqa: S101 - it is a pipe
            with self._guard.stdout as ready:
                if not ready.readline():
                    raise ServiceError("guest.no-guard", "What is to let the guest go on does not start.")
            self._descriptors = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._descriptors.close()
        assert self._guard.stdin is not None  # noqa: S101 - it is a pipe
        self._guard.stdin.close()
        if self._word == _GOING:
            self._guard.wait()  # else it has something to do first

    @contextmanager
    def held(self) -> Iterator[None]:
        """The guest is paused meanwhile; one that somebody else had paused stays so."""
        state = self._hypervisor.state(self._domain_id)
        if state not in PAUSABLE:
            raise RefusedError("guest.state", f"The guest is {state}, and cannot be paused.")
        if state == "paused":
            with self._stopped():
                yield
            return
        self._tell(_PAUSING)
        try:
            self._hypervisor.suspend(self._domain_id)
        except RamshelfError as error:
            if error.code != "libvirt.connection-lost":  # libvirt will not do it any more
                self._tell(_GOING)
            raise
        try:
            self._tell(_PAUSED)
            with self._stopped(paused=True):
                yield
        finally:
            try:
                self._hypervisor.resume(self._domain_id)
            except RefusedError as error:
                if error.code != "guest.state":  # else somebody was quicker
                    raise
            self._tell(_GOING)

    def still_paused(self) -> bool:
        """Whether nobody has let the guest go on since; to be asked a while after it is held."""
        # QEMU tells libvirt before its vCPUs run (vm_prepare_start), and it was stopped after that.
        return self._hypervisor.state(self._domain_id) == "paused"

    @contextmanager
    def _stopped(self, *, paused: bool = False) -> Iterator[None]:
        if not paused:
            self._tell(_STOPPED)
        try:
            signal.pidfd_send_signal(self._qemu, signal.SIGSTOP)
            deadline = time.monotonic() + _STOP_TIMEOUT
            while not self._all_stopped():
                if time.monotonic() > deadline:
                    raise RefusedError("guest.not-stopped", "QEMU does not stop.")
                time.sleep(0.001)
            yield
        finally:
            _go_on(self._qemu)
            if not paused:
                self._tell(_GOING)

    def _all_stopped(self) -> bool:
        """Whether no thread runs any more; the signal has been sent.

        Looked at twice: a thread that began while the first look went on is not in it. Once one has stopped
        all are about to, and none begins (copy_process gives way to signals).
        """
        return all(thread_states(self._pid) <= {"T", "t"} for _ in range(2))

    def _tell(self, word: str) -> None:
        assert self._guard.stdin is not None  # noqa: S101 - it is a pipe
        try:
            os.write(self._guard.stdin.fileno(), f"{word}\n".encode())
        except BrokenPipeError as error:
            raise ServiceError("guest.no-guard", "What is to let the guest go on has ended.") from error
        self._word = word


def _go_on(qemu: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(qemu, signal.SIGCONT)


def main(uri: str, domain_id: int, qemu: int) -> None:
    """Wait for the end of standard input, then let the guest go on unless it does."""
    print(flush=True)  # noqa: T201 - the other end waits for it
    word = _GOING
    for line in sys.stdin:
        word = line.strip()
    if word == _GOING:
        return
    _go_on(qemu)
    if word == _STOPPED:
        return
    deadline = time.monotonic() + (_PATIENCE if word == _PAUSED else _LIBVIRT_WAIT)
    while time.monotonic() < deadline:
        with suppress(RamshelfError), Hypervisor(uri) as hypervisor:
            try:
                if hypervisor.state(domain_id) == "paused":
                    hypervisor.resume(domain_id)
                    return
                if word == _PAUSED:
                    return  # somebody was quicker
            except RefusedError:
                return  # it has ended
        time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
