"""``python -m bench [TABLE...]``: measure, print the tables, write the figures as JSON."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import CHECKOUT, hook_cost
from bench.measure import document
from ramshelf.cli.output import table
from support.domains import IMAGE
from support.libvirtd import Libvirtd
from support.process import run

TABLES = {"hook-cost": hook_cost}
"""Each has measure(daemon, quick=) -> rows (dataclasses) and table(rows) -> header, cells."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tables that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; default all")
    parser.add_argument("--quick", action="store_true", help="few repetitions: tests the harness, no figures")
    parser.add_argument(
        "--output", type=Path, default=CHECKOUT / "bench/results/local", help="directory for the JSON files"
    )
    arguments = parser.parse_args(argv)
    unknown = set(arguments.tables) - set(TABLES)
    if unknown:
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    if not Path("/run/isolated").exists():
        parser.error("run it inside scripts/isolated, or with make bench: it needs a libvirtd of its own")
    arguments.output.mkdir(parents=True, exist_ok=True)
    run(sys.executable, str(CHECKOUT / "scripts/guest_image.py"), str(IMAGE))
    daemon = Libvirtd()
    daemon.start()
    try:
        for name in arguments.tables or TABLES:
            _measure(name, daemon, arguments.output, quick=arguments.quick)
    finally:
        daemon.reset()
        daemon.close()
    return 0


def _measure(name: str, daemon: Libvirtd, output: Path, *, quick: bool) -> None:
    module = TABLES[name]
    rows = module.measure(daemon, quick=quick)
    result = document(name, rows, quick=quick)
    path = output / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    machine = result["machine"]
    print(f"{(module.__doc__ or '').strip()}")
    print("Milliseconds: median (middle half).")
    print(", ".join(f"{key} {value}" for key, value in machine.items()))  # type: ignore[attr-defined]
    print(table(*module.table(rows)))
    print(f"-> {path}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
