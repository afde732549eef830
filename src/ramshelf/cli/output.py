"""Tables for people: aligned plain text, the same in a pipe as on a terminal."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns two spaces apart, numbers to the right; None shows as ``-``. No rows: only the header."""
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
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
