"""What people read: aligned plain text, the same in a pipe as on a terminal."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from ramshelf.core.text import printable
from ramshelf.core.units import format_size

if TYPE_CHECKING:
    from ramshelf.cli.context import Context
    from ramshelf.core.plan import Step


class Bytes(int):
    """A size in bytes that people read as ``12.5 GiB``; tables put it to the right."""

    def __str__(self) -> str:
        """Return the size in its largest unit."""
        return format_size(int(self))


def print_table(
    context: "Context", header: Sequence[str], rows: Sequence[Sequence[object]]
) -> None:
    """Print the table, without its header where ``--no-headers`` is given."""
    text = table(header, rows)
    if context.no_headers:
        text = text.partition("\n")[2]
    if text:
        click.echo(text)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return columns two spaces apart, with numbers to the right; None shows as ``-``.

    Without rows there is only the header.
    """
    cells = [["-" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    numbers = [
        bool(rows) and all(isinstance(row[index], int | float | None) for row in rows)
        for index in range(len(header))
    ]
    lines = (
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numbers, strict=True)
        )
        for line in [list(header), *cells]
    )
    return "\n".join(line.rstrip() for line in lines)


def fields(pairs: Iterable[tuple[str, object]]) -> str:
    """Return a line for each name and value, aligned; booleans as yes and no, None as ``-``.

    Sizes stand to the right of the longest of them.
    """
    lines = list(pairs)
    width = max((len(name) for name, _ in lines), default=0)
    longest = max((len(str(value)) for _, value in lines if isinstance(value, Bytes)), default=0)

    def shown(value: object) -> str:
        if isinstance(value, Bytes):
            return str(value).rjust(longest)
        if isinstance(value, bool):
            return "yes" if value else "no"
        return "-" if value is None else printable(str(value))

    return "\n".join(f"{name:{width}}  {shown(value)}" for name, value in lines)


def plan(actions: "Sequence[Step]") -> str:
    """Return what ``--dry-run`` prints.

    That is each action's reason as a comment, then the command or change.
    """
    if not actions:
        return "There is nothing to do."
    return "\n\n".join("\n".join((f"# {action.why}", *action.lines())) for action in actions)
