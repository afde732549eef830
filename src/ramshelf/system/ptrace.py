"""Holding a process still by ptrace(2), which the kernel ends together with who holds it.

A thread of this process seizes every thread of the other one and stops it. They go on when that
thread ends, and in no other way: exit_ptrace() in kernel/ptrace.c detaches all that an ending
thread traces. So what happens at every normal end is what happens when this process is killed.
PTRACE_DETACH would be a second way, and fails for a thread in uninterruptible sleep, which has not
stopped yet. PTRACE_O_EXITKILL, which would kill the process instead, is not set.

Nothing is waited for by wait(2), which would take away what a thread is stopped with. A thread that
was about to take a signal as it was seized still has it (ptrace_stop() in kernel/signal.c), and
takes it as it goes on; so it does with signals that came meanwhile. A process that was stopped by
SIGSTOP before, or is meanwhile, stays stopped. SIGCONT does not let it go on before its time.
SIGKILL ends it at once.

This stops the threads of a process, no more: not what the kernel does for it, such as vhost before
Linux 6.4 or I/O that is under way.
"""

import ctypes
import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ramshelf.core.errors import HostError, RefusedError
from ramshelf.system.filesystem import read_text

_SEIZE, _INTERRUPT = 0x4206, 0x4207
"""The requests PTRACE_SEIZE and PTRACE_INTERRUPT of linux/ptrace.h (Linux 3.4).

They are the same on every architecture.
"""

_ENDED = frozenset({"Z", "X"})
_STOPPED = frozenset({"t", "T"}) | _ENDED
"""The letters of proc_pid_stat(5) of a thread that is seized and runs no code.

It is stopped by that, was stopped by a signal before, or has ended.
"""

_POLL = 0.0005
_ENDS_POLL = 0.002
"""Seconds between two looks.

With ``_POLL`` it is whether all threads have stopped, with ``_ENDS_POLL`` whether the process has
ended.
"""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


@contextmanager
def stopped(pid: int, *, timeout: float) -> Iterator["Holder"]:
    """Let no thread of the process run meanwhile, unless the process is to end.

    One that is to end goes on, but not within ``Holder.kept``.

    The process is not a child of this one. Raises RefusedError ``guest.not-stopped`` where a thread
    has not stopped after ``timeout`` seconds (it is in uninterruptible sleep), ``guest.traced``
    where another tracer has it; HostError ``host.no-ptrace``; ProcessLookupError where the process
    has ended.
    """
    holder = Holder(pid, timeout)
    holder.start()
    try:
        holder.ready.wait()
        if holder.error is not None:
            raise holder.error
        yield holder
    finally:
        holder.let_go()


def require_untraced(pid: int, thread: int | None = None) -> None:
    """Raise RefusedError ``guest.traced`` where somebody traces the process.

    Its first thread is looked at, or ``thread``.
    """
    if tracer := _tracer(pid, thread or pid):
        raise RefusedError(
            "guest.traced",
            f"Process {tracer} traces the guest's QEMU (process {pid}), and only one can.",
            hint="It is a debugger such as gdb, or strace: try again when it has ended.",
            facts={"process": pid, "tracer": tracer},
        )


class Holder(threading.Thread):
    """A thread that holds the process until it is told to let go, or the process is to end.

    ``error`` says why it could not.
    """

    def __init__(self, pid: int, timeout: float) -> None:
        super().__init__(name="holder", daemon=True)
        self._pid = pid
        self._timeout = timeout
        self._over = threading.Event()
        self._keep = threading.Lock()
        self._gone = False
        self.ready = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        """Hold the process: what the thread does."""
        try:
            self._hold()
        except Exception as error:  # noqa: BLE001 - raised where it was asked for
            self.error = error
            return
        finally:
            self.ready.set()
        while not self._over.wait(_ENDS_POLL) and not _is_to_end(self._pid):
            pass
        with self._keep:
            self._gone = True

    @contextmanager
    def kept(self) -> Iterator[bool]:
        """Let the process not go on meanwhile, even if it is to end; yield whether it is held."""
        with self._keep:
            yield not self._gone

    def let_go(self) -> None:
        """Let the process go on; once this returns it can be seized again."""
        self._over.set()
        self.join()
        # Python's thread has ended, the kernel's is about to.
        while os.path.exists(f"/proc/self/task/{self.native_id}"):
            time.sleep(_POLL / 5)

    def _hold(self) -> None:
        """Seize threads until two looks have shown none that is new.

        A thread that began while a look went on may not be in it. When all that were seen have
        stopped, only such a one can still begin others, and the next look shows them.
        """
        deadline = time.monotonic() + self._timeout
        seized: set[int] = set()
        looks = 0
        while looks < 2:
            new = _threads(self._pid) - seized
            for thread in new:
                _seize(self._pid, thread)
            while not all(_state(self._pid, thread) in _STOPPED for thread in new):
                if time.monotonic() > deadline:
                    raise RefusedError("guest.not-stopped", "QEMU does not stop.")
                time.sleep(_POLL)
            seized |= new
            looks = 0 if new else looks + 1


def _seize(pid: int, thread: int) -> None:
    """Seize a thread of the process, and have it stop; one that has ended is passed over."""
    try:
        _ptrace(_SEIZE, thread)
        _ptrace(_INTERRUPT, thread)
    except ProcessLookupError:
        return
    except OSError as error:
        if _state(pid, thread) in _ENDED:  # ptrace_attach() gives EPERM for them
            return
        require_untraced(pid, thread)
        raise _not_permitted(error) from error


def _not_permitted(error: OSError) -> HostError:
    scope = read_text("/proc/sys/kernel/yama/ptrace_scope", "").strip()
    return HostError(
        "host.no-ptrace",
        f"This process may not hold QEMU still: ptrace: {error.strerror}.",
        hint=(
            "kernel.yama.ptrace_scope is 3, which forbids it until the next boot."
            if scope == "3"
            else (
                "It needs root with CAP_SYS_PTRACE; a sandbox, or SELinux's deny_ptrace, may "
                "forbid it."
            )
        ),
        facts={"errno": errno.errorcode.get(error.errno or 0, ""), "ptrace_scope": scope},
    )


def _ptrace(request: int, thread: int) -> None:
    if _libc.ptrace(request, thread, None, None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _threads(pid: int) -> set[int]:
    """Return the threads of a process.

    Raises ProcessLookupError for a process that has ended.
    """
    try:
        return {int(thread) for thread in os.listdir(f"/proc/{pid}/task")}
    except FileNotFoundError as error:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error


def _is_to_end(pid: int) -> bool:
    """Tell whether the process has ended, or was asked to by SIGTERM.

    libvirt waits for either with the domain locked, and so does whoever asks it for the domain's
    state. A process that was killed is there as long as it is traced; one that is held does not
    hear.
    """
    status = _status(pid, pid)
    pending = int(status.get("ShdPnd", "0"), 16)
    return status.get("State", "X")[0] in _ENDED or bool(pending & 1 << (signal.SIGTERM - 1))


def _state(pid: int, thread: int) -> str:
    """Return a thread's letter of proc_pid_stat(5); that of a thread which is gone is X."""
    try:
        return read_text(f"/proc/{pid}/task/{thread}/stat").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def _tracer(pid: int, thread: int) -> int:
    """Return the process that traces a thread, or 0 for nobody."""
    return int(_status(pid, thread).get("TracerPid", "0"))


def _status(pid: int, thread: int) -> dict[str, str]:
    """Return proc_pid_status(5) of a thread, which is empty for one that is gone."""
    try:
        lines = read_text(f"/proc/{pid}/task/{thread}/status").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
