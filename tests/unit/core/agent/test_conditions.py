"""What is logged: what begins and what ends, and nothing twice."""

from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.agent.conditions import Condition, changes, of_error, of_finding
from ramshelf.core.errors import RefusedError
from ramshelf.core.findings import Finding, Severity
from ramshelf.core.record import replace

FULL = Condition(code="store.full", severity=Severity.FAILURE, sentence="It is full.")


def test_it_begins_once_and_ends_once() -> None:
    assert changes((), (FULL,)).begun == (FULL,)
    assert changes((FULL,), (FULL,)) == changes((), ())
    assert changes((FULL,), ()).ended == (FULL,)


def test_other_figures_make_no_other_condition() -> None:
    fuller = replace(FULL, sentence="It is fuller.", facts={"used_mib": 7})
    assert changes((FULL,), (fuller,)) == changes((), ())


def test_the_subject_tells_two_of_one_code_apart() -> None:
    one, other = replace(FULL, subject="one"), replace(FULL, subject="other")
    found = changes((one,), (other,))
    assert (found.begun, found.ended) == ((other,), (one,))


def test_what_becomes_worse_begins_anew_without_an_end() -> None:
    mild = replace(FULL, severity=Severity.WARNING)
    found = changes((mild,), (FULL,))
    assert (found.begun, found.ended) == ((FULL,), ())


def test_what_is_well_is_no_condition() -> None:
    well = replace(FULL, severity=Severity.OK)
    assert changes((), (well,)).begun == ()
    assert changes((FULL,), (well,)).ended == (FULL,)


def test_a_finding_is_about_its_guest() -> None:
    finding = Finding(
        code="guest.locked",
        severity=Severity.WARNING,
        sentence="It is.",
        facts={"path": "/p", "guest": "web"},
    )
    assert of_finding(finding).key == ("guest.locked", "web")
    assert of_finding(replace(finding, facts={})).key == ("guest.locked", "")


def test_an_error_keeps_its_code_hint_and_facts() -> None:
    error = RefusedError("store.full", "It is full.", hint="Empty it.", facts={"directory": "/d"})
    condition = of_error(error)
    assert (condition.code, condition.hint, condition.facts) == (
        "store.full",
        "Empty it.",
        {"directory": "/d"},
    )
    assert condition.severity is Severity.FAILURE


conditions = st.lists(
    st.builds(
        Condition,
        code=st.sampled_from(["a.a", "b.b", "c.c"]),
        severity=st.sampled_from(list(Severity)),
        sentence=st.just("It is."),
        subject=st.sampled_from(["", "one"]),
    )
)


@given(before=conditions, now=conditions)
def test_what_has_begun_and_not_ended_is_what_holds(
    before: list[Condition], now: list[Condition]
) -> None:
    found = changes(before, now)
    held = {each.key for each in before if each.severity is not Severity.OK}
    last = {each.key: each for each in now if each.severity is not Severity.OK}
    ended = {each.key for each in found.ended}
    assert ended <= held
    assert (held - ended) | {each.key for each in found.begun} == set(last)
