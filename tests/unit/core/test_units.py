"""Sizes for people to read."""

import pytest

from ramshelf.core.units import GIB, KIB, MIB, TIB, format_size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (KIB - 1, "1023 B"),
        (KIB, "1 KiB"),
        (MIB - 1, "1 MiB"),
        (1536 * MIB, "1.5 GiB"),
        (GIB - MIB, "1023 MiB"),
        (GIB - 1, "1 GiB"),
        (TIB - 1, "1 TiB"),
        (2048 * TIB, "2048 TiB"),
    ],
)
def test_the_unit_is_the_largest_that_suits(size: int, text: str) -> None:
    assert format_size(size) == text
