#!/usr/bin/env python3
"""figures.py [--check]: write what the documentation quotes of `make bench`, and its pictures.

The quotes come from bench/results/*.json and stand between two marks in the pages. With --check it
changes nothing, needs no matplotlib, and fails where one is out of date.
"""

import re
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT)]

from bench.measure import Row  # noqa: E402 - bench is no installed package
from bench.results import SPREAD, Result, digest, load  # noqa: E402

PAGES = (CHECKOUT / "README.md", CHECKOUT / "docs/explanation/which-store.md")
PICTURES = CHECKOUT / "docs/explanation/figures"
RESULTS = CHECKOUT / "bench/results"

_MARKED = re.compile(
    r"(<!-- from here written by scripts/figures.py: ([\w-]+) -->\n).*?(<!-- to here -->)",
    re.DOTALL,
)


def part(name: str) -> str:
    """Return what stands between the marks called ``name``: a table, "machine" or "headline"."""
    if name == "machine":
        first = min(RESULTS.glob("*.json"), default=None)
        if first is None:
            return _NOT_YET
        return f"{_machine(load(first))} {SPREAD} A table from another machine says so.\n"
    if name == "headline":
        return _headline()
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return _NOT_YET
    result = load(path)
    if result.quick:
        raise SystemExit(f"{path} was measured with --quick: no figures to quote")
    picture = f"![{result.title}](figures/{name}.svg)\n"
    if result.machine != load(min(RESULTS.glob("*.json"))).machine:
        picture += f"\n{_machine(result)}\n"
    if name not in _ACROSS:
        return f"{picture}\n{_table(result.rows)}\n"
    figures = result.rows[0].figures
    return picture + "".join(
        f"\n{_words(each)}:\n\n{_table(_wide(result, each))}\n" for each in figures
    )


_NOT_YET = "Not measured yet: `sudo make bench`.\n"
_ACROSS = {"start": "guest_mib", "end": "dirty_mib", "nova": "driver"}
"""The tables of many rows, with the key whose values become columns.

Each is told by one table for each figure.
"""


def _headline() -> str:
    """Return a table with the start of the largest guest and the end of the dirtiest."""
    paths = {name: RESULTS / f"{name}.json" for name in ("start", "end")}
    if not all(path.exists() for path in paths.values()):
        return _NOT_YET
    start, end = (load(path) for path in paths.values())
    largest = max(int(row.keys["guest_mib"]) for row in start.rows)
    dirtiest = max(int(row.keys["dirty_mib"]) for row in end.rows)
    ends = {
        (row.keys["store"], row.keys["backing"]): row.figures
        for row in end.rows
        if (row.keys["ending"], row.keys["dirty_mib"]) == ("destroy", dirtiest)
    }
    columns = {"seconds": "seconds", "written_mib": "MiB written"}
    rows = [
        Row(
            keys={"store": row.keys["store"], "memory": row.keys["backing"]},
            figures={
                f"{what}: {title}": figures[name]
                for what, figures in (
                    (f"start of {largest // 1024} GiB", row.figures),
                    (
                        f"end with {dirtiest / 1024:g} GiB dirty",
                        ends[row.keys["store"], row.keys["backing"]],
                    ),
                )
                for name, title in columns.items()
            },
        )
        for row in start.rows
        if row.keys["guest_mib"] == largest and (row.keys["store"], row.keys["backing"]) in ends
    ]
    if start.machine == end.machine:
        return f"{_table(rows)}\n\n{_machine(start)} {SPREAD}\n"
    machines = f"{_machine(start, 'Starts measured')} {_machine(end, 'Ends measured')}"
    return f"{_table(rows)}\n\n{machines} {SPREAD}\n"


def _wide(result: Result, figure: str) -> list[Row]:
    across = _ACROSS[result.table]
    wide: dict[tuple[object, ...], Row] = {}
    for row in result.rows:
        keys = {name: value for name, value in row.keys.items() if name != across}
        one = wide.setdefault(tuple(keys.values()), Row(keys=keys, figures={}))
        unit = " MiB" if across.endswith("_mib") else ""
        column = {f"{row.keys[across]}{unit}": row.figures[figure]}
        wide[tuple(keys.values())] = Row(keys=keys, figures={**one.figures, **column})
    return list(wide.values())


def _table(rows: list[Row]) -> str:
    header = list(dict.fromkeys(name for row in rows for name in (*row.keys, *row.figures)))
    lines = [[_words(name) for name in header], ["---"] * len(header)]
    lines += [[str({**row.keys, **row.figures}.get(name, "")) for name in header] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _words(name: str) -> str:
    """Return a figure's or a key's name as one reads it."""
    return name.replace("_", " ").replace(" mib", " MiB")


def _machine(result: Result, what: str = "Measured") -> str:
    return (
        f"{what} on: "
        + ", ".join(f"{name} {value}" for name, value in result.machine.items())
        + "."
    )


def _stale_pictures() -> list[tuple[Path, Path]]:
    """Return the results whose pictures do not show them, and the pictures."""
    found = []
    for path in sorted(RESULTS.glob("*.json")):
        picture = PICTURES / f"{path.stem}.svg"
        if not picture.exists() or digest(path) not in picture.read_text():
            found.append((path, picture))
    return found


def main() -> int:
    """Write the parts and pictures, or check them."""
    check = sys.argv[1:] == ["--check"]
    stale = []
    for path, picture in _stale_pictures():
        stale.append(picture)
        if not check:
            from bench.plots import draw  # noqa: PLC0415 - matplotlib only where pictures are drawn

            PICTURES.mkdir(exist_ok=True)
            draw(load(path), picture, digest(path))
    for page in PAGES:
        old = page.read_text()
        new = _MARKED.sub(lambda match: match[1] + part(match[2]) + match[3], old)
        if new != old:
            stale.append(page)
            if not check:
                page.write_text(new)
    if check:
        for path in stale:
            print(f"{path} is out of date: run scripts/figures.py", file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
