import mmap
from pathlib import Path

from bench.guests import resident_mib
from ramshelf.core.units import MIB


def test_of_a_mapping_what_was_touched_is_resident() -> None:
    """By the kernel's own words about this process; no other mapping here is of that size."""
    with mmap.mmap(-1, 77 * MIB) as mapping:
        mapping[: 3 * MIB] = bytes(3 * MIB)
        smaps = Path("/proc/self/smaps").read_text()
    assert 3 <= resident_mib(smaps, 77) < 77
    assert resident_mib(smaps, 78) == 0
