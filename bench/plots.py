"""The tables as pictures, for readers who do not want to read numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from bench.measure import Row, Series
from bench.results import Result

mpl.rcParams.update(
    {
        "svg.hashsalt": "ramshelf",  # the same figures make the same file
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
    }
)

COLOURS = {
    "ramshelf": "#0072b2",
    "file": "#0072b2",
    "nova": "#d55e00",
    "default": "#e69f00",
    "anonymous": "#999999",
    "memfd": "#009e73",
    "stock": "#d55e00",
    "stock + hook": "#e69f00",
}
"""One colour for each backing in all pictures.

They are Okabe and Ito's, which the colour-blind can tell apart.
"""


def draw(result: Result, path: Path, digest: str) -> None:
    """Write a table's picture as SVG, with the digest of what it shows."""
    figure = PLOTS[result.table](result.rows)
    figure.savefig(path, format="svg", metadata={"Date": None, "Description": digest})
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def _start(rows: Sequence[Row]) -> Figure:
    stores = _values(rows, "store")
    figure = Figure(figsize=(10, 5), layout="constrained")
    grid = figure.subplots(2, len(stores), sharex=True, sharey="row", squeeze=False)
    titles = {"seconds": "seconds to start", "written_mib": "MiB written by it"}
    for line, (name, title) in zip(grid, titles.items(), strict=True):
        line[0].set_ylabel(title)
        for axes, store in zip(line, stores, strict=True):
            for backing in _values(rows, "backing"):
                found = _where(rows, store=store, backing=backing) or _where(rows, backing=backing)
                sizes = [int(row.keys["guest_mib"]) / 1024 for row in found]
                series = [row.figures[name] for row in found]
                axes.errorbar(
                    sizes,
                    [one.median for one in series],
                    yerr=_errors(series),
                    label=backing,
                    color=COLOURS[backing],
                    marker="o",
                    markersize=3,
                )
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
    for axes in grid[0]:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    for axes in grid[1]:
        axes.set_yscale("symlog", linthresh=10)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("guest, GiB")
    for axes, store in zip(grid[0], stores, strict=True):
        axes.set_title(store)
    figure.legend(
        *grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False
    )
    return figure


def _end(rows: Sequence[Row]) -> Figure:
    """Draw virsh destroy with the most dirty above, and each ending on the disk kinds below."""
    figure = Figure(figsize=(10, 9), layout="constrained")
    upper, lower = figure.subplots(2, 2, height_ratios=(2, 3))
    most, least = (choose(int(row.keys["dirty_mib"]) for row in rows) for choose in (max, min))
    destroyed = _where(rows, ending="destroy", dirty_mib=most)
    for axes, name, title in zip(
        upper, ("written_mib", "seconds"), ("MiB written", "seconds"), strict=True
    ):
        _bars(axes, destroyed, name, ("store", "backing"))
        axes.set_title(f"{title}: virsh destroy, {most} MiB dirty")
    for axes, store in zip(lower, ("ext4", "xfs"), strict=True):
        _groups(
            axes, _where(rows, store=store, dirty_mib=least), "written_mib", "ending", "backing"
        )
        axes.set_title(f"MiB written: each ending on {store}, {least} MiB dirty")
        axes.set_xlim(0, 1.25 * least)
    handles = lower[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _steady(rows: Sequence[Row]) -> Figure:
    return _panels(
        rows,
        {"written_mib": "MiB written in the time", "rounds": "rounds of rewriting"},
        "store",
        "guests",
    )


def _pressure(rows: Sequence[Row]) -> Figure:
    titles = {
        "rounds": "guests' progress: rounds",
        "written_mib": "MiB written meanwhile",
        "filling_mib": "MiB written while filling",
    }
    return _panels(rows, titles, "store", "backing", "limit")


def _reread(rows: Sequence[Row]) -> Figure:
    return _panels(
        rows, {"written_mib": "MiB written by three reads", "seconds": "seconds"}, "store", "memory"
    )


def _zswap(rows: Sequence[Row]) -> Figure:
    titles = {
        "written_mib": "MiB written",
        "pool_mib": "MiB of RAM zswap took",
        "seconds": "seconds",
    }
    return _panels(rows, titles, "content", "memory", "zswap")


def _hook(rows: Sequence[Row]) -> Figure:
    return _panels(rows, {"milliseconds": "milliseconds"}, "store", "guests", "what")


def _beside(rows: Sequence[Row]) -> Figure:
    return _panels(rows, {"ratio": "times as long as an anonymous guest"}, "store", "guest_mib")


def _immediate(rows: Sequence[Row]) -> Figure:
    return _panels(rows, {"ratio": "times as long as without the hook"}, "store", "guest_mib")


def _agent(rows: Sequence[Row]) -> Figure:
    titles = {"milliseconds": "milliseconds of CPU time", "share": "percent of one core"}
    return _panels(rows, titles, "what", "interval", "guests")


def _migrate(rows: Sequence[Row]) -> Figure:
    titles = {
        "seconds": "seconds",
        "downtime_seconds": "seconds of it stopped",
        "moved_mib": "MiB moved",
    }
    return _panels(rows, titles, "store", "backing", "guest_mib", "guest")


def _nova(rows: Sequence[Row]) -> Figure:
    """Draw with logarithmic scales.

    From the smallest start to the largest it is a factor of a hundred, also of MiB.
    """
    titles = {"seconds": "seconds", "synced_mib": "MiB written"}
    stores = _values(rows, "store")
    figure = Figure(figsize=(10, 9), layout="constrained")
    grid = figure.subplots(len(stores), len(titles), sharex="col", squeeze=False)
    for line, store in zip(grid, stores, strict=True):
        for axes, (name, title) in zip(line, titles.items(), strict=True):
            _groups(axes, _where(rows, store=store), name, "what", "driver")
            axes.set_title(f"{title}, {store}")
    grid[0][0].set_xscale("log")
    grid[0][1].set_xscale("symlog", linthresh=1)
    for axes in grid[0]:
        axes.margins(x=0.15)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    handles = grid[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _panels(rows: Sequence[Row], titles: dict[str, str], *keys: str) -> Figure:
    figure = Figure(figsize=(10, 0.8 + 0.22 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    for one, (name, title) in zip(axes, titles.items(), strict=True):
        _bars(one, rows, name, keys)
        one.set_title(title)
    return figure


def _bars(axes: Axes, rows: Sequence[Row], name: str, keys: Sequence[str]) -> None:
    """Draw a bar for each row, from the top down, with its spread and its number."""
    series = [row.figures[name] for row in rows]
    colours = [_colour(row) for row in rows]
    labels = [_label(row, keys) for row in rows]
    bars = axes.barh(
        range(len(rows)), [one.median for one in series], xerr=_errors(series), color=colours
    )
    axes.bar_label(bars, [str(one).partition(" ")[0] for one in series], padding=3, fontsize=8)
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.15)
    axes.set_xlim(left=min(0, *(one.low for one in series)))
    if name.endswith("_mib"):
        # The little that file systems note is not to look like much.
        axes.set_xlim(right=max(1, axes.get_xlim()[1]))


def _groups(axes: Axes, rows: Sequence[Row], name: str, key: str, colour: str) -> None:
    """Draw a group of bars for each value of ``key``, with one bar for each value of ``colour``."""
    groups, members = _values(rows, key), _values(rows, colour)
    height = 0.8 / max(1, len(members))
    for number, member in enumerate(members):
        found = _where(rows, **{colour: member})
        places = [groups.index(str(row.keys[key])) + (number + 0.5) * height - 0.4 for row in found]
        series = [row.figures[name] for row in found]
        medians = [one.median for one in series]
        bars = axes.barh(
            places, medians, height, xerr=_errors(series), color=COLOURS[member], label=member
        )
        axes.bar_label(bars, [str(one).partition(" ")[0] for one in series], padding=3, fontsize=7)
    axes.set_yticks(range(len(groups)), groups)
    axes.set_ylim(len(groups) - 0.5, -0.5)


def _colour(row: Row) -> str:
    names = (str(row.keys.get(key, "")) for key in ("backing", "memory", "guests"))
    return next((COLOURS[name] for name in names if name in COLOURS), COLOURS["ramshelf"])


def _errors(series: Sequence[Series]) -> list[list[float]]:
    return [[one.median - one.low for one in series], [one.high - one.median for one in series]]


def _label(row: Row, keys: Sequence[str]) -> str:
    words = {"none": "no limit", "half": "half the RAM", "on": "zswap", "off": "no zswap"}
    return ", ".join(words.get(text := str(row.keys[key]), text) for key in keys)


def _values(rows: Sequence[Row], key: str) -> list[str]:
    return list(dict.fromkeys(str(row.keys[key]) for row in rows))


def _where(rows: Sequence[Row], **keys: str | int) -> list[Row]:
    return [row for row in rows if all(row.keys[key] == value for key, value in keys.items())]


PLOTS: dict[str, Callable[[Sequence[Row]], Figure]] = {
    "start": _start,
    "end": _end,
    "steady": _steady,
    "pressure": _pressure,
    "reread": _reread,
    "zswap": _zswap,
    "hook-cost": _hook,
    "beside": _beside,
    "immediate": _immediate,
    "agent": _agent,
    "migrate": _migrate,
    "nova": _nova,
}
