"""Installing and removing libvirt's hook on this host, and looking at it.

Whether the running daemon calls the hook is found out here, too.
"""

import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import ramshelf
from ramshelf.core.catalog import RULES
from ramshelf.core.errors import HostError, RamshelfError, ToolError
from ramshelf.core.hook.call import HOST_PROBE, PROBE, probe_xml
from ramshelf.core.hook.copy import DIRECTORY as COPIES
from ramshelf.core.hook.copy import PYTHON, Copy, make_copy
from ramshelf.core.hook.plan import (
    MADE,
    Installation,
    Wanted,
    denied,
    is_current,
    plan_install,
    plan_remove,
    reload,
)
from ramshelf.core.hook.script import HOOK_DIR, SCRIPT, HookScript
from ramshelf.core.hook.status import HookStatus
from ramshelf.core.host import Unknown
from ramshelf.core.migration.answer import HostAnswer, read_answer
from ramshelf.core.migration.view import differences, other_view
from ramshelf.core.plan import Action
from ramshelf.core.record import dataclass, replace
from ramshelf.core.requirements import Version, version
from ramshelf.core.setting import DEFAULT_FILES
from ramshelf.node.apply import apply
from ramshelf.node.hook.bypass import bypass
from ramshelf.node.leftovers import leave_nothing
from ramshelf.node.store import earlier
from ramshelf.system import ledger
from ramshelf.system.earlier import hook_is_earlier
from ramshelf.system.filesystem import RUN_DIR, read_text
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.locks import store_lock
from ramshelf.system.processes import libvirt_daemons
from ramshelf.system.run import run
from ramshelf.system.textfiles import write_atomically

_SEEN = f"{RUN_DIR}/hook-seen"
"""The daemons that were once seen to call the hook, one "PID START" a line.

They do so as long as they live.
"""

_CONFIGURATION = "/etc/libvirt"
_PATIENCE = 15.0
"""Seconds for a daemon to act upon SIGHUP.

It does so in a thread of its own, and drops a SIGHUP that comes while it starts or still reloads
(daemonReloadHandler): so it is asked again.
"""

_RELOADS = 3
"""How often it is asked at least, however long it takes to tell whether it calls the hook."""

_LOCK = f"{RUN_DIR}/hook.lock"
_LOCK_TIMEOUT = 30
"""Seconds to wait for the lock: one installation is made or removed at a time."""

_LAYERS = ("core", "system", "hook")
_COPY = re.compile(r"[0-9a-f]{16}")
_VERSIONED = re.compile(r"python(\d+)\.(\d+)")
_QEMU_LOGS = Path("/var/log/libvirt/qemu")


@dataclass(frozen=True, kw_only=True)
class HookOutcome:
    """What was done (or would be), and whether the running daemon calls the hook.

    ``seen`` is None where that is not known, as where no daemon answers.
    """

    actions: tuple[Action, ...]
    seen: bool | None


def wanted_hook(config_files: tuple[str, ...] = (), directories: tuple[str, ...] = ()) -> Wanted:
    """Return what this installation would install, for the configuration files that were named.

    Where none were named it is for the default ones.
    """
    sources = (*config_files, *directories) or DEFAULT_FILES
    source = os.path.dirname(os.path.dirname(os.path.abspath(ramshelf.__file__)))
    copy = make_copy(source, dict(_modules(source)), sys.executable)
    script = HookScript(
        python=PYTHON, main=copy.main, config_files=tuple(os.path.abspath(path) for path in sources)
    )
    return Wanted(script=script, copy=copy)


def _modules(source: str) -> Iterator[tuple[str, str]]:
    """Yield the path and text of each of ramshelf's modules that the hook may need."""
    package = os.path.join(source, "ramshelf")
    for directory in ("", *(name for name in sorted(os.listdir(package)) if name in _LAYERS)):
        for parent, _, names in os.walk(os.path.join(package, directory) if directory else package):
            for name in sorted(names):
                if name.endswith(".py"):
                    path = os.path.join(parent, name)
                    yield os.path.relpath(path, source), read_text(path)
            if not directory:
                break


def observe(wanted: Wanted, uri: str | None = None) -> Installation:
    """Return what is installed; with ``uri`` also libvirt's version, where it can be reached.

    Python's version is then what it says itself, and otherwise what its name says.
    """
    libvirt = None
    if uri is not None:
        with suppress(RamshelfError), Hypervisor(uri, read_only=True) as hypervisor:
            libvirt = hypervisor.libvirt_version()
    daemons = tuple(_daemons())  # afterwards: the connection may have started one
    python = _python() if uri is not None else _named_python() or _python()
    plain = os.path.isfile(SCRIPT) and not os.path.islink(SCRIPT)
    return Installation(
        text=read_text(SCRIPT) if plain else None,
        odd=os.path.lexists(SCRIPT) and not plain,
        executable=plain and os.access(SCRIPT, os.X_OK),
        copies=tuple(_copies()),
        intact=_intact(wanted.copy, python),
        missing=tuple(path for path in MADE if not os.path.isdir(path)),
        libvirt=libvirt,
        python=python,
        daemons=daemons,
        seen=_known_to_be_seen(daemons) if plain else None,
    )


def _copies() -> Iterator[str]:
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(COPIES)):
            if _COPY.fullmatch(name):
                yield f"{COPIES}/{name}"


def _intact(copy: Copy, python: Version | None) -> bool:
    """Tell whether the copy is whole.

    It is where exactly these files are there, compiled for this Python, and only root can write
    them.
    """
    found = set()
    compiled = os.path.relpath(copy.compiled(python), copy.path) if python else ""
    for parent, directories, names in os.walk(copy.path):
        directories[:] = [name for name in directories if name != "__pycache__"]
        status = os.lstat(parent)
        if status.st_uid != 0 or status.st_mode & 0o022:
            return False
        for name in names:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            relative = os.path.relpath(path, copy.path)
            if (
                status.st_uid != 0
                or stat.S_IFMT(status.st_mode) != stat.S_IFREG
                or status.st_mode & 0o022
                or not (
                    _is_whole(path)
                    if relative == compiled
                    else copy.files.get(relative) == read_text(path)
                )
            ):
                return False
            found.add(relative)
    return found == {*copy.files, compiled}


def _is_whole(path: str) -> bool:
    with open(path, "rb") as file:
        return Copy.is_whole(file.read())


def _named_python() -> Version | None:
    """Return the version that is part of the name of the distribution's Python, if one is."""
    named = _VERSIONED.fullmatch(os.path.basename(os.path.realpath(PYTHON)))
    return (int(named[1]), int(named[2]), 0) if named and os.path.exists(PYTHON) else None


def _python() -> Version | None:
    """Return the version of the distribution's Python; None where there is none that runs."""
    program = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        return version(run((PYTHON, "-IS", "-c", program)).stdout)
    except ToolError:
        return None


def install(
    uri: str,
    wanted: Wanted,
    *,
    dry_run: bool,
    after_step: Callable[[int], None] = lambda _number: None,
) -> HookOutcome:
    """Put the hook there and make the running daemon call it.

    ``after_step`` is for tests that stop there. Raises HostError ``hook.not-called`` where the
    daemon does not call it; ``hook.broken``, ``hook.denied`` or ``hook.no-python`` where the hook
    does not work; ``hook.other-view`` where it sees another store or configuration; and what
    ``plan_install`` raises.
    """
    if dry_run:
        installed = observe(wanted, uri)
        return HookOutcome(actions=plan_install(installed, wanted), seen=installed.seen)
    _require_root()
    with store_lock(_LOCK, timeout=_LOCK_TIMEOUT):
        before = observe(wanted, uri)
        actions = plan_install(before, wanted)
        replaces_earlier = hook_is_earlier()
        if actions and replaces_earlier:
            earlier.keep()
        apply(actions, noun="hook", after_step=after_step)
    if actions and (replaces_earlier or before.text is None):
        _forget_notes()
    earlier.settle_by(uri)
    trial = _call_here(HOST_PROBE)
    problem = trial.problem
    if problem:
        raise HostError(
            "hook.broken",
            f"The installed hook does not work: {problem}.",
            hint=f"{PYTHON} runs it from {wanted.copy.path}.",
            facts={"path": SCRIPT, "said": problem},
        )
    deadline, times = time.monotonic() + _PATIENCE, 0
    while (probed := probe(uri)).seen is False:
        if times >= _RELOADS and time.monotonic() >= deadline:
            break
        apply(reload(observe(wanted)), noun="hook")
        times += 1
        time.sleep(0.3)
    if probed.status is not None:
        raise denied(probed.status)
    if probed.seen is False:
        raise HostError(
            "hook.not-called",
            f"The hook is installed, but the running libvirt does not call {SCRIPT}.",
            hint=(
                "libvirt may run in a container with an /etc/libvirt of its own; install the hook "
                "in there. Else restart it."
            ),
            facts={"path": SCRIPT},
        )
    view = _view(probed, trial.said)
    if view:
        code = "hook.other-view"
        facts = {"path": SCRIPT, "view": list(view)}
        raise HostError(code, other_view(view), hint=RULES[code].hint, facts=facts)
    return HookOutcome(actions=actions, seen=probed.seen)


def remove(*, dry_run: bool) -> HookOutcome:
    """Undo what ``install`` did, and make the running daemon look again."""
    if dry_run:
        return HookOutcome(actions=plan_remove(observe(wanted_hook())), seen=None)
    _require_root()
    with store_lock(_LOCK, timeout=_LOCK_TIMEOUT):
        actions = plan_remove(observe(wanted_hook()))
        apply(actions, noun="hook")
        _forget_notes()
        earlier.forget_promises()
        Path(_SEEN).unlink(missing_ok=True)
    leave_nothing()
    return HookOutcome(actions=actions, seen=None)


def _forget_notes() -> None:
    """Have what running guests were promised noted anew.

    Another hook, or none, has not kept the notes.
    """
    with store_lock(timeout=_LOCK_TIMEOUT):
        ledger.forget()


def status(wanted: Wanted) -> HookStatus:
    """Return the hook's status as it is, changing nothing and asking nobody."""
    installed = observe(wanted)
    return HookStatus(
        installed=installed.text is not None and not installed.foreign,
        foreign=installed.foreign,
        current=is_current(installed, wanted),
        executable=installed.executable,
        seen=installed.seen,
        bypass=bypass(),
    )


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What asking the running daemon has shown.

    ``seen`` tells whether the running daemon calls the hook, None where libvirt does not answer.
    ``status`` is how the call ended where the hook did not answer, as of a program that could not
    be run. ``answer`` is what the host is to the hook, None where it did not say.
    """

    seen: bool | None
    status: int | None = None
    answer: HostAnswer | None = None


def tried(
    found: HookStatus,
    uri: str,
    *,
    again: bool = False,
    patience: float | None = None,
) -> HookStatus:
    """Return the status with what trying the hook out tells: whether it works, and is called.

    It is tried out where this user may do so. libvirt at ``uri``, if any, is asked where it is not
    known whether it calls the hook, or where ``again`` is set, but not for a hook that does not
    end: libvirt would wait for it as well. ``patience`` is how many seconds each has to answer.
    What libvirt's hook then says of the host is compared with what is found here: both look at the
    store, which must answer.
    """
    if not (found.installed and found.executable and may_probe()):
        return found
    asked = bool(uri) and (again or not found.seen)
    compare = asked and found.current
    trial = _call_here(HOST_PROBE if compare else PROBE, patience or _TRIAL_TIMEOUT)
    found = replace(found, problem=trial.problem)
    if not (asked and trial.ends):
        return found
    probed = probe(uri, patience)
    denial = denied(probed.status).sentence.rstrip(".") if probed.status is not None else ""
    view = _view(probed, trial.said) if compare else ()
    return replace(found, seen=probed.seen, problem=found.problem or denial, view=view)


def _view(probed: Probed, said: str) -> tuple[str, ...]:
    """Return what libvirt's hook sees otherwise than the script that has ``said`` this here."""
    here = read_answer(said) if probed.answer else None
    return differences(probed.answer, here) if probed.answer and here else ()


_ENDED = re.compile(rf"the hook is broken \(status (\d+)\)|cannot execute binary {SCRIPT}")
"""What libvirt passes on of the hook's script, or says where it could not even run it (virExec)."""

_CANNOT_EXECUTE = 126


def probe(uri: str, patience: float | None = None) -> Probed:
    """Ask the running daemon for a guest that the hook refuses by its name."""
    name = f"{HOST_PROBE}{os.urandom(4).hex()}"
    try:
        with Hypervisor(uri, patience=patience) as hypervisor:
            said = hypervisor.attempt(probe_xml(name))
    except RamshelfError:
        return Probed(seen=None)
    finally:
        with suppress(OSError):
            (_QEMU_LOGS / f"{name}.log").unlink()
    if f"the hook answers {name}" in said:
        _remember("".join(f"{pid} {start}\n" for pid, start in _daemons()))
        return Probed(seen=True, answer=read_answer(said))
    ended = _ENDED.search(said)
    if ended is not None:
        return Probed(seen=True, status=int(ended[1] or _CANNOT_EXECUTE))
    return Probed(seen=False)


_TRIAL_TIMEOUT = 60.0
"""Seconds for the script to end where nobody is in a hurry."""


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """What calling the script has shown.

    ``problem`` is why it does not work, '' where it does; ``said`` is what it wrote to standard
    error; ``ends`` tells whether it ended in time.
    """

    problem: str
    said: str = ""
    ends: bool = True


def _call_here(probe: str, timeout: float = _TRIAL_TIMEOUT) -> _Trial:
    """Call the script as libvirt would, with this probe's name, for ``timeout`` seconds."""
    name = f"{probe}direct"
    try:
        ended = run((SCRIPT, name, "prepare", "begin", "-"), ok=range(256), timeout=timeout)
    except ToolError as error:
        return _Trial(problem=error.sentence.rstrip("."), ends=error.code != "tool.timeout")
    if f"the hook answers {name}" in ended.stderr:
        return _Trial(problem="", said=ended.stderr)
    problem = ended.stderr.strip().replace("\n", "; ").rstrip(".")
    return _Trial(problem=problem or f"status {ended.status}", said=ended.stderr)


def _remember(text: str) -> None:
    """Remember the daemons that call the hook."""
    os.makedirs(RUN_DIR, mode=0o755, exist_ok=True)
    write_atomically(_SEEN, text)


def may_probe() -> bool:
    """Tell whether this user can ask libvirt for a guest, and remember the answer."""
    return os.geteuid() == 0


def _require_root() -> None:
    if os.geteuid() != 0:
        raise HostError(
            "hook.needs-root", f"Only root can write {SCRIPT}.", hint="Run it with sudo."
        )


def _known_to_be_seen(daemons: tuple[tuple[int, int], ...]) -> bool | None:
    """Tell whether all daemons are known to call the script; None where that is not known.

    A daemon is known to do so where it was once seen to, or started after the script was there.
    """
    if not daemons:
        return None
    lines = set(read_text(_SEEN, "").splitlines())
    changed = os.stat(SCRIPT).st_ctime
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    ticks = os.sysconf("SC_CLK_TCK")
    known = all(
        f"{pid} {start}" in lines or boot + start / ticks > changed for pid, start in daemons
    )
    return True if known else None


def _daemons() -> Iterator[tuple[int, int]]:
    """Yield the libvirt daemons that have these hooks: pid, and start in ticks since boot."""
    found = libvirt_daemons()
    if isinstance(found, Unknown):
        return
    pids = {daemon.pid for daemon in found}
    for daemon in found:
        # A child that has not yet become another program is still a copy of its parent.
        if daemon.parent not in pids:
            root = f"/proc/{daemon.pid}/root"
            if any(_same(f"{root}{path}", path) for path in (_CONFIGURATION, HOOK_DIR)):
                yield daemon.pid, daemon.started


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # not there, or the process has ended meanwhile
        return False
