from dataclasses import asdict
from pathlib import Path

import pytest

from bench.results import Result, digest, text

RESULT = Result(
    table="pressure",
    title="Pressure.",
    quick=True,
    seconds=1,
    machine={"cpus": 2},
    samples=[
        {
            "store": store,
            "backing": "ramshelf",
            "limit": "half",
            "rounds": 3.0 + number,
            "filling_mib": 1.0,
            "written_mib": 0.0,
        }
        for store in ("ext4", "swap")
        for number in (1, 2)
    ],
)


def test_a_result_is_told_by_its_rows() -> None:
    header, *rows = text(RESULT).strip().splitlines()[-3:]
    assert header.split() == [
        "STORE",
        "BACKING",
        "LIMIT",
        "ROUNDS",
        "FILLING",
        "MIB",
        "WRITTEN",
        "MIB",
    ]
    assert [row.split() for row in rows] == [
        [store, "ramshelf", "half", "4.5", "(4-5)", "1", "0"] for store in ("ext4", "swap")
    ]


def test_the_same_result_gives_the_same_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="only make bench installs matplotlib")
    from bench.plots import draw  # noqa: PLC0415 - it may be missing

    (tmp_path / "result").write_text(str(asdict(RESULT)))
    pictures = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for picture in pictures:
        draw(RESULT, picture, digest(tmp_path / "result"))
    first, second = (picture.read_text() for picture in pictures)
    assert first == second
    assert "ext4, ramshelf, half the RAM" in first
    assert digest(tmp_path / "result") in first
