"""Installing and removing the agent's service on this host."""

import os
import sys
from contextlib import suppress

import ramshelf
from ramshelf.core.agent.service import Service, plan_install, plan_remove
from ramshelf.core.agent.unit import (
    AGENT,
    ENABLED,
    LIBVIRTS,
    LISTENER,
    NAMES,
    SHIPPED,
    unit_path,
    units,
)
from ramshelf.core.errors import ConfigError, HostError, ToolError
from ramshelf.core.findings import Finding, Severity
from ramshelf.core.plan import Action
from ramshelf.node.apply import apply
from ramshelf.node.leftovers import leave_nothing
from ramshelf.system.backingstore import observe_store
from ramshelf.system.filesystem import read_text, resolved
from ramshelf.system.run import run

_PRIVATE = ("/tmp", "/var/tmp")  # noqa: S108 - nothing is written there
"""The directories that the listener has for itself (PrivateTmp=)."""

_USER = 61184
"""The first user id that systemd gives to a service with DynamicUser=."""


def install(
    files: tuple[str, ...], directories: tuple[str, ...], connect: str | None, *, dry_run: bool
) -> tuple[Action, ...]:
    """Have systemd run the agent of this ramshelf, with the global options that were given."""
    options = [f"--config-file={os.path.abspath(path)}" for path in files]
    options += [f"--config-dir={os.path.abspath(path)}" for path in directories]
    if connect:
        options.append(f"--connect={connect}")
    wanted = units((sys.executable, "-I", "-m"), tuple(options), _writable())
    return _carried_out(plan_install(_observe(), wanted), dry_run=dry_run)


def remove(*, dry_run: bool) -> tuple[Action, ...]:
    """Undo what ``install`` did."""
    actions = _carried_out(plan_remove(_observe()), dry_run=dry_run)
    if not dry_run and os.geteuid() == 0:
        leave_nothing()
    return actions


def cannot_listen() -> tuple[Finding, ...]:
    """Return why the listener could not run from this installation; nothing where it can.

    Whether another user may read it only root can try out.
    """
    reason = _hidden() or (_refused() if os.geteuid() == 0 else "")
    if not reason:
        return ()
    return (
        Finding(
            code="metrics.no-listener",
            severity=Severity.WARNING,
            sentence=f"The metrics will not be served: {LISTENER} cannot run {sys.executable}: "
            f"{reason}.",
            hint=(
                "Install ramshelf where every user may read it, such as below /opt. The agent does "
                "everything else from here, too."
            ),
            facts={"path": sys.executable},
        ),
    )


def _hidden() -> str:
    paths = (sys.executable, sys.prefix, sys.base_prefix, ramshelf.__file__)
    real = {os.path.realpath(path) for path in paths} | {os.path.abspath(sys.executable)}
    for directory in _PRIVATE:
        if any(path.startswith(f"{directory}/") for path in real):
            return f"its {directory} is another one"
    return ""


def _refused() -> str:
    """Try it as a user that systemd might choose, with no right that it would not have."""
    user = ("setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", "--no-new-privs")
    bounds = ("--bounding-set=-all", "--inh-caps=-all")
    # setpriv itself has root's capabilities to the last; what the shell runs has none.
    line = 'exec "$0" -I -c "import ramshelf.agent.listener"'
    try:
        run((*user, *bounds, "/bin/sh", "-c", line, sys.executable))
    except ToolError as error:
        if error.code != "tool.failed":
            return ""
        said = str(error.facts.get("stderr", "")).strip().splitlines()
        return said[-1].rstrip(".") if said else error.sentence.rstrip(".")
    return ""


def _carried_out(actions: tuple[Action, ...], *, dry_run: bool) -> tuple[Action, ...]:
    if actions and not dry_run:
        if os.geteuid() != 0:
            raise HostError(
                "agent.needs-root", "Only root can change the service.", hint="Run it with sudo."
            )
        apply(actions, noun="agent")
    return actions


def _observe() -> Service:
    texts = {name: text for name in NAMES if (text := read_text(unit_path(name), ""))}
    shipped = {name: read_text(f"{SHIPPED}/{name}", "") for name in NAMES}
    return Service(
        texts=texts,
        shipped=shipped,
        enabled=os.path.lexists(ENABLED),
        runs=_runs(),
        systemd=os.path.isdir("/run/systemd/system"),
    )


def _runs() -> bool:
    try:
        run(("systemctl", "is-active", "--quiet", AGENT))
    except ToolError:  # it does not, or there is no systemd
        return False
    return True


def _writable() -> tuple[str, ...]:
    paths = [LIBVIRTS]  # what is mounted there later is writable as well
    with suppress(ConfigError, OSError):  # the doctor tells of it
        paths.append(resolved(observe_store().directory.configured))
    return tuple(
        path
        for path in dict.fromkeys(paths)
        if path == LIBVIRTS or not path.startswith(f"{LIBVIRTS}/")
    )
