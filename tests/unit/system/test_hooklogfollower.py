"""The hook's log followed as it grows and is set aside."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ramshelf.system.hooklogfollower import Follower


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "hook.log"


@pytest.fixture
def follower(log: Path) -> Iterator[Follower]:
    with closing(Follower(log)) as following:
        yield following


def add(log: Path, *numbers: int) -> None:
    with log.open("a") as file:
        file.writelines(
            json.dumps({"event": "started", "number": number}) + "\n" for number in numbers
        )


def read(follower: Follower) -> list[int]:
    return [entry["number"] for entry in follower.entries()]


def test_first_all_that_is_there_then_what_is_new(log: Path, follower: Follower) -> None:
    assert read(follower) == []
    add(log, 1, 2)
    assert read(follower) == [1, 2]
    assert read(follower) == []
    add(log, 3)
    assert read(follower) == [3]


def test_the_older_file_comes_first(log: Path, follower: Follower) -> None:
    add(log, 1)
    log.rename(f"{log}.1")
    add(log, 2)
    assert read(follower) == [1, 2]
    assert read(follower) == []


def test_what_is_set_aside_between_two_reads_is_read_to_its_end(
    log: Path, follower: Follower
) -> None:
    add(log, 1)
    assert read(follower) == [1]
    add(log, 2)
    log.rename(f"{log}.1")
    add(log, 3)
    assert read(follower) == [2, 3]
    add(log, 4)
    assert read(follower) == [4]


def test_half_a_line_is_read_when_it_is_whole(log: Path, follower: Follower) -> None:
    add(log, 1)
    with log.open("a") as file:
        file.write('{"event": "started", ')
    assert read(follower) == [1]
    with log.open("a") as file:
        file.write('"number": 2}\n')
    assert read(follower) == [2]


def test_a_line_that_is_none_is_passed_over(log: Path, follower: Follower) -> None:
    log.write_text('{"event": "star\n')
    add(log, 1)
    assert read(follower) == [1]


def test_what_was_set_aside_twice_is_read_as_far_as_it_is_left(
    log: Path, follower: Follower
) -> None:
    add(log, 1)
    assert read(follower) == [1]
    log.rename(f"{log}.1")
    add(log, 2)
    log.replace(f"{log}.1")
    add(log, 3)
    assert read(follower) == [2, 3]
    assert read(follower) == []
