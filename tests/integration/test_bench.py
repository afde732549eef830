"""The harness of ``make bench``: that it measures, not what comes out."""

import json
import os
import sys
from pathlib import Path

from bench.measure import traffic
from support.devices import loop_device
from support.libvirtd import Libvirtd
from support.process import run

CHECKOUT = Path(__file__).parents[2]


def test_a_device_s_traffic_is_counted(host: None) -> None:  # noqa: ARG001 - cleans up
    with loop_device(16) as device, traffic(device) as so_far:
        with open(device, "wb") as file:
            file.write(os.urandom(8 << 20))
            file.flush()
            os.fsync(file.fileno())
        assert so_far().written_mib == 8


def test_hook_cost(libvirtd: Libvirtd, tmp_path: Path) -> None:
    libvirtd.stop()
    argv = ("-m", "bench", "hook-cost", "--quick", "--output", str(tmp_path))
    out = run("env", f"PYTHONPATH={CHECKOUT}", sys.executable, *argv, timeout=120).stdout
    result = json.loads((tmp_path / "hook-cost.json").read_text())
    assert [(row["store"], row["files"]) for row in result["rows"]] == [("ext4", 0), ("ext4", 50)]
    for row in result["rows"]:
        series = [row[name] for name in ("true", "python", "hook", "start_with", "start_without")]
        assert all(0 < one["minimum"] <= one["low"] <= one["median"] <= one["high"] for one in series)
        assert row["hook"]["median"] > row["true"]["median"]
    assert result["machine"]["libvirt"] in out
