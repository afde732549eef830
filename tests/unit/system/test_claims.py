"""Claims in the making: bounded, cleaned, and never half."""

import os
from pathlib import Path
from uuid import UUID

import pytest

from ramshelf.system import claims
from ramshelf.system.claims import being_made, expect, in_the_making

ONE, TWO = (str(UUID(int=number)) for number in (1, 2))


@pytest.fixture
def now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock, to be set."""
    clock = [1000.0]
    monkeypatch.setattr(claims, "_DIRECTORY", tmp_path / "claims")
    monkeypatch.setattr(claims, "_EXPECTED", tmp_path / "coming")
    monkeypatch.setattr(claims, "_clock", lambda: clock[0])
    return clock


def test_a_guest_is_expected_for_a_while(now: list[float], tmp_path: Path) -> None:
    expect(ONE)
    now[0] += 60
    expect(TWO.upper())
    assert in_the_making() == {ONE, TWO}
    now[0] += 70
    assert in_the_making() == {TWO}
    now[0] += 70
    assert in_the_making() == set()
    assert os.listdir(tmp_path / "coming") == []


def test_nobody_can_have_more_expected_than_so_many(now: list[float], tmp_path: Path) -> None:
    for number in range(1200):
        now[0] += 0.01
        expect(str(UUID(int=number)))
    assert len(os.listdir(tmp_path / "coming")) == 1000
    assert str(UUID(int=1199)) in in_the_making()


def test_those_that_came_go_when_the_next_is_expected(now: list[float], tmp_path: Path) -> None:
    """Also where no agent runs."""
    for number in range(50):
        expect(str(UUID(int=number)))
        now[0] += 200
    assert len(os.listdir(tmp_path / "coming")) == 1


@pytest.mark.usefixtures("now")
def test_what_is_no_guest_is_removed(tmp_path: Path) -> None:
    expect(ONE)
    for name in (TWO, f".{TWO}.ramshelf", f"{TWO}.", f"{TWO}.x", f"{TWO}.²"):
        (tmp_path / "coming" / name).touch()
    assert in_the_making() == {ONE}
    assert len(os.listdir(tmp_path / "coming")) == 1


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize("uuid", ["", "../lock", f"{ONE}/..", "x"])
def test_only_a_uuid_is_expected(uuid: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        expect(uuid)


@pytest.mark.usefixtures("now")
def test_a_claim_whose_maker_died_counts_no_more(tmp_path: Path) -> None:
    with being_made(ONE):
        (tmp_path / "claims" / TWO).touch()
        assert in_the_making() == {ONE}
        assert os.listdir(tmp_path / "claims") == [ONE]
    assert os.listdir(tmp_path / "claims") == []
