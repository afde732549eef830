"""PSI and the device's counters, by samples of real hosts."""

from ramshelf.system.counters import (
    pages_swapped_in,
    pages_swapped_out,
    sectors_read,
    sectors_written,
)
from ramshelf.system.procfs import Pressure, parse_pressure, pressure

MEMORY = """\
some avg10=0.05 avg60=0.51 avg300=0.51 total=57083823
full avg10=0.02 avg60=0.18 avg300=0.12 total=27555697
"""
OLD_CPU = "some avg10=0.05 avg60=0.51 avg300=0.51 total=57083823\n"
NVME = (
    "   26483     7129  2174312    10542    52384    43311 11273418   183227        0    41072  "
    " 193770\n"
)
VMSTAT = "nr_free_pages 1\npswpin 7\npswpout 9\n"


def test_totals_in_seconds() -> None:
    assert parse_pressure(MEMORY) == Pressure(waiting=57.083823, stalled=27.555697)
    assert parse_pressure(OLD_CPU) == Pressure(waiting=57.083823, stalled=0.0)


def test_a_kernel_that_tells_none() -> None:
    assert pressure("nothing-of-that-name") is None


def test_counters() -> None:
    assert (sectors_read(NVME), sectors_written(NVME)) == (2174312, 11273418)
    assert (pages_swapped_in(VMSTAT), pages_swapped_out(VMSTAT)) == (7, 9)
    assert pages_swapped_in("") == 0
