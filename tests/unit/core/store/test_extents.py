"""How large the records of memory files' extents grow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.store.extents import extents
from ramshelf.core.units import GIB, MIB


@pytest.mark.parametrize(
    ("file_system", "block", "mib"),
    [
        pytest.param("xfs", 4096, 8.26, id="125 of 251 in each block"),
        pytest.param("xfs", 1024, 9.14, id="29 of 59, four blocks a page"),
        pytest.param("xfs", 65536, 0.63, id="2045 of 4091, sixteen pages a block"),
        pytest.param("ext4", 4096, 15.28, id="68 of 340 in each block"),
        pytest.param("ext4", 1024, 17.07, id="16 of 84, four blocks a page"),
        pytest.param("tmpfs", 4096, 16, id="a huge page"),
    ],
)
def test_each_page_of_a_gib_may_be_an_extent(file_system: str, block: int, mib: float) -> None:
    assert extents(file_system, GIB, block=block) / MIB == pytest.approx(mib, abs=0.01)


def test_a_cluster_is_taken_for_each_block_of_records() -> None:
    assert extents("ext4", GIB, cluster=65536) == 16 * extents("ext4", GIB)
    assert extents("ext4", GIB, cluster=4096) == extents("ext4", GIB)


@given(st.sampled_from(["ext4", "xfs"]), st.lists(st.integers(0, 1 << 40), max_size=8))
def test_many_files_need_hardly_more_than_one_of_their_size(
    file_system: str, sizes: list[int]
) -> None:
    together = extents(file_system, sum(sizes))
    assert together <= sum(extents(file_system, size) for size in sizes) + 8 * 4096
    assert together >= sum(extents(file_system, size) for size in sizes) - len(sizes) * 8 * 4096


@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
def test_a_file_of_one_extent_needs_no_record_but_its_inode(file_system: str) -> None:
    assert extents(file_system, 0) == extents(file_system, 4096) == 0
