"""What codes mean: every code there is, and those that are mistyped."""

import pytest

from ramshelf.core.catalog import GROUPS, RULES
from ramshelf.core.errorcodes import ERROR_CODES, SECTIONS
from ramshelf.core.explain import by_group, codes, explain, meant


def test_every_code_is_explained_and_listed_once() -> None:
    assert sorted(codes()) == sorted({*RULES, *ERROR_CODES})
    for code in codes():
        assert len(explain(code)) == (code in RULES) + (code in ERROR_CODES)


@pytest.mark.parametrize("code", codes())
def test_what_is_said_of_a_code_is_sentences(code: str) -> None:
    for meaning in explain(code):
        assert meaning.meaning.endswith(".")
        assert meaning.said_by
        assert meaning.about in {*GROUPS.values(), *(title for title, _ in SECTIONS.values())}
        assert len(meaning.first_sentence) >= 10, meaning.first_sentence


def test_codes_of_one_group_stand_together() -> None:
    groups = [group for group, _ in by_group(codes())]
    assert len(groups) == len(set(groups))


def test_a_code_of_the_doctor_and_of_commands_has_both_meanings() -> None:
    of_doctor, of_commands = explain("store.not-mounted")
    assert of_doctor.severities == ("failure",)
    assert of_commands.severities == ("error",)
    assert of_commands.hint == of_doctor.hint  # the table of errors has none of its own


def test_a_milder_severity_is_named() -> None:
    assert explain("host.kvm")[0].severities == ("failure", "warning")


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("not-mounted", "store.not-mounted"),
        ("stroe.not-mounted", "store.not-mounted"),
        ("capacity.exeeded", "capacity.exceeded"),
        ("guest.exceeded", "ram.exceeded"),
    ],
)
def test_a_mistyped_code_has_close_ones(word: str, first: str) -> None:
    assert meant(word)[0] == first


def test_nothing_is_close_to_nonsense() -> None:
    assert explain("") == ()
    assert meant("xyz") == ()
