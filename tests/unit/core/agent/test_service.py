"""How the agent's units are put there and taken away."""

from dataclasses import replace

import pytest

from ramshelf.core.agent.service import Service, plan_install, plan_remove
from ramshelf.core.agent.unit import (
    AGENT,
    LISTENER,
    NAMES,
    SOCKET,
    packaged_units,
    unit_path,
    units,
)
from ramshelf.core.errors import HostError, RefusedError
from ramshelf.core.plan import Action, RemoveFile, Run, WriteFile

UNITS = units(("/opt/ramshelf/bin/python", "-I", "-m"), (), ("/var/lib/libvirt/qemu",))
TEXTS = {unit.name: unit.text for unit in UNITS}
ABSENT = Service(texts={}, shipped={}, enabled=False, runs=False, systemd=True)
PRESENT = replace(ABSENT, texts=TEXTS, enabled=True, runs=True)
PACKAGED = packaged_units()
WITH_PACKAGE = replace(ABSENT, shipped={unit.name: unit.shipped for unit in PACKAGED})


def written(plan: tuple[Action, ...]) -> dict[str, str]:
    return {action.path: action.text for action in plan if isinstance(action, WriteFile)}


def ran(plan: tuple[Action, ...]) -> list[str]:
    return [" ".join(action.argv[1:]) for action in plan if isinstance(action, Run)]


def test_install_writes_and_starts_and_the_second_time_does_nothing() -> None:
    plan = plan_install(ABSENT, UNITS)
    assert written(plan) == {unit_path(name): TEXTS[name] for name in NAMES}
    assert ran(plan) == ["daemon-reload", f"reenable {AGENT}", f"restart {AGENT}"]
    assert plan_install(PRESENT, UNITS) == ()


def test_an_older_unit_is_brought_up_to_date() -> None:
    older = TEXTS[AGENT].replace("WatchdogSec=300", "WatchdogSec=90")
    first = plan_install(replace(PRESENT, texts={**TEXTS, AGENT: older}), UNITS)[0]
    assert "+WatchdogSec=300" in first.lines()


def test_where_only_the_agent_s_unit_was_installed_the_listener_comes() -> None:
    """As ramshelf 0.1.0 did."""
    plan = plan_install(replace(PRESENT, texts={AGENT: TEXTS[AGENT]}), UNITS)
    assert list(written(plan)) == [unit_path(SOCKET), unit_path(LISTENER)]
    assert ran(plan)[-1] == f"restart {AGENT}"


def test_remove_undoes_it_and_the_second_time_does_nothing() -> None:
    plan = plan_remove(PRESENT)
    assert ran(plan) == [f"disable --now {AGENT}", "daemon-reload"]
    removed = [action.path for action in plan if isinstance(action, RemoveFile)]
    assert removed == [unit_path(name) for name in NAMES]
    assert plan_remove(ABSENT) == ()


def test_what_an_interrupted_removal_left_is_removed() -> None:
    plan = plan_remove(replace(ABSENT, texts={LISTENER: TEXTS[LISTENER]}))
    assert ran(plan) == [f"stop {LISTENER}", "daemon-reload"]


def test_a_service_that_was_disabled_by_hand_is_enabled_again() -> None:
    plan = plan_install(replace(PRESENT, enabled=False), UNITS)
    assert [*written(plan), *ran(plan)] == [f"reenable {AGENT}", f"restart {AGENT}"]


def test_a_service_that_does_not_run_is_started() -> None:
    assert ran(plan_install(replace(PRESENT, runs=False), UNITS))[-1] == f"restart {AGENT}"


def test_the_units_of_a_package_are_used_where_they_are_what_is_wanted() -> None:
    plan = plan_install(WITH_PACKAGE, PACKAGED)
    assert [*written(plan), *ran(plan)] == [f"reenable {AGENT}", f"restart {AGENT}"]
    assert plan_install(replace(WITH_PACKAGE, enabled=True, runs=True), PACKAGED) == ()
    for enabled, runs in ((True, True), (True, False), (False, True)):
        there = replace(WITH_PACKAGE, enabled=enabled, runs=runs)
        assert ran(plan_remove(there)) == [f"disable --now {AGENT}"]
    assert plan_remove(WITH_PACKAGE) == ()


def test_other_options_than_a_package_s_are_units_of_their_own_until_they_are_the_same() -> None:
    wanted = units(("/usr/bin/python3", "-I", "-m"), (), ("/var/lib/libvirt/qemu", "/fast"))
    assert list(written(plan_install(WITH_PACKAGE, wanted))) == [unit_path(name) for name in NAMES]
    texts = {unit.name: unit.text for unit in wanted}
    plan = plan_install(replace(WITH_PACKAGE, texts=texts, enabled=True), PACKAGED)
    removed = [action.path for action in plan if isinstance(action, RemoveFile)]
    assert removed == [unit_path(name) for name in NAMES]
    assert ran(plan) == ["daemon-reload", f"reenable {AGENT}", f"restart {AGENT}"]


@pytest.mark.parametrize("name", NAMES)
def test_what_ramshelf_did_not_write_stays(name: str) -> None:
    foreign = replace(PRESENT, texts={**TEXTS, name: "[Service]\nExecStart=/bin/true\n"})
    with pytest.raises(RefusedError) as caught:
        plan_install(foreign, UNITS)
    assert caught.value.code == "agent.foreign"
    assert unit_path(name) in str(caught.value)
    with pytest.raises(RefusedError):
        plan_remove(foreign)


def test_without_systemd_it_says_what_to_do() -> None:
    with pytest.raises(HostError) as caught:
        plan_install(replace(ABSENT, systemd=False), UNITS)
    assert caught.value.code == "agent.no-systemd"
    assert "ramshelf agent run" in caught.value.hint
