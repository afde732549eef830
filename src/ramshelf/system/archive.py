"""Writing an archive that nobody but its owner can read."""

import io
import os
import shlex
import tarfile
import tempfile
import time
from collections.abc import Mapping

from ramshelf.system.steps import log_step


def write_archive(path: str, directory: str, texts: Mapping[str, str]) -> None:
    """Write a tar.gz of these texts by their paths below ``directory``; its mode is 0600.

    The whole archive is there or nothing is; a file of that name is replaced. Raises OSError.
    """
    parent, name = os.path.split(os.path.abspath(path))
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=parent)  # its mode is 0600
    try:
        with open(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz") as archive:
                for member, text in texts.items():
                    content = text.encode(errors="surrogateescape")
                    info = tarfile.TarInfo(f"{directory}/{member}")
                    info.size, info.mode, info.mtime = len(content), 0o600, int(time.time())
                    archive.addfile(info, io.BytesIO(content))
            file.flush()
            os.fsync(file.fileno())
        log_step(shlex.join(("mv", temporary, path)))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
