"""Text that others have chosen, such as the name of a file that QEMU's user has made."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return the text with a ``?`` in place of each character that is none to be read.

    Line ends are among them, and what makes a terminal do something (ECMA-48).
    """
    return "".join(letter if letter.isprintable() else "?" for letter in text)
