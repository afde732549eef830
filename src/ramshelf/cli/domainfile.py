"""Domain XML that the command line names: read, and named again where it cannot be used."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from ramshelf.cli.later import later
from ramshelf.core.errors import InputError, RamshelfError

if TYPE_CHECKING:
    from ramshelf.core.domain import backing
else:
    backing = later("ramshelf.core.domain.backing")

STANDARD_INPUT = "-"

_WORDS = {
    errno.ENOENT: "there is no such file",
    errno.EISDIR: "it is a directory",
    errno.EACCES: "this user may not read it",
}


def read_domain(path: str) -> bytes:
    """Return what is in the file, and no more than tells that it is too large.

    ``-`` is standard input. Raises InputError ``xml.file``.
    """
    if path == STANDARD_INPUT:
        return _read(sys.stdin.buffer)
    try:
        with open(path, "rb") as file:
            return _read(file)
    except OSError as error:
        reason = _WORDS.get(error.errno or 0) or os.strerror(error.errno or 0)
        raise InputError(
            "xml.file",
            f"{path} cannot be read: {reason}.",
            hint="Name a file with a guest's domain XML, as 'virsh dumpxml' prints it.",
            facts={"path": path},
        ) from error


def _read(file: BinaryIO) -> bytes:
    return file.read(backing.MAX_BYTES + 1)


@contextmanager
def named(path: str) -> Iterator[None]:
    """Have whatever is wrong with the XML say in which file that is."""
    try:
        yield
    except RamshelfError as error:
        if path != STANDARD_INPUT and error.code.startswith("xml."):
            error.sentence = f"{path}: {error.sentence}"
            error.facts = {**error.facts, "path": path}
        raise
