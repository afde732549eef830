#!/usr/bin/env python3
"""figures.py [--check]: write what the documentation quotes of `make bench`, and its pictures.

The quotes come from bench/results/*.json and stand between two marks in the pages. With --check it
changes nothing, needs no matplotlib, and fails where one is out of date.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import ceil
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT)]

from bench.measure import Row, Series, number  # noqa: E402 - bench is no installed package
from bench.results import SPREAD, Result, digest, load  # noqa: E402
from ramshelf.core.ram import HostRam, ram_demand  # noqa: E402
from ramshelf.core.store.kind import Kind  # noqa: E402
from ramshelf.core.store.ledger import Note  # noqa: E402
from ramshelf.core.units import GIB  # noqa: E402

EXPLANATION = CHECKOUT / "docs/explanation"
PAGES = (
    CHECKOUT / "README.md",
    EXPLANATION / "which-store.md",
    EXPLANATION / "measurements.md",
)
PICTURES = EXPLANATION / "figures"
RESULTS = CHECKOUT / "bench/results"

_MARKED = re.compile(
    r"(<!-- from here written by scripts/figures.py: ([\w-]+) -->\n).*?(<!-- to here -->)",
    re.DOTALL,
)


def part(name: str) -> str:
    """Return what stands between the marks called ``name``.

    That is one of _PARTS, a result's picture, or, with "-tables" behind its name, its tables.
    """
    if name in _PARTS:
        return _PARTS[name]()
    if name.endswith(_TABLES):
        return tables(_result(name.removesuffix(_TABLES)))
    result = _result(name)
    machine = f"[Machine {_letter(result)}](#the-machines)"
    return f"![{_plain(result.title)}](figures/{name}.svg)\n\n{machine}.\n"


_TABLES = "-tables"
_ACROSS = {
    "start": "guest_mib",
    "end": "dirty_mib",
    "nova": "driver",
    "hook-cost": "guests",
    "agent": "guests",
}
"""The tables of many rows, with the key whose values become columns.

Each is told by one table for each figure.
"""

_UNITS = {"guest_mib": " MiB", "dirty_mib": " MiB", "guests": " guests"}


def tables(result: Result) -> str:
    """Return a result's tables, folded; rows in which all is 0 are only counted."""
    if result.table not in _ACROSS:
        return _folded("The figures", result.rows)
    figures = result.rows[0].figures
    return "\n".join(_folded(_words(each), _wide(result, each)) for each in figures)


def _folded(title: str, rows: list[Row]) -> str:
    told = [row for row in rows if any(str(series) != "0" for series in row.figures.values())]
    if not told:
        return f"{title}: 0 throughout.\n"
    left = len(rows) - len(told)
    more = "" if not left else f"\n{left} more, with 0 throughout.\n" if left > 1 else _ONE_MORE
    table = _table([{**row.keys, **row.figures} for row in told])
    return f"<details><summary>{title}</summary>\n\n{table}\n{more}\n</details>\n"


_ONE_MORE = "\nOne more, with 0 throughout.\n"


def _proof() -> str:
    """Return the one sentence of the README: the start of the largest guest on ext4."""
    start = _result("start")
    largest = _most(start, "guest_mib")
    nova, ours = (
        _figures(start, store="ext4", backing=backing, guest_mib=largest)
        for backing in ("nova", "ramshelf")
    )
    return (
        f"> A {largest // 1024} GiB guest on ext4 starts in **{_median(nova['seconds'])} s, writing"
        f" {_gib(nova['written_mib'])}**, with the element that Nova writes, and in "
        f"**{_median(ours['seconds'])} s, writing {_median(ours['written_mib'])} MiB**, with "
        f"ramshelf.\n>\n> <sub>Measured: {_guests(start)}, {_stores(start)}, "
        f"{_cpus(start)}. [All figures](docs/explanation/measurements.md)</sub>\n"
    )


def _headline() -> str:
    """Return what starts of the largest guest cost, and an end of the dirtiest."""
    start, end = _result("start"), _result("end")
    largest, dirtiest = _most(start, "guest_mib"), _most(end, "dirty_mib")
    start_keys = {"guest_mib": largest}
    end_keys = {"ending": "destroy", "dirty_mib": dirtiest}
    rows = [
        {
            "": what,
            **{
                title: _cost(_figures(result, store=place or store, backing=backing, **keys))
                for title, (backing, place) in _PEERS.items()
            },
        }
        for what, result, store, keys in (
            (f"start of {largest // 1024} GiB on ext4", start, "ext4", start_keys),
            (f"start of {largest // 1024} GiB on tmpfs over swap", start, "swap", start_keys),
            (f"end with {dirtiest // 1024} GiB dirty on xfs", end, "xfs", end_keys),
        )
    ]
    return (
        f"{_table(rows)}\n\n![{_plain(start.title)}](docs/explanation/figures/start.svg)\n\n"
        f"<sub>Medians; anonymous memory lies on no store. Starts: {_beside(start)}. The end: "
        f"{_beside(end)}. Machines, spread and the other side: "
        "[measurements](docs/explanation/measurements.md).</sub>\n"
    )


def _beside(result: Result) -> str:
    return (
        f"{_guests(result)}, {_stores(result)}, machine {_letter(result)} ({_cpus(result)}), "
        f"ramshelf {result.machine['ramshelf']}"
    )


_PEERS = {
    "anonymous memory": ("anonymous", "swap"),
    "Nova's element": ("nova", ""),
    "ramshelf": ("ramshelf", ""),
}
"""The headline's columns: a backing, and the store beside which it was measured if only there."""


def _cost(figures: Mapping[str, Series]) -> str:
    return f"{_median(figures['seconds'])} s, {_median(figures['written_mib'])} MiB written"


def _wear() -> str:
    """Return what each kind writes when RAM is there, when it is short, and when sets are read."""
    steady, pressure, reread = map(_result, ("steady", "pressure", "reread"))
    stores = ("swap", "ext4", "xfs")
    size, seconds = _most(steady, "set_mib"), _most(steady, "seconds")
    rows: list[Mapping[str, object]] = [
        {
            "MiB written": f"a guest rewrites {size} MiB for {seconds} s, RAM to spare",
            **{store: _rewritten(_row(steady, store=store)) for store in stores},
        },
        {
            "MiB written": "four guests fill twice the RAM that they get; their hot sets fit",
            **{store: _median(_short(pressure, store)) for store in stores},
        },
        {
            "MiB written": "a set twice as large as its RAM, read three times",
            **{
                store: f"{_median(figures['written_mib'])} (in {_median(figures['seconds'])} s)"
                for store in stores
                for figures in (_figures(reread, store=store, memory="file"),)
            },
        },
    ]
    letters = {_letter(result) for result in (steady, pressure, reread)}
    where = " and ".join(sorted(letters))
    return (
        f"{_table(rows)}\n\nMedians, {_guests(steady)}, {_stores(steady)}; machine {where} of "
        "[the measurements](measurements.md).\n"
    )


def _rewritten(row: Row) -> str:
    guests = str(row.keys["guests"]).count("+") + 1
    more = f" (by {guests} such guests)" if guests > 1 else ""
    return f"{_median(row.figures['written_mib'])}{more}"


def _short(pressure: Result, store: str) -> Series:
    """Return what is written while guests fill their memory, and in the time after."""
    samples = [
        float(one["filling_mib"]) + float(one["written_mib"])
        for one in pressure.samples
        if (one["store"], one["backing"], one["limit"]) == (store, "ramshelf", "half")
    ]
    return Series.of(samples)


def _sizing() -> str:
    """Return what hosts need that are to run guests of twice their RAM."""
    rows = [
        {
            "RAM": f"{ram} GiB",
            "guests of 8 GiB": f"{guests}, {8 * guests} GiB",
            "device for swap": f"{8 * guests} GiB",
            "for ext4": f"{ceil(8 * guests * _ASK['ext4'])} GiB",
            "for xfs": f"{ceil(8 * guests * _ASK['xfs'])} GiB",
            "RAM not for guests' pages: swap": _gib(needs["swap"]),
            "ext4": _gib(needs["ext4"]),
            "xfs": _gib(needs["xfs"]),
        }
        for ram in (64, 256, 1024)
        for guests in (2 * ram // 8,)
        for needs in ({name: _needs(name, ram, guests) for name in ("swap", "ext4", "xfs")},)
    ]
    return f"{_table(rows)}\n"


_ASK = {"ext4": 1.025, "xfs": 1.02}
"""What to ask for on a disk, for the records of extents and for what mkfs takes."""


def _needs(name: str, ram_gib: int, guests: int) -> float:
    """Return the MiB of RAM that guests of 8 GiB with four vCPUs need besides their pages."""
    swap = 8 * guests * GIB if name == "swap" else 0
    kind = Kind.SWAP if swap else Kind.DISK
    host = HostRam(
        size=ram_gib * GIB, huge_pages=0, reserved=0, swap=swap, kind=kind, file_system=name
    )
    note = Note(name="", uuid="", domain_id=0, promised=8 * GIB, memory=8 * GIB, vcpus=4)
    return ram_demand([note] * guests, host).total / 2**20


def _machines() -> str:
    lines = [f"- **{letter}**: {words}.\n" for words, letter in _lettered().items()]
    return f"{''.join(lines)}\n{SPREAD}\n"


def _ran() -> str:
    """Return what ran the guests and what the stores lay on, for each machine."""
    ways: dict[str, list[str]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        result = _result(path.stem)
        letters = ways.setdefault(f"{_guests(result)}, {_stores(result)}", [])
        if _letter(result) not in letters:
            letters.append(_letter(result))
    return "".join(
        f"**Machine{'s' * (len(letters) > 1)} {', '.join(letters)}: {way}.**\n"
        for way, letters in ways.items()
    )


_PARTS: dict[str, Callable[[], str]] = {
    "proof": _proof,
    "headline": _headline,
    "wear": _wear,
    "sizing": _sizing,
    "ran": _ran,
    "machines": _machines,
}


@cache
def _result(name: str) -> Result:
    path = RESULTS / f"{name}.json"
    result = load(path)
    if result.quick:
        raise SystemExit(f"{path} was measured with --quick: no figures to quote")
    return result


def _row(result: Result, **keys: object) -> Row:
    """Return the row that has these values, among others; ValueError unless there is just one."""
    (found,) = (
        row for row in result.rows if all(row.keys[key] == value for key, value in keys.items())
    )
    return found


def _figures(result: Result, **keys: object) -> Mapping[str, Series]:
    return _row(result, **keys).figures


def _most(result: Result, key: str) -> int:
    return max(int(row.keys[key]) for row in result.rows)


def _median(series: Series) -> str:
    return number(series.median)


def _gib(mib: Series | float) -> str:
    return f"{number((mib.median if isinstance(mib, Series) else mib) / 1024)} GiB"


def _lettered() -> dict[str, str]:
    """Return the machines that the results were measured on, each with a letter."""
    words = dict.fromkeys(_machine(_result(path.stem)) for path in sorted(RESULTS.glob("*.json")))
    return {each: chr(ord("A") + place) for place, each in enumerate(words)}


def _letter(result: Result) -> str:
    return _lettered()[_machine(result)]


def _machine(result: Result) -> str:
    machine = result.machine
    return (
        f"ramshelf {machine['ramshelf']} on {machine['distribution']}, Linux {machine['kernel']}, "
        f"libvirt {machine['libvirt']}, QEMU {machine['qemu'].partition(',')[0]}, Python "
        f"{machine['python']}, cgroup v{machine['cgroup']}; {_cpus(result)}, "
        f"{number(machine['ram_mib'] / 1024)} GiB of RAM; {_guests(result)}; "
        f"{_stores(result)}"
    )


def _cpus(result: Result) -> str:
    return f"{result.machine['cpu']}, {result.machine['cpus']} CPUs"


def _stores(result: Result) -> str:
    return f"stores on {result.machine['devices']}"


def _guests(result: Result) -> str:
    kvm = result.machine["qemu"].endswith(", KVM")
    return "guests run by KVM" if kvm else "guests emulated (TCG, no KVM)"


def _wide(result: Result, figure: str) -> list[Row]:
    across = _ACROSS[result.table]
    wide: dict[tuple[object, ...], Row] = {}
    for row in result.rows:
        keys = {name: value for name, value in row.keys.items() if name != across}
        one = wide.setdefault(tuple(keys.values()), Row(keys=keys, figures={}))
        column = {f"{row.keys[across]}{_UNITS.get(across, '')}": row.figures[figure]}
        wide[tuple(keys.values())] = Row(keys=keys, figures={**one.figures, **column})
    return list(wide.values())


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    header = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[_words(name) for name in header], ["---"] * len(header)]
    lines += [[str(row.get(name, "")) for name in header] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _words(name: str) -> str:
    """Return a figure's or a key's name as one reads it."""
    return name.replace("_", " ").replace(" mib", " MiB")


def _plain(title: str) -> str:
    return title.replace("`", "")


DRAWINGS = (PICTURES / "overview.svg", PICTURES / "life.svg")
"""The pictures that were drawn by hand, in the light theme's colours."""

_DARK = {
    "#1f2328": "#f0f6fc",
    "#59636e": "#9198a1",
    "#b7bfc8": "#656c76",
    "#f6f8fa": "#151b23",
    "#dbe9f4": "#12304a",
    "#0072b2": "#58a6ff",
    "#d55e00": "#f0883e",
    "#00795a": "#3fb68b",
}
"""What the drawing's colours become in the dark theme."""


def dark(drawing: str) -> str:
    """Return a drawing in the dark theme; KeyError where it has a colour that has none there."""
    return re.sub(r"#[0-9a-f]{6}\b", lambda match: _DARK[match[0]], drawing)


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
    for drawing in DRAWINGS:
        on_dark, in_dark = drawing.with_stem(f"{drawing.stem}-dark"), dark(drawing.read_text())
        if not on_dark.exists() or on_dark.read_text() != in_dark:
            stale.append(on_dark)
            if not check:
                on_dark.write_text(in_dark)
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
