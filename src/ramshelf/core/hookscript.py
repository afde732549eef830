"""The script in libvirt's hook directory: small, so that it works where ramshelf does not.

It runs ramshelf's hook for the calls that matter and tells apart what was decided from what is broken.
"""

import re
import shlex
from dataclasses import dataclass, replace

from ramshelf.core.errors import HostError, RefusedError
from ramshelf.core.plan import Action, MakeDirectory, RemoveDirectory, RemoveFile, Run, WriteFile
from ramshelf.core.requirements import Version, dotted

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
# There is nothing to be decided any more, and nobody waits for the figures.
release-end) {command} -- "$@" </dev/null >/dev/null 2>&1 & exit 0 ;;
# What the hook prints is what the guest will be: nothing, unless it has ended well.
migrate-begin)
  xml=$({command} -- "$@")
  case $? in
  0) printf %s "$xml" ;;
  10) exit 1 ;; # refused; the reason is on stderr
  esac
  exit 0 ;;
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


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What is in libvirt's hook directory, and who reads it.

    ``text`` is the script's, None where there is none; ``missing`` the directories above it that are not
    there, outermost first. ``libvirt`` None: not known. ``daemons`` are the process ids of the libvirt
    daemons that run; ``seen`` says whether they call the script, None where that is not known.
    """

    text: str | None
    executable: bool
    missing: tuple[str, ...]
    libvirt: Version | None
    daemons: tuple[int, ...]
    seen: bool | None

    @property
    def foreign(self) -> bool:
        """Whether somebody else's script has the place."""
        return self.text is not None and _MADE.search(self.text) is None


def is_current(installed: Installation, script: HookScript) -> bool:
    """Whether the script is what ``install`` would write."""
    return installed.text is not None and installed.text == _text(installed, script)


def plan_install(installed: Installation, script: HookScript) -> tuple[Action, ...]:
    """What is missing until libvirt calls the script. Raises HostError, RefusedError."""
    if installed.libvirt is not None and installed.libvirt < DIRECTORY_SINCE:
        raise HostError(
            "hook.no-directory",
            f"libvirt {dotted(installed.libvirt)} does not look into {SCRIPT_DIR}.",
            hint=f"Upgrade libvirt to {dotted(DIRECTORY_SINCE)} or later.",
        )
    _refuse_foreign(installed)
    actions: list[Action] = [
        MakeDirectory(
            why="Make the directory in which libvirt looks for hooks", path=path, uid=0, gid=0, mode=0o755
        )
        for path in installed.missing
    ]
    if not is_current(installed, script):
        why = "Put the hook there, which reserves guests' memory on the store or refuses them"
        actions.append(WriteFile(why=why, path=SCRIPT, text=_text(installed, script), before=installed.text))
    if not installed.executable:
        actions.append(
            Run(why="Make it executable: libvirt passes over what is not", argv=("chmod", "0755", SCRIPT))
        )
    if actions or not installed.seen:
        actions += reload(installed)
    return tuple(actions)


def plan_remove(installed: Installation) -> tuple[Action, ...]:
    """Undo exactly what ``install`` did. Raises RefusedError."""
    if installed.text is None:
        return ()
    _refuse_foreign(installed)
    return (
        RemoveFile(why="Remove the hook: guests are no longer reserved", path=SCRIPT),
        *(
            RemoveDirectory(why="Remove the directory that was made for it", path=path)
            for path in reversed(made_directories(installed.text))
        ),
        *reload(installed),
    )


def _text(installed: Installation, script: HookScript) -> str:
    made = made_directories(installed.text) if installed.text is not None else installed.missing
    return render(replace(script, made=made))


def reload(installed: Installation) -> tuple[Run, ...]:
    """Have the running daemons look for hooks; the shell's own kill, a minimal Debian has no other."""
    return tuple(
        Run(why="Have libvirt look for hooks", argv=("sh", "-c", f"kill -HUP {pid}"))
        for pid in installed.daemons
    )


def _refuse_foreign(installed: Installation) -> None:
    if installed.foreign:
        raise RefusedError(
            "hook.foreign",
            f"{SCRIPT} was not made by ramshelf.",
            hint="Rename it: libvirt calls every executable in that directory, whatever its name.",
            facts={"path": SCRIPT},
        )
