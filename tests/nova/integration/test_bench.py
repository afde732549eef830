"""The table of ``make bench`` that needs a Nova: it is measured, and it tells the drivers apart."""

import json
import sys
from pathlib import Path

import pytest

from support.accelerator import accelerator
from support.libvirtd import Libvirtd
from support.process import run

CHECKOUT = Path(__file__).parents[3]
DRIVERS = {"stock", "ramshelf"}


@pytest.mark.soak
def test_the_table_in_miniature(libvirtd: Libvirtd, tmp_path: Path) -> None:
    libvirtd.stop()
    argv = ("-m", "bench", "nova", "--quick", "--output", str(tmp_path))
    environment = (f"GUESTS={accelerator()}", f"PYTHONPATH={CHECKOUT}")
    run("env", *environment, sys.executable, *argv, timeout=400)
    samples = json.loads((tmp_path / "nova.json").read_text())["samples"]
    table: dict[str, dict[str, dict[str, float]]] = {}
    for sample in samples:
        table.setdefault(sample["what"], {})[sample["driver"]] = sample
    assert {what: set(drivers) for what, drivers in table.items()} == {
        "start, 256 MiB": DRIVERS,
        "start, 2 at once of 256 MiB": DRIVERS,
        "delete, 64 MiB dirty": DRIVERS,
        "live migration, 256 MiB": DRIVERS,
    }
    start, delete = table["start, 256 MiB"], table["delete, 64 MiB dirty"]
    assert start["stock"]["synced_mib"] > 250 > start["ramshelf"]["synced_mib"]
    assert start["stock"]["resident_mib"] > 250 > start["ramshelf"]["resident_mib"]
    assert delete["stock"]["written_mib"] > 60 > delete["ramshelf"]["written_mib"]  # on xfs
    assert {sample["allocated_mib"] for sample in samples} >= {256, 512}
