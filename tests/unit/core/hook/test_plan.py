"""The plans that put libvirt's hook there and take it away."""

import pytest

from ramshelf.core.errors import HostError, RefusedError
from ramshelf.core.hook.copy import DIRECTORY, PYTHON, Copy
from ramshelf.core.hook.plan import (
    MADE,
    Installation,
    Wanted,
    denied,
    is_current,
    plan_install,
    plan_remove,
)
from ramshelf.core.hook.script import (
    HOOK_DIR,
    SCRIPT,
    SCRIPT_DIR,
    HookScript,
    made_directories,
    render,
)
from ramshelf.core.plan import Action, RemoveTree, WriteFile
from ramshelf.core.record import replace

COPY = Copy(
    source="/opt/site", files={"ramshelf/hook/__main__.py": "1\n", "aftercare": "/opt/python\n"}
)
SCRIPT_WANTED = HookScript(python=PYTHON, main=COPY.main, config_files=("/etc/a b.conf",))
WANTED = Wanted(script=SCRIPT_WANTED, copy=COPY)
NOTHING = Installation(
    text=None,
    executable=False,
    intact=False,
    missing=(SCRIPT_DIR, DIRECTORY),
    libvirt=(9, 0, 0),
    python=(3, 11, 2),
    daemons=((17, 4711),),
    seen=None,
)
INSTALLED = replace(
    NOTHING,
    text=render(replace(SCRIPT_WANTED, made=(SCRIPT_DIR, DIRECTORY))),
    executable=True,
    copies=(COPY.path,),
    intact=True,
    missing=(),
    seen=True,
)
NEWER = Copy(source="/opt/site", files={**COPY.files, "ramshelf/hook/__main__.py": "2\n"})
UPGRADE = Wanted(script=replace(SCRIPT_WANTED, main=NEWER.main), copy=NEWER)


def commands(actions: tuple[Action, ...]) -> list[str]:
    return [action.lines()[0] for action in actions]


def test_nothing_installed() -> None:
    assert commands(plan_install(NOTHING, WANTED)) == [
        f"install --directory --owner 0 --group 0 --mode 0755 {SCRIPT_DIR}",
        f"install --directory --owner 0 --group 0 --mode 0755 {DIRECTORY}",
        f"install -D --mode 0644 /opt/site/aftercare {COPY.path}/aftercare",
        f"/usr/bin/python3 -IS {COPY.path}/ramshelf/hook/compiling.py",
        "--- /dev/null",
        "kill -HUP 17",
    ]
    assert plan_remove(NOTHING) == ()


def test_installed_and_current() -> None:
    assert plan_install(INSTALLED, WANTED) == ()
    assert is_current(INSTALLED, WANTED)
    assert commands(plan_remove(INSTALLED)) == [
        f"rm --force {SCRIPT}",
        f"rm --recursive --force {COPY.path}",
        f"rmdir --ignore-fail-on-non-empty {DIRECTORY}",
        "rmdir --ignore-fail-on-non-empty /usr/local/lib/ramshelf",
        f"rmdir --ignore-fail-on-non-empty {SCRIPT_DIR}",
        "kill -HUP 17",
    ]


@pytest.mark.parametrize(
    "change", [{"python": "/opt/python"}, {"main": "/x"}, {"config_files": ()}]
)
def test_another_script_is_outdated_but_remembers_what_was_made(change: dict[str, object]) -> None:
    wanted = replace(WANTED, script=replace(SCRIPT_WANTED, **change))  # type: ignore[arg-type]
    assert not is_current(INSTALLED, wanted)
    write, _ = plan_install(INSTALLED, wanted)
    assert isinstance(write, WriteFile)
    assert (write.path, write.mode, write.beside) == (SCRIPT, 0o755, HOOK_DIR)
    assert made_directories(write.text) == (SCRIPT_DIR, DIRECTORY)


def test_a_copy_that_was_changed_is_made_anew() -> None:
    spoiled = replace(INSTALLED, intact=False)
    assert not is_current(spoiled, WANTED)
    assert commands(plan_install(spoiled, WANTED))[0].startswith("install -D")


def test_the_former_copy_stays_until_the_next_plan() -> None:
    """Calls may be under way that import from it."""
    first = plan_install(replace(INSTALLED, intact=False), UPGRADE)
    assert not any(isinstance(action, RemoveTree) for action in first)
    kinds = [type(action).__name__ for action in first]
    assert kinds.index("CopyFiles") < kinds.index("WriteFile")
    upgraded = replace(
        INSTALLED,
        text=render(replace(UPGRADE.script, made=(SCRIPT_DIR, DIRECTORY))),
        copies=(COPY.path, NEWER.path),
    )
    assert commands(plan_install(upgraded, UPGRADE))[0] == f"rm --recursive --force {COPY.path}"


def test_what_a_plan_that_was_cut_off_has_left_is_taken_away() -> None:
    left = replace(NOTHING, copies=(COPY.path,), missing=())
    assert commands(plan_remove(left))[:2] == [
        f"rm --recursive --force {COPY.path}",
        f"rmdir --ignore-fail-on-non-empty {DIRECTORY}",
    ]


def test_not_seen_is_reloaded_only() -> None:
    assert commands(plan_install(replace(INSTALLED, seen=None), WANTED)) == ["kill -HUP 17"]


def test_not_executable_is_made_so() -> None:
    assert (
        commands(plan_install(replace(INSTALLED, executable=False), WANTED))[0]
        == f"chmod 0755 {SCRIPT}"
    )


def test_directories_that_were_made_are_remembered() -> None:
    assert made_directories(render(SCRIPT_WANTED)) == ()
    assert made_directories("#!/bin/sh\n") is None
    made = (*MADE, "/with space/qemu.d")
    assert made_directories(render(replace(SCRIPT_WANTED, made=made))) == made


def test_libvirt_that_knows_no_directory() -> None:
    with pytest.raises(HostError) as caught:
        plan_install(replace(NOTHING, libvirt=(6, 4, 0)), WANTED)
    assert caught.value.code == "hook.no-directory"
    assert plan_install(replace(NOTHING, libvirt=(6, 5, 0)), WANTED)
    assert plan_install(replace(NOTHING, libvirt=None), WANTED)


@pytest.mark.parametrize(
    ("python", "said"), [(None, "is not there"), ((3, 8, 20), "is Python 3.8.20")]
)
def test_the_distribution_has_no_python_that_will_do(
    python: tuple[int, int, int], said: str
) -> None:
    with pytest.raises(HostError, match=said) as caught:
        plan_install(replace(NOTHING, python=python), WANTED)
    assert (caught.value.code, bool(caught.value.hint)) == ("hook.no-python", True)
    assert plan_remove(replace(INSTALLED, python=python))


@pytest.mark.parametrize(
    "what", [{"text": "#!/bin/sh\nexit 0\n"}, {"text": ""}, {"text": None, "odd": True}]
)
def test_what_is_somebody_elses_is_let_alone(what: dict[str, object]) -> None:
    foreign = replace(INSTALLED, **what)  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match="not made by ramshelf") as caught:
        plan_install(foreign, WANTED)
    assert caught.value.code == "hook.foreign"
    with pytest.raises(RefusedError, match="not made by ramshelf"):
        plan_remove(foreign)


def test_what_libvirts_own_call_ends_with_is_told_apart() -> None:
    errors = [denied(status) for status in (126, 127, 70)]
    assert [error.code for error in errors] == ["hook.denied", "hook.no-python", "hook.broken"]
    assert all(error.hint for error in errors)
