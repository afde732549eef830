"""What the hook of another host says of that host, in the sentence with which it refuses a probe.

It is a line of JSON. libvirt passes on what a hook prints when it refuses, in an error of at most
1023 bytes of which its own words take some 300 (VIR_ERROR_MAX_LENGTH), so the line is short. Keys
may be added; they are never renamed.
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import asdict, dataclass, fields

from ..requirements import punch_writes_back, version  # relative: ramshelf-nova's wheel has copies
from ..store.kind import Kind

_LINE = re.compile(r"ramshelf-host (\{[^{}]*\})")


class Side(enum.Enum):
    """What becomes of a guest's memory on a host."""

    FILE = "file"
    ANONYMOUS = "anonymous"
    BROKEN = "broken"
    """The host is to have a store, and has none."""


@dataclass(frozen=True)  # its fields are keywords, which only Python 3.10 can be told
class HostAnswer:
    """What a host is, by its own hook.

    ``kind`` and ``fstype`` are the store's, None where there is none; ``problem`` then is the code
    that says why. ``device`` is MAJOR:MINOR of its file system. ``configured``: file_backed_memory
    says that there is to be one. ``off``: it says that there is to be none. ``capacity_mib`` is
    what the store can hold, ``promised_mib`` what it has promised of that, and ``free_mib`` what a
    further guest may have. ``ram_mib`` is what guests may have of RAM, ``resident_mib`` what
    file-backed ones have there, and ``pinnable_mib`` what is left of it for what cannot go to the
    store (core/ram.py); ``reserved_mib`` of RAM are the host's own. ``kernel`` is Linux's release.
    ``userfault``: the kernel lets QEMU's user handle page faults (userfaultfd).
    """

    kernel: str
    kind: Kind | None = None
    fstype: str | None = None
    problem: str | None = None
    configured: bool = False
    off: bool = False
    capacity_mib: int = 0
    promised_mib: int = 0
    free_mib: int = 0
    ram_mib: int = 0
    resident_mib: int = 0
    pinnable_mib: int = 0
    userfault: bool = True
    device: str | None = None
    reserved_mib: int = 0

    @property
    def side(self) -> Side:
        """What the host makes of a guest's memory."""
        if self.off:
            return Side.ANONYMOUS
        if self.kind is not None:
            return Side.FILE
        return (
            Side.BROKEN
            if self.configured or self.problem == "store.not-mounted"
            else Side.ANONYMOUS
        )

    @property
    def discards_freely(self) -> bool:
        """Whether there is a store whose device is not written to when memory is discarded."""
        return self.fstype is not None and not punch_writes_back(self.fstype, version(self.kernel))

    def line(self) -> str:
        """Return the line that says all this."""
        values = {**asdict(self), "kind": self.kind.value if self.kind else None}
        return f"ramshelf-host {json.dumps(values, separators=(',', ':'))}"


def read_answer(text: str) -> HostAnswer | None:
    """Read the answer in what libvirt passed on.

    The result is None where there is no answer that could be understood.
    """
    match = _LINE.search(text)
    try:
        said = json.loads(match[1]) if match else {}
        known = {field.name: said[field.name] for field in fields(HostAnswer) if field.name in said}
        if known.get("kind") is not None:
            known["kind"] = Kind(known["kind"])
        return HostAnswer(**known)
    except (TypeError, ValueError):
        return None
