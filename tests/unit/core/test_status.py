"""The status of a host, out of the doctor's facts."""

from typing import Any

from ramshelf.cli.status import document
from ramshelf.core.doctor.facts import Facts, OddGuest
from ramshelf.core.findings import Severity
from ramshelf.core.host import Unknown
from ramshelf.core.record import replace
from ramshelf.core.status import AgentState, GuestSums, Status, summarise
from ramshelf.core.units import GIB, MIB
from support.good_host import GOOD, GUEST, RUNNING, with_config, with_hook, with_store, with_sysctl

AGENT = AgentState(installed=True, process=812)


def status(facts: Facts = GOOD) -> Status:
    return summarise(facts, AGENT)


def test_nothing_is_wrong_with_a_good_host() -> None:
    assert status().wrong == ()
    assert status().guests == GuestSums(running=1, file_backed=1, promised=2 * GIB, used=512 * MIB)


def test_what_is_wrong_are_warnings_and_failures_the_worst_first() -> None:
    facts = replace(with_hook(installed=False), sysctls=with_sysctl(swappiness=0).sysctls)
    severities = [finding.severity for finding in status(facts).wrong]
    assert severities == sorted(severities, key=lambda each: -each.exit_status)
    assert {Severity.WARNING, Severity.FAILURE} == set(severities)
    assert status(facts).wrong[0].code == "hook.missing"


def test_what_was_not_tried_is_unknown_and_no_warning() -> None:
    found = status(with_hook(seen=None))
    assert found.wrong == ()
    assert keys(found)["hook"]["seen"] is None


def test_a_hook_that_is_not_called_is_a_failure() -> None:
    assert [finding.code for finding in status(with_hook(seen=False)).wrong] == ["hook.unseen"]


def test_guests_with_other_memory_or_odd_xml_run_too() -> None:
    anonymous = replace(RUNNING, guest=replace(GUEST, name="db", files=()))
    odd = OddGuest(name="odd", problem="no memory")
    found = status(replace(GOOD, guests=(RUNNING, anonymous), odd_guests=(odd,)))
    assert found.guests == GuestSums(running=3, file_backed=1, promised=2 * GIB, used=512 * MIB)


def test_what_is_not_known_of_one_guest_is_not_known_of_all() -> None:
    denied = Unknown("permission denied")
    guest = replace(RUNNING, promised=denied, memory_files=denied)
    assert status(replace(GOOD, guests=(RUNNING, guest))).guests == GuestSums(
        running=2, file_backed=2, promised=denied, used=denied
    )


def test_the_capacity_is_that_of_ramshelf_capacity() -> None:
    sizes = keys(status(with_config(file_backed_memory_mib=4096)))["store"]
    assert (sizes["capacity_mib"], sizes["free_mib"]) == (4096, 2048)


def test_what_is_not_known_is_null() -> None:
    unknown = Unknown("it does not answer")
    facts = replace(
        GOOD, hypervisor=unknown, store=unknown, hook=unknown, guests=unknown, placement=None
    )
    found = keys(summarise(facts, AgentState(installed=False, process=None)))
    assert set(found["store"].values()) == set(found["hook"].values()) == {None}
    assert set(found["guests"].values()) == {None}
    assert found["agent"] == {"installed": False, "running": False, "process": None}
    assert found["summary"]["exit_status"] == 2


def test_a_store_whose_figures_are_not_known_is_a_store() -> None:
    sizes = keys(status(with_store(usage=Unknown("permission denied"))))["store"]
    assert (sizes["kind"], sizes["capacity_mib"]) == ("swap", None)


def keys(found: Status) -> dict[str, Any]:
    return document(found)
