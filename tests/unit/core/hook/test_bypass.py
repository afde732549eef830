"""The break-glass: the times that can be said, and what counts as one that is in force."""

import pytest

from ramshelf.core.errors import UsageError
from ramshelf.core.hook.bypass import LONGEST, parse_time, seconds_left


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30min", 1800), (" 2h ", 7200), ("1 h", 3600), ("24h", LONGEST)],
)
def test_times(text: str, seconds: int) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0s",
        "30",
        "min",
        "-5min",
        "1.5h",
        "25h",
        "86401s",
        "1d",
        "1h30min",
        "٣h",
        "9" * 400 + "h",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_time(text)
    assert caught.value.code == "hook.bypass-time"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1600\n", 600),
        ("1001\n", 1),
        ("1000\n", 0),
        (f"{1000 + LONGEST}\n", LONGEST),
        (f"{1001 + LONGEST}\n", 0),
        ("", 0),
        ("1600", 0),
        ("01600\n", 0),
        ("1600 1\n", 0),
        ("-1600\n", 0),
        ("1e9\n", 0),
        ("9" * 5000 + "\n", 0),
    ],
)
def test_how_long_it_still_lasts(text: str, expected: int) -> None:
    assert seconds_left(text, 1000.9) == expected
