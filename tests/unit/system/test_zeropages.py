"""system/zeropages: which pages of a file are zero, to the page."""

import mmap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ramshelf.core.units import MIB
from ramshelf.system.zeropages import Extent, blocks, zeros

PAGE = mmap.PAGESIZE


@given(st.lists(st.sampled_from(["zero", "first", "last", "full"]), min_size=1, max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_only_pages_without_any_other_byte_are_zero(tmp_path: Path, pages: list[str]) -> None:
    contents = {
        "zero": bytes(PAGE),
        "first": b"x" + bytes(PAGE - 1),
        "last": bytes(PAGE - 1) + b"x",
        "full": b"x" * PAGE,
    }
    path = tmp_path / "pc.ram"
    path.write_bytes(b"".join(contents[page] for page in pages))
    with path.open("rb") as file:
        examined, found = zeros(file.fileno(), Extent(0, len(pages) * PAGE))
    assert examined == len(pages) * PAGE
    empty = {
        offset // PAGE for extent in found for offset in range(extent.offset, sum(extent), PAGE)
    }
    assert empty == {number for number, page in enumerate(pages) if page == "zero"}
    assert sum(extent.length for extent in found) == len(empty) * PAGE


@pytest.mark.parametrize("size", [0, PAGE, 2 * MIB, 5 * MIB])
def test_the_blocks_cover_the_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "pc.ram"
    path.write_bytes(bytes(size))
    with path.open("rb") as file:
        extents = list(blocks(file.fileno()))
        found = [extent for block in extents for extent in zeros(file.fileno(), block)[1]]
    assert sum(extent.length for extent in extents) == size
    assert found == extents


def test_a_hole_is_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "pc.ram"
    with path.open("wb+") as file:
        file.truncate(2 * MIB)
        file.seek(MIB)
        file.write(bytes(PAGE))
        file.flush()
        assert zeros(file.fileno(), Extent(0, 2 * MIB)) == (PAGE, [Extent(MIB, PAGE)])
