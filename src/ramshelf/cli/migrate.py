"""``ramshelf guest migrate``: the check, the move, and what is told of them."""

import sys

import click

from ramshelf.cli.context import Context, tell
from ramshelf.cli.notes import documents, say
from ramshelf.core.migration.live import LiveOptions, Progress
from ramshelf.core.migration.verdict import Verdict, Way
from ramshelf.core.units import MIB, format_size
from ramshelf.node.migration.cold import move_cold
from ramshelf.node.migration.destination import Move, look_at_move
from ramshelf.node.migration.live import Moved, migrate
from ramshelf.system.hypervisor import Hypervisor


def run(
    context: Context,
    name: str,
    destination: str,
    live_options: LiveOptions,
    *,
    check: bool,
    offline: bool,
    timeout: float,
) -> int:
    """Check or move the guest, and return the exit status."""
    way = Way.COLD if offline else Way.POSTCOPY if live_options.postcopy else Way.LIVE
    with Hypervisor(context.uri) as here, Hypervisor(destination, elsewhere=True) as there:
        move = look_at_move(here, there, context.config, name)
        if check:
            context.emit(_verdict_document(move), lambda: _tell_verdict(move, way))
            return 0 if move.verdict.possible(way) else 1
        line = _Line(shown=sys.stderr.isatty() and not context.as_json)
        try:
            if offline:
                moved = move_cold(
                    here,
                    there,
                    context.config,
                    move,
                    timeout=timeout,
                    progress=lambda waited: line.show(
                        f"Waiting for {name} to shut down: {waited:.0f} of {timeout:.0f} s"
                    ),
                )
            else:
                moved = migrate(
                    here,
                    there,
                    context.config,
                    move,
                    live_options,
                    progress=lambda figures: line.show(_figures(name, figures)),
                )
        finally:
            line.clear()
    context.report(_moved_document(moved), lambda: _tell_moved(moved))
    return 0


class _Line:
    """A line of a terminal that is written over."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown

    def show(self, text: str) -> None:
        if self._shown:
            tell(f"\r{text}\033[K", nl=False)

    def clear(self) -> None:
        if self._shown:
            tell("\r\033[K", nl=False)


def _figures(name: str, figures: Progress) -> str:
    downtime = f", downtime {figures.downtime * 1000:.0f} ms expected" if figures.downtime else ""
    return (
        f"{name}: {format_size(figures.sent)} sent, {format_size(figures.remaining)} of "
        f"{format_size(figures.total)} left, {format_size(figures.rate)}/s{downtime}"
    )


def _tell_verdict(move: Move, asked: Way) -> None:
    verdict = move.verdict
    ways = tuple(way for way in Way if way is asked or way is not Way.POSTCOPY)
    for way in ways:
        word = "possible" if verdict.possible(way) else "not possible"
        click.echo(f"{move.domain.name} to {move.there.name}, {way.value}: {word}")
    for reason in verdict.reasons:
        barred = ", ".join(way.value for way in ways if way in reason.bars)
        if barred:
            click.echo(f"against {barred}: {reason.sentence} [{reason.code}]")
            click.echo(f"  hint: {reason.hint}")


def _verdict_document(move: Move) -> dict[str, object]:
    return {
        "name": move.domain.name,
        "host": move.there.name,
        **{_key(way): move.verdict.possible(way) for way in Way},
        "discard": move.verdict.discard,
        "reasons": _reasons(move.verdict),
    }


def _reasons(verdict: Verdict) -> list[dict[str, object]]:
    return [
        {
            "code": reason.code,
            "message": reason.sentence,
            "hint": reason.hint,
            "bars": [_key(way) for way in Way if way in reason.bars],
        }
        for reason in verdict.reasons
    ]


def _key(way: Way) -> str:
    return way.name.lower()


def _moved_document(moved: Moved) -> dict[str, object]:
    figures = moved.figures
    return {
        "name": moved.name,
        "host": moved.host,
        "how": _key(moved.way),
        "seconds": round(moved.seconds, 3),
        "sent_mib": round(figures.sent / MIB, 1) if figures else None,
        "downtime_ms": (
            round(figures.downtime * 1000) if figures and figures.downtime is not None else None
        ),
        "notes": documents(moved.notes),
    }


def _tell_moved(moved: Moved) -> None:
    say(moved.notes)
    if moved.way is Way.COLD:
        click.echo(f"Guest {moved.name} is on {moved.host} now, after {moved.seconds:.1f} s.")
        return
    click.echo(f"Guest {moved.name} runs on {moved.host} now, after {moved.seconds:.1f} s.")
    if moved.figures is not None:
        downtime = moved.figures.downtime
        held = "" if downtime is None else f"; it was held for {downtime * 1000:.0f} ms"
        click.echo(f"{format_size(moved.figures.sent)} sent{held}.")
