"""The script in libvirt's hook directory, and the plans to put it there and take it away."""

import pytest

from ramshelf.core.errors import HostError, RefusedError
from ramshelf.core.hookscript import (
    HOOK_DIR,
    SCRIPT,
    SCRIPT_DIR,
    HookScript,
    Installation,
    is_current,
    made_directories,
    plan_install,
    plan_remove,
    render,
)
from ramshelf.core.plan import Action
from ramshelf.core.record import replace

WANTED = HookScript(python="/usr/bin/python3", main="/lib/main.py", config_files=("/etc/a b.conf",))
NOTHING = Installation(
    text=None, executable=False, missing=(SCRIPT_DIR,), libvirt=(9, 0, 0), daemons=(17,), seen=None
)
INSTALLED = replace(
    NOTHING, text=render(replace(WANTED, made=(SCRIPT_DIR,))), executable=True, missing=(), seen=True
)


def commands(actions: tuple[Action, ...]) -> list[str]:
    return [action.lines()[0] for action in actions]


def test_nothing_installed() -> None:
    assert commands(plan_install(NOTHING, WANTED)) == [
        f"install --directory --owner 0 --group 0 --mode 0755 {SCRIPT_DIR}",
        "--- /dev/null",
        f"chmod 0755 {SCRIPT}",
        "sh -c 'kill -HUP 17'",
    ]
    assert plan_remove(NOTHING) == ()


def test_installed_and_current() -> None:
    assert plan_install(INSTALLED, WANTED) == ()
    assert is_current(INSTALLED, WANTED)
    assert commands(plan_remove(INSTALLED)) == [
        f"rm --force {SCRIPT}",
        f"rmdir --ignore-fail-on-non-empty {SCRIPT_DIR}",
        "sh -c 'kill -HUP 17'",
    ]


@pytest.mark.parametrize("change", [{"python": "/opt/python"}, {"main": "/x"}, {"config_files": ()}])
def test_another_script_is_outdated_but_remembers_what_was_made(change: dict[str, object]) -> None:
    wanted = replace(WANTED, **change)  # type: ignore[arg-type]
    assert not is_current(INSTALLED, wanted)
    write, _ = plan_install(INSTALLED, wanted)
    assert write.path == SCRIPT  # type: ignore[union-attr]
    assert made_directories(write.text) == (SCRIPT_DIR,)  # type: ignore[union-attr]


def test_not_seen_is_reloaded_only() -> None:
    assert commands(plan_install(replace(INSTALLED, seen=None), WANTED)) == ["sh -c 'kill -HUP 17'"]


def test_directories_that_were_made_are_remembered() -> None:
    assert made_directories(render(WANTED)) == ()
    made = (HOOK_DIR, "/with space/qemu.d")
    assert made_directories(render(replace(WANTED, made=made))) == made


def test_libvirt_that_knows_no_directory() -> None:
    with pytest.raises(HostError) as caught:
        plan_install(replace(NOTHING, libvirt=(6, 4, 0)), WANTED)
    assert caught.value.code == "hook.no-directory"
    assert plan_install(replace(NOTHING, libvirt=(6, 5, 0)), WANTED)
    assert plan_install(replace(NOTHING, libvirt=None), WANTED)


def test_a_script_of_somebody_else_is_let_alone() -> None:
    foreign = replace(INSTALLED, text="#!/bin/sh\nexit 0\n")
    with pytest.raises(RefusedError, match="not made by ramshelf"):
        plan_install(foreign, WANTED)
    with pytest.raises(RefusedError, match="not made by ramshelf"):
        plan_remove(foreign)
