"""The script in libvirt's hook directory: small, so that it works where ramshelf does not.

It runs ramshelf's hook for the calls that matter and tells apart what was decided from what is broken.
"""

import re
import shlex
from dataclasses import dataclass

HOOK_DIR = "/etc/libvirt/hooks"
"""Built into libvirt (LIBVIRT_HOOK_DIR); its scripts run in the order qemu, then those of qemu.d by name."""

SCRIPT_DIR = f"{HOOK_DIR}/qemu.d"
SCRIPT = f"{SCRIPT_DIR}/ramshelf"

DIRECTORY_SINCE = (6, 5, 0)
"""libvirt: before this, it knows no qemu.d."""

_MADE = re.compile(r"^# made-directories:(?P<paths>.*)$", re.MULTILINE)

_TEMPLATE = r"""#!/bin/sh
# ramshelf: reserves a guest's memory on the store before it starts, or refuses it.
# Made by 'ramshelf hook install', which also updates it; 'ramshelf hook remove' removes it.
# made-directories:{made}
case $2-$3 in
start-begin | started-begin) ;;
prepare-begin) case $1 in ramshelf-probe-*) ;; *) exit 0 ;; esac ;;
*) exit 0 ;;
esac
{command} -- "$@"
status=$?
case $status in
0) exit 0 ;;
10) exit 1 ;; # refused; the reason is on stderr
esac

# Killed in the middle, or broken: no Python, no ramshelf, an error of its own. A guest that runs is let run.
verdict={verdict}
if [ $status -ge 128 ]; then verdict=1; fi
if [ "$2" = started ]; then verdict=0; fi
if [ $verdict = 0 ]; then outcome="passed by"; else outcome="refused at"; fi
message="the hook is broken (status $status): guest $1 $outcome $2 without a reservation"
name=$(printf %s "$1" | sed 's/[\\"]/\\&/g')
mkdir -p /run/ramshelf
printf '{{"time": "%s", "event": "broken", "guest": "%s", "operation": "%s", "status": %s, "vetoed": %s}}\n' \
  "$(date +%Y-%m-%dT%H:%M:%S%z)" "$name" "$2" $status $verdict >>/run/ramshelf/hook.log
logger -p daemon.err -t ramshelf "$message"
echo "ramshelf: $message; see 'ramshelf hook status'" >&2
exit $verdict
"""


@dataclass(frozen=True, kw_only=True)
class HookScript:
    """What the script depends on.

    ``python`` runs ``main`` (the package's hook/__main__.py) with ``config_files``: files, and directories
    whose ``*.conf`` count. ``strict``: a broken hook refuses guests. ``made`` are the directories that were
    made to put it in, for ``remove`` to take away again.
    """

    python: str
    main: str
    config_files: tuple[str, ...]
    strict: bool
    made: tuple[str, ...] = ()


def render(script: HookScript) -> str:
    """The script's text."""
    return _TEMPLATE.format(
        made="".join(f" {shlex.quote(path)}" for path in script.made),
        command=shlex.join((script.python, "-IS", script.main, *script.config_files)),
        verdict=1 if script.strict else 0,
    )


def made_directories(text: str) -> tuple[str, ...]:
    """The directories that an installed script says were made for it."""
    match = _MADE.search(text)
    return tuple(shlex.split(match["paths"])) if match else ()
