"""What libvirt knows of the programs that guests run in, by its cache of their capabilities.

libvirt has asked every emulator before it starts a guest with it (virQEMUCapsCacheLookup), as
QEMU's user and not as root. So an emulator is never run here to learn its version.
"""

from __future__ import annotations

import hashlib
import os
import stat

from ramshelf.core.domain.xml import parse
from ramshelf.core.errors import InputError
from ramshelf.core.requirements import libvirt_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ramshelf.core.requirements import Version

_CACHE = "/var/cache/libvirt/qemu/capabilities"


def emulator_version(path: str) -> Version | None:
    """Return the version of the QEMU at this path; None where libvirt's cache does not say.

    The files in the cache are named after the emulator's path (virFileCacheGetFileName). The
    directory above the cache belongs to QEMU's user, so what is not root's is not believed.
    """
    name = hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()
    try:
        root = parse(_read(f"{_CACHE}/{name}.xml"))
        return (
            libvirt_version(int(root.findtext("version")))
            if root.findtext("emulator") == path
            else None
        )
    except (OSError, InputError, ValueError):
        return None


def _read(path: str) -> bytes:
    """Return the contents of a regular file that root alone can have written. Raises OSError."""
    # The open must not block: a pipe may have been put there.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
            raise PermissionError(path)
        return file.read()
