"""How libvirt's hook is installed and removed.

The hook is the script and the copy of the modules that it runs.
"""

import re

from ramshelf.core.errors import HostError, RefusedError
from ramshelf.core.hook.copy import DIRECTORY, FLOOR, PYTHON, Copy
from ramshelf.core.hook.script import (
    HOOK_DIR,
    SCRIPT,
    SCRIPT_DIR,
    HookScript,
    made_directories,
    render,
)
from ramshelf.core.plan import (
    Action,
    CopyFiles,
    HangUp,
    MakeDirectory,
    RemoveDirectory,
    RemoveFile,
    RemoveTree,
    Run,
    WriteFile,
)
from ramshelf.core.record import dataclass, replace
from ramshelf.core.requirements import Version, dotted

DIRECTORY_SINCE = (6, 5, 0)
"""The version of libvirt that is the first to know qemu.d."""

MADE = (HOOK_DIR, SCRIPT_DIR, "/usr/local/lib/ramshelf", DIRECTORY)
"""The directories that are made where they are missing, outer ones first."""

_OWN = MADE[2:]
"""The directories that are ramshelf's alone, whoever made them.

They are removed in any case: a plan that was cut off cannot tell any more which it made.
"""

_COPY = re.compile(rf"{DIRECTORY}/[0-9a-f]{{16}}")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What this installation of ramshelf would install."""

    script: HookScript
    copy: Copy


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What is in libvirt's hook directory, and who reads it.

    ``text`` is the script's, None where there is nothing. ``odd``: what is there is no plain file.
    ``copies`` are the paths of all copies of modules. ``intact``: the one that is wanted is there
    as it should be. ``missing`` are those of MADE that are not there. ``libvirt`` is None where its
    version is not known. ``python`` is the version of PYTHON, None where there is none. ``daemons``
    are the libvirt daemons that run, by process id and start in ticks since boot. ``seen`` says
    whether they call the script, None where that is not known.
    """

    text: str | None
    odd: bool = False
    executable: bool
    copies: tuple[str, ...] = ()
    intact: bool
    missing: tuple[str, ...]
    libvirt: Version | None
    python: Version | None
    daemons: tuple[tuple[int, int], ...]
    seen: bool | None

    @property
    def foreign(self) -> bool:
        """Whether something that is not ramshelf's has the script's place."""
        return self.odd or (self.text is not None and made_directories(self.text) is None)


def is_current(installed: Installation, wanted: Wanted) -> bool:
    """Tell whether all is as ``install`` would leave it."""
    return installed.intact and installed.text == _text(installed, wanted)


def plan_install(installed: Installation, wanted: Wanted) -> tuple[Action, ...]:
    """Return the actions that are missing until libvirt calls the script.

    The script is written after the copy: until then the former script runs the former copy. The
    former copy stays for calls that are under way, and is removed by the next plan. Raises
    HostError, RefusedError.
    """
    _require(installed)
    _refuse_foreign(installed)
    actions: list[Action] = [
        MakeDirectory(
            why="Make the directory that is needed for it", path=path, uid=0, gid=0, mode=0o755
        )
        for path in installed.missing
    ]
    if not installed.intact:
        actions += _copy(wanted.copy)
    text = _text(installed, wanted)
    if installed.text != text:
        actions.append(
            WriteFile(
                why=(
                    "Put the hook there, which reserves guests' memory on the store or refuses them"
                ),
                path=SCRIPT,
                text=text,
                before=installed.text,
                mode=0o755,
                # libvirt runs every executable of the hook's own directory, whatever its name.
                beside=HOOK_DIR,
            )
        )
    elif not installed.executable:
        actions.append(
            Run(
                why="Make it executable: libvirt passes over what is not",
                argv=("chmod", "0755", SCRIPT),
            )
        )
    in_use = {wanted.copy.path, *_COPY.findall(installed.text or "")}
    actions += [
        RemoveTree(why="Remove a copy that no hook uses any more", path=path)
        for path in installed.copies
        if path not in in_use
    ]
    if actions or not installed.seen:
        actions += reload(installed)
    return tuple(actions)


def _require(installed: Installation) -> None:
    if installed.libvirt is not None and installed.libvirt < DIRECTORY_SINCE:
        raise HostError(
            "hook.no-directory",
            f"libvirt {dotted(installed.libvirt)} does not look into {SCRIPT_DIR}.",
            hint=f"Upgrade libvirt to {dotted(DIRECTORY_SINCE)} or later.",
        )
    if installed.python is None or installed.python < FLOOR:
        is_what = f"is Python {dotted(installed.python)}" if installed.python else "is not there"
        raise HostError(
            "hook.no-python",
            f"{PYTHON} {is_what}, and the hook needs Python {dotted(FLOOR)} or later there.",
            hint=(
                "Install the distribution's own python3: libvirt's security profile lets its hooks "
                "run no other, whatever Python ramshelf itself runs on."
            ),
            facts={"path": PYTHON},
        )


def _copy(copy: Copy) -> tuple[Action, ...]:
    return (
        CopyFiles(
            why="Copy what the hook needs, so that it outlives this installation of ramshelf",
            source=copy.source,
            path=copy.path,
            files=copy.files,
        ),
        Run(
            why="Compile it, which spares each call some milliseconds",
            argv=(PYTHON, "-IS", copy.compiling),
        ),
    )


def plan_remove(installed: Installation) -> tuple[Action, ...]:
    """Undo exactly what ``install`` did.

    Raises RefusedError.
    """
    if installed.text is None and not installed.odd and not installed.copies:
        return ()
    _refuse_foreign(installed)
    script: tuple[Action, ...] = ()
    if installed.text is not None:
        why = "Remove the hook: guests are no longer reserved"
        script = (RemoveFile(why=why, path=SCRIPT, before=installed.text),)
    return (
        *script,
        *(RemoveTree(why="Remove the copy that it ran", path=path) for path in installed.copies),
        *(
            RemoveDirectory(why="Remove the directory that was made for it", path=path)
            for path in sorted(
                {*(made_directories(installed.text or "") or ()), *_OWN}, reverse=True
            )
        ),
        *reload(installed),
    )


def _text(installed: Installation, wanted: Wanted) -> str:
    made = made_directories(installed.text) if installed.text is not None else installed.missing
    return render(replace(wanted.script, made=made or ()))


def reload(installed: Installation) -> tuple[HangUp, ...]:
    """Have the running daemons look for hooks."""
    return tuple(
        HangUp(why="Have libvirt look for hooks", pid=pid, started=started)
        for pid, started in installed.daemons
    )


def _refuse_foreign(installed: Installation) -> None:
    if installed.foreign:
        raise RefusedError(
            "hook.foreign",
            f"{SCRIPT} was not made by ramshelf.",
            hint="Rename it: libvirt calls every executable in that directory, whatever its name.",
            facts={"path": SCRIPT},
        )


def denied(status: int) -> HostError:
    """Return the error for a call of the hook that fails for libvirt and succeeds for root.

    ``status`` is the exit status of libvirt's own call.
    """
    facts = {"path": SCRIPT, "status": status}
    if status == 126:
        return HostError(
            "hook.denied",
            f"libvirt calls the hook, but may not execute it or {PYTHON} (status 126).",
            hint=(
                "Its AppArmor or SELinux profile forbids that: the kernel's messages name what was "
                "denied ('journalctl -k'), /etc/apparmor.d/local/usr.sbin.libvirtd may allow it; "
                "for SELinux see the page on security in ramshelf's documentation. Until then "
                "libvirt starts no guest at all, or 'ramshelf hook remove' takes the hook away."
            ),
            facts=facts,
        )
    if status == 127:
        return HostError(
            "hook.no-python",
            f"libvirt calls the hook, and finds no {PYTHON} (status 127).",
            hint=(
                "libvirt sees other files than this command, as in a container: install ramshelf in"
                " there."
            ),
            facts=facts,
        )
    return HostError(
        "hook.broken",
        f"The hook does not work when libvirt calls it (status {status}).",
        hint=(
            "It works for root, so libvirt sees other files, as a container does that lacks "
            f"{DIRECTORY}; /run/ramshelf/hook.log may say more."
        ),
        facts=facts,
    )
