"""Guests to be refused as they arrive: their memory would have to be backed otherwise here.

They are noted at `migrate begin`. libvirt calls that for a guest that runs and for a definition
that moves alone (virsh migrate --offline), and does not say which of the two it is. For a guest
that runs, `start begin` follows within the same call of libvirt's (qemuMigrationDstPrepareAny), and
a definition that it leaves here is written after that. A definition that moves alone is written at
once, and whoever starts its guest does so later (seen with libvirt 9.0).
"""

from __future__ import annotations

import os

from ramshelf.system.filesystem import RUN_DIR, have_directory, read_text
from ramshelf.system.ledger import clock

_DIRECTORY = f"{RUN_DIR}/arriving"
"""The directory of the notes, with a file for each such guest, called by its name.

The file says when the guest was noted, and which definition of it was here by then.
"""

_DEFINITIONS = "/etc/libvirt/qemu"
"""Where libvirt keeps the definitions, as NAME.xml.

It writes a new file whenever a definition changes (virXMLSaveFile).
"""

_SOON = 60
"""Seconds until a guest that runs is started.

libvirt takes a tenth of a second, and may wait for other hooks.
"""


def expect_start(name: str) -> None:
    """Note that the guest is to be refused if it comes running.

    Notes that do not count any more are removed.
    """
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
    """Tell whether the guest that starts was noted, and remove its note if it was."""
    counts = _counts(name)
    if counts:
        _remove(name)
    return counts


def _counts(name: str) -> bool:
    """Tell whether the guest was noted just now, and has got no new definition since."""
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
