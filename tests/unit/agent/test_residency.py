"""What of memory files is in RAM, measured within a budget."""

import mmap
from pathlib import Path

import pytest

from ramshelf.agent.residency import Residency
from support.files import usage

PAGE = mmap.PAGESIZE


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{number}.ram" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes((number + 1) * PAGE))
    return [str(path) for path in paths]


def grow(paths: list[str]) -> None:
    for path in paths:
        with open(path, "ab") as file:
            file.write(bytes(100 * PAGE))


def test_all_are_measured_at_first_and_again_where_there_is_time(files: list[str]) -> None:
    residency = Residency()
    residency.begin(0)
    assert [residency(usage(path)) for path in files] == [PAGE, 2 * PAGE, 3 * PAGE, 4 * PAGE]
    grow(files)
    residency.begin(60)
    assert [residency(usage(path)) for path in files] == [
        101 * PAGE,
        102 * PAGE,
        103 * PAGE,
        104 * PAGE,
    ]


def test_without_time_the_oldest_figure_is_renewed_each_round(files: list[str]) -> None:
    residency = Residency()
    residency.begin(0)
    before = [residency(usage(path)) for path in files]
    grow(files)
    for done in range(1, len(files) + 1):
        residency.begin(0)
        now = [residency(usage(path)) for path in files]
        assert sum(new != old for new, old in zip(now, before, strict=True)) == done


def test_a_file_that_has_gone_has_nothing_in_ram_and_is_forgotten(files: list[str]) -> None:
    residency = Residency()
    residency.begin(60)
    assert residency(usage(files[0])) == PAGE
    Path(files[0]).unlink()
    residency.begin(60)
    assert residency(usage(files[0])) == 0
    residency.begin(60)
    residency.begin(60)
    Path(files[0]).write_bytes(bytes(PAGE))
    assert residency(usage(files[0])) == PAGE
