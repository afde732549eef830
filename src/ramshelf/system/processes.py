"""The processes of this host, as /proc shows them.

Any local user can give a process any name and any arguments. So a process counts as a service only
where its owner proves it: its real user is root, or the service's own user by the passwd file of
where it runs.
"""

import os
import pwd
import signal
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from ramshelf.core.host import LIBVIRT_DAEMONS, SERVICE_USERS, Process, Unknown
from ramshelf.core.record import replace
from ramshelf.core.text import printable
from ramshelf.core.units import KIB, MIB
from ramshelf.system.filesystem import read_text

_ARGUMENTS = 128 * KIB
"""The most bytes of a command line that are read.

A process may have megabytes, and there may be thousands of processes.
"""

_HIDDEN = Unknown("/proc hides the processes of other users (hidepid)")


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """A daemon of libvirt's.

    ``started`` is in ticks since boot; pid and ``started`` together are used only once.
    """

    pid: int
    name: str
    parent: int
    started: int


@dataclass(frozen=True)
class Stat:
    """The name in /proc/PID/stat (proc_pid_stat(5)) and the fields after it, from the state on."""

    name: str
    fields: tuple[str, ...]

    @property
    def parent(self) -> int:
        """The process's parent, field 4."""
        return int(self.fields[1])

    @property
    def started(self) -> int:
        """The start of the process in ticks since boot, field 22."""
        return int(self.fields[19])


def parse_stat(text: str) -> Stat:
    """Return the name and the fields of a /proc/PID/stat.

    The name stands in brackets and may contain any byte, brackets and line ends too.
    """
    left, _, right = text.rpartition(")")
    return Stat(left.partition("(")[2], tuple(right.split()))


def parse_status(text: str) -> Mapping[str, str]:
    """Return the values of a /proc/PID/status by their names.

    The process's own name is the first line. The kernel writes a line end in it as a backslash and
    an n. Were it not so, the lines that come after would count.
    """
    lines = (line.partition(":") for line in text.split("\n"))
    return {name: value.strip() for name, _, value in lines}


def parse_process(
    pid: int,
    stat: str,
    status: str,
    cmdline: str,
    oom_score_adj: str,
    *,
    boot_time: float,
    ticks: int,
) -> Process:
    """Return a process by the text of its files.

    ``boot_time`` is in seconds since the epoch, and ``ticks`` is how many there are in a second. A
    script is named after itself, not after its interpreter; what cannot be printed in a name is a
    ``?``. The start is rounded up to a tick, so that what was written before it never looks newer.
    """
    parsed, figures = parse_stat(stat), parse_status(status)
    argv = tuple(cmdline.rstrip("\0").split("\0")) if cmdline else ()
    process = Process(
        pid=pid,
        uid=_real_uid(figures),
        name=printable(_called(parsed.name, argv)),
        argv=argv,
        started=boot_time + (parsed.started + 1) / ticks,
        anonymous=_bytes(figures, "RssAnon"),
        swapped=_bytes(figures, "VmSwap"),
        page_tables=_bytes(figures, "VmPTE"),
        oom_score_adj=int(oom_score_adj),
    )
    return process if process.qemu else replace(process, argv=())


def _real_uid(figures: Mapping[str, str]) -> int:
    return int(figures["Uid"].split()[0])


def _bytes(figures: Mapping[str, str], name: str) -> int:
    return int(figures.get(name, "0 kB").split()[0]) * KIB


def _called(program: str, argv: tuple[str, ...]) -> str:
    """Return the program's name; a Python script's is the first argument that is no option."""
    if not program.startswith("python"):
        return program
    return next((os.path.basename(word) for word in argv[1:] if word[:1] not in {"", "-"}), program)


def processes() -> tuple[Process, ...] | Unknown:
    """Return all processes that have memory of their own (kernel threads have none)."""
    return _HIDDEN if _hides() else tuple(_all())


def libvirt_daemons() -> tuple[Daemon, ...] | Unknown:
    """Return every libvirtd and virtqemud that root runs, in containers too.

    A child of one counts too, as long as it is a copy of it.
    """
    return _HIDDEN if _hides() else tuple(_daemons())


def hang_up(pid: int, started: int) -> bool:
    """Send SIGHUP to a process, by its id and its start in ticks since boot; tell whether it was.

    It is not sent to another process that has the number by now, nor where it would end the
    process: a daemon that starts has no handler yet, nor has a child that is to become another
    program. Nor where /proc is of another pid namespace, whose numbers are others.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # What is read from here on is of the process that the descriptor stands for, or of none.
        number = parse_status(read_text(f"/proc/self/fdinfo/{descriptor}"))["Pid"]
        same = parse_stat(read_text(f"/proc/{pid}/stat")).started == started and number == str(pid)
        if same and _catches(pid, signal.SIGHUP):
            signal.pidfd_send_signal(descriptor, signal.SIGHUP)
            return True
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return False


def _catches(pid: int, number: signal.Signals) -> bool:
    """Tell whether a process has a handler for the signal (proc_pid_status(5), SigCgt)."""
    caught = parse_status(read_text(f"/proc/{pid}/status"))["SigCgt"]
    return bool(int(caught, 16) >> (number - 1) & 1)


def nova_compute() -> int | None:
    """Return the process of a nova-compute, however it was started, or None where there is none."""
    for pid in _pids():
        with suppress(OSError):
            name = read_text(f"/proc/{pid}/comm").rstrip("\n")
            if name.startswith(("nova-compute", "python")) and _service(pid) == "nova-compute":
                return pid
    return None


def _hides() -> bool:
    try:
        read_text("/proc/1/stat")
    except OSError:
        return True
    return False


def _pids() -> Iterator[int]:
    return map(int, filter(str.isdecimal, os.listdir("/proc")))


def _all() -> Iterator[Process]:
    boot_time = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    ticks = os.sysconf("SC_CLK_TCK")
    for pid in _pids():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            status = read_text(f"/proc/{pid}/status")
            if "\nVmRSS:" not in status:
                continue
            process = parse_process(
                pid,
                read_text(f"/proc/{pid}/stat"),
                status,
                _command_line(pid),
                read_text(f"/proc/{pid}/oom_score_adj"),
                boot_time=boot_time,
                ticks=ticks,
            )
            yield replace(process, service=_service(pid))


def _daemons() -> Iterator[Daemon]:
    for pid in _pids():
        with suppress(OSError):  # it has ended meanwhile
            seen = parse_stat(read_text(f"/proc/{pid}/stat"))
            if seen.name in LIBVIRT_DAEMONS and _service(pid) in LIBVIRT_DAEMONS:
                yield Daemon(pid=pid, name=seen.name, parent=seen.parent, started=seen.started)


def _command_line(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read(_ARGUMENTS).decode(errors="surrogateescape")


def _service(pid: int) -> str:
    """Return which of ``SERVICE_USERS`` the process is beyond doubt, or '' for any other.

    Where the executable may be read it counts, and not the name that the process has: a program
    that takes on root's user, such as sudo, keeps the name by which a user has called it.
    """
    try:
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)"))
    except PermissionError:
        program = parse_stat(read_text(f"/proc/{pid}/stat")).name
    if program not in SERVICE_USERS and not program.startswith("python"):
        return ""
    name = _called(program, tuple(_command_line(pid).split("\0")))
    user = SERVICE_USERS.get(name)
    uid = _real_uid(parse_status(read_text(f"/proc/{pid}/status")))
    if user is None or not (uid == 0 or (user != "root" and user in _users(pid, uid))):
        return ""
    return name


def _users(pid: int, uid: int) -> set[str]:
    """Return what this user is called here, and in the container where the process runs."""
    names = {_passwd_name(pid, uid)}
    with suppress(KeyError):
        names.add(pwd.getpwuid(uid).pw_name)
    return names


def _passwd_name(pid: int, uid: int) -> str:
    """Return the user's name by the passwd file where the process runs.

    Return '' where no such file can be trusted. Only root can put a process below another root
    directory, except in a user namespace of one's own; and the file must be root's.
    """
    with suppress(OSError):
        if not os.path.samefile(f"/proc/{pid}/ns/user", "/proc/self/ns/user"):
            return ""
        path = f"/proc/{pid}/root/etc/passwd"
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if status.st_uid == 0 and stat.S_ISREG(status.st_mode):
                for line in file.read(MIB).decode(errors="replace").split("\n"):
                    fields = line.split(":")
                    if fields[2:3] == [str(uid)]:
                        return fields[0]
    return ""
