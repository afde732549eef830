"""``python -m bench [TABLE...]``: measure, print the tables, keep the samples as JSON."""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench import (
    CHECKOUT,
    agent,
    beside,
    end,
    hook_cost,
    immediate,
    migrate,
    nova,
    pressure,
    reread,
    start,
    steady,
    zswap,
)
from bench.guests import started
from bench.measure import Unavailable, machine
from bench.results import Result, digest, text
from support.accelerator import accelerator
from support.domains import IMAGE
from support.kvm import why_not_kvm
from support.libvirtd import Libvirtd
from support.process import run

TABLES: dict[str, ModuleType] = {
    "hook-cost": hook_cost,
    "start": start,
    "beside": beside,
    "immediate": immediate,
    "end": end,
    "steady": steady,
    "pressure": pressure,
    "reread": reread,
    "zswap": zswap,
    "agent": agent,
    "migrate": migrate,
    "nova": nova,
}
"""The modules of the tables.

Each has ``measure(daemon, quick=)``, which raises Unavailable or yields samples: dataclasses whose
floats are figures, and whose other fields say what the figures are of.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tables that are named, or all; an interrupted one keeps the samples that it has."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; default all"
    )
    parser.add_argument(
        "--quick", action="store_true", help="in miniature: tests the harness, no figures"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=CHECKOUT / "bench/results/local",
        help="directory for the JSON files",
    )
    arguments = parser.parse_args(argv)
    unknown = set(arguments.tables) - set(TABLES)
    if unknown:
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    if not Path("/run/isolated").exists():
        parser.error(
            "run it inside scripts/isolated, or with make bench: it needs a libvirtd of its own"
        )
    arguments.output.mkdir(parents=True, exist_ok=True)
    run(sys.executable, str(CHECKOUT / "scripts/guest_image.py"), str(IMAGE))
    choose_accelerator()
    daemon = Libvirtd()
    daemon.start()
    try:
        with started(daemon, "anonymous", 128, paused=True):
            pass  # libvirtd's first start of a guest takes longer
        for name in arguments.tables or TABLES:
            _measure(name, daemon, arguments.output / f"{name}.json", quick=arguments.quick)
    finally:
        daemon.reset()
        daemon.close()
    return 0


def choose_accelerator() -> None:
    """Have KVM run the guests where it can, else QEMU's own emulation; $GUESTS says otherwise."""
    if "GUESTS" in os.environ:
        return
    why = why_not_kvm(seconds=30)
    os.environ["GUESTS"] = "qemu" if why else "kvm"
    print(f"Guests are emulated (TCG): {why}.\n" if why else "Guests run under KVM.\n", flush=True)


def _measure(name: str, daemon: Libvirtd, path: Path, *, quick: bool) -> None:
    title = (TABLES[name].__doc__ or "").strip()
    begun, host, samples = time.monotonic(), machine(accelerator()), list[dict[str, Any]]()
    try:
        for sample in TABLES[name].measure(daemon, quick=quick):
            samples.append(asdict(sample))
            seconds = round(time.monotonic() - begun)
            result = Result(
                table=name, title=title, quick=quick, seconds=seconds, machine=host, samples=samples
            )
            _keep(path, json.dumps(asdict(result), indent=1))
    except (Unavailable, pytest.skip.Exception) as reason:
        print(f"{title}\nNot measured: {reason}.\n", flush=True)
        return
    print(f"{text(result)}\n-> {path}, {seconds} s\n", flush=True)
    if find_spec("matplotlib"):
        from bench.plots import draw  # noqa: PLC0415 - only `make bench` installs matplotlib

        draw(result, path.with_suffix(".svg"), digest(path))


def _keep(path: Path, content: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(content + "\n")
    os.replace(new, path)


if __name__ == "__main__":
    sys.exit(main())
