"""What a change of version would endanger on a host that is good otherwise."""

from typing import Any

import pytest

from ramshelf.core.agent.unit import units
from ramshelf.core.catalog import GROUPS, RULES
from ramshelf.core.doctor.facts import Facts
from ramshelf.core.doctor.upgrade import Change, check_upgrade
from ramshelf.core.findings import exit_status
from ramshelf.core.hook.bypass import Bypass
from ramshelf.core.host import Unknown
from ramshelf.core.record import replace
from ramshelf.core.setting import Setting
from ramshelf.core.units import GIB
from support.good_host import GOOD, on_disk, with_config, with_guest, with_hook, with_store

UNIT = units(("python3", "-m"), (), ())[-1].text
OLD_UNIT = UNIT.replace('"agent" "run"', '"agent"')
STRICT = Setting(path="/r.conf", section="ramshelf", key="strict", value="true", line=2)
SET = with_config(settings={"ramshelf.strict": STRICT})
BACK: dict[str, Any] = {"target": (0, 1, 0)}

BAD: dict[str, tuple[Facts, dict[str, Any]]] = {
    "upgrade.guests": (GOOD, {}),
    "upgrade.guests-unknown": (replace(GOOD, guests=Unknown("libvirt is away")), {}),
    "upgrade.hook-other": (with_hook(current=False), {"earlier_hook": True}),
    "upgrade.agent-units": (GOOD, {"agent_unit": OLD_UNIT}),
    "upgrade.option": (SET, BACK),
    "upgrade.bypass-ends": (with_hook(bypass=Bypass(left=60)), BACK),
    "upgrade.promises": (with_guest({"promised": 3 * GIB}), BACK),
    "upgrade.capacity": (on_disk(), BACK),
    "upgrade.swap-files": (GOOD, {**BACK, "further": ("/srv/swap.1",)}),
    "upgrade.ram": (GOOD, BACK),
    "upgrade.version-unknown": (GOOD, {"target": (9, 0, 0)}),
}


def codes(facts: Facts, **changes: Any) -> dict[str, str]:
    """The findings about the change and of the doctor, each with its severity."""
    plain = Change(current=(0, 2, 0), target=None, earlier_hook=False, agent_unit=UNIT)
    found = check_upgrade(facts, replace(plain, **changes))
    for each in found:
        rule = RULES[each.code]
        assert each.severity in {rule.severity, rule.milder}
        assert each.group in GROUPS
        assert each.sentence.endswith(".")
    return {each.code: each.severity.value for each in found}


def test_a_good_host_may_be_upgraded() -> None:
    plain = Change(current=(0, 2, 0), target=(0, 2, 0), earlier_hook=False, agent_unit=UNIT)
    found = check_upgrade(GOOD, plain)
    assert {each.code for each in found} == {"upgrade.guests", "upgrade.ok"}
    assert exit_status(found) == 0


def test_every_code_has_its_case() -> None:
    assert set(BAD) | {"upgrade.ok"} == {code for code in RULES if code.startswith("upgrade.")}


@pytest.mark.parametrize("code", sorted(BAD))
def test_what_is_endangered_is_found(code: str) -> None:
    facts, changes = BAD[code]
    assert codes(facts, **changes)[code] == RULES[code].severity.value


@pytest.mark.parametrize("code", sorted(BAD.keys() - {"upgrade.guests"}))
def test_what_is_not_there_is_not_found(code: str) -> None:
    assert code not in codes(GOOD)
    assert code not in codes(replace(GOOD, guests=()), target=(0, 2, 0))


def test_only_promises_of_0_1_0_make_the_hook_a_failure() -> None:
    assert codes(with_hook(current=False))["upgrade.hook-other"] == "warning"
    without = replace(with_hook(current=False), guests=())
    assert codes(without, earlier_hook=True)["upgrade.hook-other"] == "warning"


def test_units_of_this_version_are_not_for_0_1_0() -> None:
    assert codes(GOOD, **BACK)["upgrade.agent-units"] == "warning"
    assert "upgrade.agent-units" not in codes(GOOD, **BACK, agent_unit="")


def test_an_option_that_has_no_effect_is_a_note() -> None:
    assert codes(SET)["upgrade.option"] == "info"


def test_what_the_doctor_says_of_promises_hook_and_store_is_there_too() -> None:
    assert codes(with_hook(problem="it is broken"))["hook.broken"] == "failure"
    assert codes(with_hook(bypass=Bypass(left=60)))["hook.bypassed"] == "warning"
    unfinished = codes(with_store(unfinished=128 * GIB))
    assert unfinished["store.resize-unfinished"] == "warning"
    assert "numa.ok" not in codes(GOOD)
