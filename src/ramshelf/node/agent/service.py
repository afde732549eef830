"""Installing and removing the agent's service on this host."""

import os
import sys
from contextlib import suppress

from ramshelf.core.agent.service import Service, plan_install, plan_remove
from ramshelf.core.agent.unit import NAMES, unit_path, units
from ramshelf.core.errors import ConfigError, HostError
from ramshelf.core.plan import Action
from ramshelf.node.apply import apply
from ramshelf.system.backingstore import observe_store
from ramshelf.system.filesystem import read_text, resolved

_DEFAULT_WRITABLE = "/var/lib/libvirt/qemu"
"""The directory above libvirt's own memory backing directory.

What is mounted there later is writable as well.
"""


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
    return _carried_out(plan_remove(_observe()), dry_run=dry_run)


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
    return Service(texts=texts, systemd=os.path.isdir("/run/systemd/system"))


def _writable() -> tuple[str, ...]:
    paths = [_DEFAULT_WRITABLE]
    with suppress(ConfigError, OSError):  # the doctor tells of it
        paths.append(resolved(observe_store().directory.configured))
    return tuple(
        path
        for path in dict.fromkeys(paths)
        if path == _DEFAULT_WRITABLE or not path.startswith(f"{_DEFAULT_WRITABLE}/")
    )
