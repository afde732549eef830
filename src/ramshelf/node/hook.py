"""libvirt's hook on this host: put there, taken away, looked at; and whether the running daemon calls it."""

import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import ramshelf
from ramshelf.core.config import DEFAULT_FILES, Config
from ramshelf.core.errors import HostError, RamshelfError
from ramshelf.core.hookcall import PROBE, probe_xml
from ramshelf.core.hookscript import (
    HOOK_DIR,
    SCRIPT,
    SCRIPT_DIR,
    HookScript,
    Installation,
    is_current,
    plan_install,
    plan_remove,
    reload,
)
from ramshelf.core.host import HookStatus, Unknown
from ramshelf.core.plan import Action, MakeDirectory, RemoveDirectory, RemoveFile, Run, WriteFile
from ramshelf.system.filesystem import RUN_DIR, read_text, write_atomically
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.processes import libvirt_daemons
from ramshelf.system.run import run

_SEEN = f"{RUN_DIR}/hook-seen"
"""The daemons, one "PID START" a line, that were once seen to call the hook: they do so while they live."""

_CONFIGURATION = "/etc/libvirt"
_PATIENCE = 15.0
"""Seconds for a daemon to act upon SIGHUP. It does so in a thread of its own, and drops a SIGHUP that comes
while it starts or still reloads (daemonReloadHandler): so it is asked again."""

_QEMU_LOGS = Path("/var/log/libvirt/qemu")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was done (or would be), and whether the running daemon calls the hook; None: no daemon answers."""

    actions: tuple[Action, ...]
    seen: bool | None


def wanted_script(
    config: Config, files: tuple[str, ...] = (), directories: tuple[str, ...] = ()
) -> HookScript:
    """The script for this installation of ramshelf and the configuration files that were named, if any."""
    sources = (*files, *directories) or DEFAULT_FILES
    return HookScript(
        python=sys.executable,
        main=os.path.join(os.path.dirname(os.path.abspath(ramshelf.__file__)), "hook", "__main__.py"),
        config_files=tuple(os.path.abspath(path) for path in sources),
        strict=config.strict,
    )


def observe(uri: str | None = None) -> Installation:
    """What is installed; with ``uri`` libvirt's version, where it can be reached."""
    daemons = tuple(_daemons())
    version = None
    if uri is not None:
        with suppress(RamshelfError), Hypervisor(uri, read_only=True) as hypervisor:
            version = hypervisor.libvirt_version()
    text = read_text(SCRIPT, "") or None
    return Installation(
        text=text,
        executable=os.path.isfile(SCRIPT) and os.access(SCRIPT, os.X_OK),
        missing=tuple(path for path in (HOOK_DIR, SCRIPT_DIR) if not os.path.isdir(path)),
        libvirt=version,
        daemons=tuple(pid for pid, _ in daemons),
        seen=_known_to_be_seen(daemons) if text is not None else None,
    )


def install(uri: str, script: HookScript, *, dry_run: bool) -> Outcome:
    """Put the script there and make the running daemon call it.

    Raises HostError ``hook.not-called`` where it does not, and what ``plan_install`` raises.
    """
    installed = observe(uri)
    actions = plan_install(installed, script)
    if dry_run:
        return Outcome(actions=actions, seen=installed.seen)
    _require_root()
    _apply(actions)
    _try_out()
    deadline = time.monotonic() + _PATIENCE
    while (seen := probe(uri)) is False and time.monotonic() < deadline:
        _apply(reload(observe()))
        time.sleep(0.3)
    if seen is False:
        raise HostError(
            "hook.not-called",
            f"The hook is installed, but the running libvirt does not call {SCRIPT}.",
            hint="libvirt may run in a container with an /etc/libvirt of its own; install the hook in there. "
            "Else restart it.",
            facts={"path": SCRIPT},
        )
    return Outcome(actions=actions, seen=seen)


def remove(*, dry_run: bool) -> Outcome:
    """Undo what ``install`` did, and make the running daemon look again."""
    installed = observe()
    actions = plan_remove(installed)
    if not dry_run:
        _require_root()
        _apply(actions)
        Path(_SEEN).unlink(missing_ok=True)
    return Outcome(actions=actions, seen=None)


def status(script: HookScript, installed: Installation | None = None) -> HookStatus:
    """The hook as it is, changing nothing and asking nobody."""
    installed = installed or observe()
    return HookStatus(
        installed=installed.text is not None and not installed.foreign,
        current=is_current(installed, script),
        executable=installed.executable,
        seen=installed.seen,
        strict=script.strict,
    )


def probe(uri: str) -> bool | None:
    """Whether the running daemon calls the hook: it is asked for a guest that the hook refuses by its name.

    None where libvirt does not answer.
    """
    name = f"{PROBE}{secrets.token_hex(4)}"
    try:
        with Hypervisor(uri) as hypervisor:
            answer = hypervisor.attempt(probe_xml(name))
    except RamshelfError:
        return None
    finally:
        with suppress(OSError):
            (_QEMU_LOGS / f"{name}.log").unlink()
    called = f"the hook answers {name}" in answer
    if called:
        _remember("".join(f"{pid} {start}\n" for pid, start in _daemons()))
    return called


def _try_out() -> None:
    """Call the script as libvirt would. Raises HostError ``hook.broken`` where it does not work here."""
    name = f"{PROBE}direct"
    ended = run((SCRIPT, name, "prepare", "begin", "-"), ok=range(256))
    if f"the hook answers {name}" not in ended.stderr:
        raise HostError(
            "hook.broken",
            f"The installed hook does not work: {ended.stderr.strip() or f'status {ended.status}'}.",
            hint="It needs the Python and the files that ramshelf was installed with, readable for root.",
            facts={"path": SCRIPT, "status": ended.status, "stderr": ended.stderr},
        )


def _remember(text: str) -> None:
    """Remember the daemons that call the hook."""
    os.makedirs(RUN_DIR, mode=0o755, exist_ok=True)
    write_atomically(_SEEN, text)


def _apply(actions: tuple[Action, ...]) -> None:
    for action in actions:
        match action:
            case MakeDirectory():
                os.makedirs(action.path, mode=action.mode, exist_ok=True)
            case WriteFile():
                # Made beside the directory: libvirt runs every executable in it, whatever its name.
                beside = Path(HOOK_DIR, ".ramshelf")
                write_atomically(beside, action.text, mode=0o755)
                beside.replace(action.path)
            case RemoveFile():
                Path(action.path).unlink(missing_ok=True)
            case RemoveDirectory():
                with suppress(OSError):
                    os.rmdir(action.path)
            case Run():
                run(action.argv)
            case _:
                raise AssertionError(action)


def may_probe() -> bool:
    """Whether this user can ask libvirt for a guest, and remember the answer."""
    return os.geteuid() == 0


def _require_root() -> None:
    if os.geteuid() != 0:
        raise HostError("hook.needs-root", f"Only root can write {SCRIPT}.", hint="Run it with sudo.")


def _known_to_be_seen(daemons: tuple[tuple[int, int], ...]) -> bool | None:
    """Whether all daemons are known to call the script: once seen to, or started after it was there."""
    if not daemons:
        return None
    lines = set(read_text(_SEEN, "").splitlines())
    changed = os.stat(SCRIPT).st_ctime
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    ticks = os.sysconf("SC_CLK_TCK")
    known = all(f"{pid} {start}" in lines or boot + start / ticks > changed for pid, start in daemons)
    return True if known else None


def _daemons() -> Iterator[tuple[int, int]]:
    """The libvirt daemons that see this /etc/libvirt: process id, and start in ticks since boot."""
    found = libvirt_daemons()
    if isinstance(found, Unknown):
        return
    pids = {daemon.pid for daemon in found}
    for daemon in found:
        # A child that has not yet become another program is still a copy of its parent.
        if daemon.parent not in pids:
            with suppress(OSError):  # it has ended meanwhile
                if os.path.samefile(f"/proc/{daemon.pid}/root{_CONFIGURATION}", _CONFIGURATION):
                    yield daemon.pid, daemon.started
