"""The hook's log below /run: a line of JSON for each decision, and bounded."""

from __future__ import annotations

import os
import time

from ramshelf.system.filesystem import RUN_DIR, have_directory

LOG = f"{RUN_DIR}/hook.log"
_LIMIT = 1 << 20
"""Bytes after which the log is set aside as hook.log.1, replacing the one before."""

_LONGEST = 8 << 10
"""The most characters of a text that are logged."""


def record(event: str, **facts: object) -> None:
    """Add a line to the log.

    Errors are passed over: what cannot be logged is no reason to refuse a guest.
    """
    line = as_json({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **facts})
    try:
        have_directory(RUN_DIR, 0o755)
        log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    except OSError:
        return
    try:
        os.write(log, f"{line}\n".encode())
        if os.fstat(log).st_size > _LIMIT:
            os.replace(LOG, f"{LOG}.1")
    except OSError:
        pass
    finally:
        os.close(log)


def as_json(value: object) -> str:
    """Return the value as JSON in ASCII.

    It is made by hand, since to import json takes the hook as long as half of its decision.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{_quoted(str(key))}: {as_json(each)}" for key, each in value.items())
            + "}"
        )
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(as_json(each) for each in value) + "]"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    return '"' + "".join(map(_escaped, text[:_LONGEST])) + '"'


def _escaped(character: str) -> str:
    code = ord(character)
    if character in '"\\':
        return f"\\{character}"
    if 0x20 <= code < 0x7F:
        return character
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
