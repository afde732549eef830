"""The harness of ``make bench``: that it measures, not what comes out."""

import os
import sys
from pathlib import Path

import pytest

from bench.measure import written_mib
from bench.results import Result, load
from support.accelerator import accelerator
from support.devices import loop_device
from support.libvirtd import Libvirtd
from support.process import run

CHECKOUT = Path(__file__).parents[2]
THINGS = {
    "beside": 1,
    "immediate": 1,
    "hook-cost": 26,
    "start": 14,
    "end": 10,
    "steady": 2,
    "pressure": 3,
    "reread": 5,
    "zswap": 12,
    "agent": 8,
    "migrate": 2,
}
"""How many rows each table has in miniature; Nova's is tested where a Nova is (tests/nova)."""

LONG = ("end", "pressure", "migrate")
"""What is left to the soak."""


def test_a_device_s_counter(host: None) -> None:  # noqa: ARG001 - cleans up
    with loop_device(16) as device:
        before = written_mib(device)
        with open(device, "wb") as file:
            file.write(os.urandom(8 << 20))
            file.flush()
            os.fsync(file.fileno())
        assert written_mib(device) - before == 8


@pytest.mark.parametrize(
    "table", [pytest.param(each, marks=[pytest.mark.soak] * (each in LONG)) for each in THINGS]
)
def test_table(table: str, libvirtd: Libvirtd, tmp_path: Path) -> None:
    libvirtd.stop()
    argv = ("-m", "bench", table, "--quick", "--output", str(tmp_path))
    environment = (f"GUESTS={accelerator()}", f"PYTHONPATH={CHECKOUT}")
    out = run("env", *environment, sys.executable, *argv).stdout
    if "Not measured" in out:
        pytest.skip(out.splitlines()[-2])
    result = load(tmp_path / f"{table}.json")
    assert result.quick
    assert result.machine["libvirt"] in out
    assert len(result.rows) == THINGS[table]
    _CHECKS.get(table, lambda _: None)(result)


def _start(result: Result) -> None:
    """Nova's element has all of the guest's memory written and allocated, nothing else has."""
    for row in result.rows:
        nova_on_disk = row.keys["backing"] == "nova" and row.keys["store"] in ("ext4", "xfs")
        assert (row.figures["written_mib"].median > 250) == nova_on_disk, row


def _pressure(result: Result) -> None:
    assert all(row.figures["rounds"].median > 0 for row in result.rows)


def _reread(result: Result) -> None:
    written = {
        (row.keys["store"], row.keys["memory"]): row.figures["written_mib"].median
        for row in result.rows
    }
    assert written["swap", "file"] > 1 > written["ext4", "file"]


def _agent(result: Result) -> None:
    assert all(row.figures["milliseconds"].median > 0 for row in result.rows)


def _migrate(result: Result) -> None:
    assert all(row.figures["moved_mib"].median > 128 for row in result.rows)


_CHECKS = {
    "agent": _agent,
    "migrate": _migrate,
    "start": _start,
    "pressure": _pressure,
    "reread": _reread,
}
