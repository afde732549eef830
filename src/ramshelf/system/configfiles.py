"""The configuration files on this host, found and read.

Their values are checked by ``settings`` (oslo.config). This module needs the standard library only,
since the hook reads the same files.
"""

from __future__ import annotations

import os
import stat

from ramshelf.core.errors import ConfigError
from ramshelf.core.files.inifile import parse_ini

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ramshelf.core.setting import Setting


def existing_files(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the files among ``paths``, and those in the directories among them.

    Of a directory these are the ``*.conf`` files, sorted by name. What is not there is passed over.
    Raises ConfigError ``config.unreadable``.
    """
    found: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            found += directory_files(path)
        elif os.path.lexists(path):
            found.append(path)
    return tuple(found)


def directory_files(directory: str) -> tuple[str, ...]:
    """Return the files of a directory that oslo.config reads: ``*.conf``, not hidden, by name.

    Raises ConfigError ``config.missing`` or ``config.unreadable``.
    """
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError as error:
        raise _cannot("config.missing", directory, "there is no such directory") from error
    except OSError as error:
        raise _cannot("config.unreadable", directory, _reason(error)) from error
    return tuple(
        os.path.join(directory, name) for name in names if name.endswith(".conf") and name[0] != "."
    )


def read_settings(files: Iterable[str]) -> tuple[Setting, ...]:
    """Return all settings of these files, in order; the last of a ``section.key`` counts.

    Raises ConfigError ``config.missing``, ``config.unreadable`` or ``config.malformed``, which
    names the file.
    """
    return tuple(setting for path in files for setting in parse_ini(_read(path), path))


def _read(path: str) -> str:
    try:
        # oslo.config reads the file again, and would then find a pipe empty. /dev/null is empty
        # both times.
        if stat.S_ISFIFO(os.stat(path).st_mode):
            raise _cannot("config.unreadable", path, "it is a pipe, not a file")
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError as error:
        raise _cannot("config.missing", path, "there is no such file") from error
    except UnicodeDecodeError as error:
        raise _cannot("config.malformed", path, "it is not text in UTF-8") from error
    except OSError as error:
        raise _cannot("config.unreadable", path, _reason(error)) from error
    if "\0" in text:
        raise _cannot("config.malformed", path, "it is not a text file")
    return text


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()


def _cannot(code: str, path: str, reason: str) -> ConfigError:
    hints = {
        "config.missing": "Check what --config-file and --config-dir name.",
        "config.unreadable": (
            "nova.conf is usually readable for root and nova only: run ramshelf as root."
            if os.geteuid() != 0
            else "See who may read it, and whether its file system answers."
        ),
        "config.malformed": (
            "The format is that of nova.conf: [SECTION] lines and KEY = VALUE lines."
        ),
    }
    return ConfigError(
        code,
        f"The configuration file {path} cannot be read: {reason}.",
        hint=hints[code],
        facts={"path": path},
    )
