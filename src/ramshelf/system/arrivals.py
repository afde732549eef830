"""Guests whose memory would have to be backed otherwise here: noted at `migrate begin`, to be refused.

libvirt calls `migrate begin` for a guest that runs and for a definition that moves alone (virsh
migrate --offline), and says nowhere which of the two it is. For the one `start begin` follows
within the same call of libvirt's (qemuMigrationDstPrepareAny), and what definition it leaves is
written after that. The other's is written at once, and whoever starts it does so later (seen with
libvirt 9.0).
"""

from __future__ import annotations

import os

from ramshelf.system.filesystem import RUN_DIR, have_directory, read_text
from ramshelf.system.ledger import clock

_DIRECTORY = f"{RUN_DIR}/arriving"
"""A file for each such guest, by its name: when it was noted, and its definition here by then."""

_DEFINITIONS = "/etc/libvirt/qemu"
"""Where libvirt keeps the definitions, NAME.xml: a new file whenever one changes (virXMLSaveFile).
"""

_SOON = 60
"""Seconds until a guest that runs is started; libvirt takes a tenth of one, and may wait for other
hooks."""


def expect_start(name: str) -> None:
    """Note that the guest is to be refused if it comes running. What counts no more is removed."""
    have_directory(_DIRECTORY, 0o700)
    for other in os.listdir(_DIRECTORY):
        if not _counts(other):
            _remove(other)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(f"{_DIRECTORY}/{name}", flags, 0o600)
    try:
        os.write(descriptor, f"{int(clock())} {_definition(name)}".encode())
    finally:
        os.close(descriptor)


def comes_running(name: str) -> bool:
    """Whether the guest that starts is one that was noted; it is not any more."""
    counts = _counts(name)
    if counts:
        _remove(name)
    return counts


def _counts(name: str) -> bool:
    """Whether it was noted just now, and has got no definition since."""
    noted, _, definition = read_text(f"{_DIRECTORY}/{name}", "").partition(" ")
    return noted.isdecimal() and clock() - int(noted) < _SOON and definition == _definition(name)


def _definition(name: str) -> str:
    try:
        status = os.stat(f"{_DEFINITIONS}/{name}.xml")
    except FileNotFoundError:
        return "none"
    return f"{status.st_ino} {status.st_mtime_ns}"


def _remove(name: str) -> None:
    try:
        os.unlink(f"{_DIRECTORY}/{name}")
    except FileNotFoundError:
        pass
