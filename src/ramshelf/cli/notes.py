"""What a command says besides its result, on standard error."""

from collections.abc import Iterable

import click

from ramshelf.core.findings import Finding, Severity
from ramshelf.core.text import printable


def say(notes: Iterable[Finding]) -> None:
    """Print one line for each note, as ``note:`` or ``warning:``, and one for its hint."""
    for note in notes:
        word = "warning" if note.severity is Severity.WARNING else "note"
        click.echo(f"{word}: {printable(note.sentence)} [{note.code}]", err=True)
        if note.hint:
            click.echo(f"hint: {printable(note.hint)}", err=True)


def documents(notes: Iterable[Finding]) -> list[dict[str, object]]:
    """Return the notes for ``--json``."""
    return [
        {
            "code": note.code,
            "severity": note.severity.value,
            "message": note.sentence,
            "hint": note.hint,
        }
        for note in notes
    ]
