"""What the agent holds to be wrong, and what it says of it."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ramshelf.agent.log import Log
from ramshelf.agent.problems import Problems
from ramshelf.core.agent.conditions import Condition
from ramshelf.core.errors import RefusedError, ServiceError
from ramshelf.core.findings import Severity

FULL = Condition(
    code="store.full", severity=Severity.FAILURE, sentence="It is full.", subject="web"
)


class Said:
    """The log's lines since the last time."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def lines(self) -> list[tuple[str, str, str]]:
        lines = map(json.loads, self._capsys.readouterr().err.splitlines())
        return [(line["level"], line["event"], line["code"]) for line in lines]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


class Away:
    """How often libvirt was found gone, and how bad that is."""

    times = 0
    severity = Severity.WARNING

    def __call__(self) -> Severity:
        self.times += 1
        return self.severity


@pytest.fixture
def away() -> Away:
    return Away()


@pytest.fixture
def problems(away: Away) -> Problems:
    return Problems(Log(), away)


def finds(*conditions: Condition) -> Iterator[Condition]:
    yield from conditions


def fails(error: Exception) -> Iterator[Condition]:
    yield FULL
    raise error


def test_what_a_step_finds_holds_until_it_is_done_again(problems: Problems, said: Said) -> None:
    assert problems.attempt("look", lambda: finds(FULL))
    assert problems.tell()
    assert said.lines() == [("error", "began", "store.full")]
    assert problems.attempt("check", finds)
    assert not problems.tell()
    problems.attempt("look", finds)
    assert problems.tell()
    assert said.lines() == [("info", "ended", "store.full")]
    assert problems.now == ()


def test_a_step_that_fails_has_found_that(problems: Problems, said: Said, away: Away) -> None:
    error = RefusedError("store.locked", "It is locked.")
    assert not problems.attempt("clean", lambda: fails(error))
    problems.tell()
    assert said.lines() == [("error", "began", "store.locked")]
    assert away.times == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO), "/f"), "system.io"),
        (KeyError("x"), "internal.bug"),
    ],
)
def test_whatever_goes_wrong_the_agent_goes_on(
    problems: Problems, said: Said, error: Exception, code: str
) -> None:
    for _ in range(2):
        assert not problems.attempt("clean", lambda: fails(error))
        problems.tell()
    assert said.lines() == [("error", "began", code)]


def test_a_libvirt_that_is_away_is_one_condition(
    problems: Problems, said: Said, away: Away
) -> None:
    problems.attempt(
        "look", lambda: fails(ServiceError("libvirt.connection-lost", "It went away."))
    )
    problems.attempt(
        "late", lambda: fails(ServiceError("libvirt.no-answer", "It does not answer."))
    )
    problems.attempt(
        "libvirt", lambda: fails(ServiceError("libvirt.unreachable", "It is not there."))
    )
    problems.tell()
    assert said.lines() == [("warning", "began", "libvirt.connection-lost")]
    assert away.times == 3
    away.severity = Severity.FAILURE
    problems.attempt(
        "libvirt", lambda: fails(ServiceError("libvirt.unreachable", "It is not there."))
    )
    problems.tell()
    assert said.lines() == [("error", "began", "libvirt.connection-lost")]
    problems.attempt("libvirt", finds)
    problems.tell()
    assert said.lines() == [("info", "ended", "libvirt.connection-lost")]


@pytest.mark.parametrize("journal", [True, False])
def test_the_journal_gets_priorities(tmp_path: Path, journal: bool) -> None:  # noqa: FBT001 - a case
    program = "from ramshelf.agent.log import Log; Log().warning('crashed', 'It has.', guest='web')"
    output = tmp_path / "output"
    with output.open("w") as stderr:
        status = os.fstat(stderr.fileno())
        stream = f"{status.st_dev}:{status.st_ino if journal else 0}"
        environment = {**os.environ, "JOURNAL_STREAM": stream}
        subprocess.run([sys.executable, "-c", program], stderr=stderr, check=True, env=environment)
    text = output.read_text()
    assert text.startswith("<4>{" if journal else "{")
    line = json.loads(text.removeprefix("<4>"))
    assert (line["level"], line["event"], line["guest"]) == ("warning", "crashed", "web")
