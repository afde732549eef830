"""What a command says besides its result, on standard error."""

from collections.abc import Iterable

from ramshelf.cli.context import tell
from ramshelf.core.findings import Finding, Severity
from ramshelf.core.text import printable


def say(notes: Iterable[Finding]) -> None:
    """Print one line for each note, as ``note:`` or ``warning:``, and one for its hint."""
    for note in notes:
        word = "warning" if note.severity is Severity.WARNING else "note"
        tell(f"{word}: {printable(note.sentence)} [{note.code}]")
        if note.hint:
            tell(f"hint: {printable(note.hint)}")


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
