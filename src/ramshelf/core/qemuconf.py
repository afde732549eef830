"""libvirt's qemu.conf, and where it makes libvirt put guest memory.

The grammar is libvirt's own (virConfParse): ``key = value`` with value an integer, a string in single,
double or triple double quotes without escapes, or a list of strings in brackets; ``#`` starts a comment.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from ramshelf.core.errors import ConfigError

DEFAULT_MEMORY_BACKING_DIR = "/var/lib/libvirt/qemu/ram"

Value = int | str | tuple[str, ...]

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\n]*)
    |"{3}(?P<long>.*?)"{3}
    |"(?P<double>[^"\n]*)"
    |'(?P<single>[^'\n]*)'
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>-?\d+)
    |(?P<mark>[=\[\],])""",
    re.VERBOSE | re.DOTALL,
)


def parse_qemu_conf(text: str, path: str = "/etc/libvirt/qemu.conf") -> dict[str, Value]:
    """Keys and values; of a repeated key the last one counts, as in libvirt.

    Raises ConfigError ``config.malformed`` with path and line where libvirt would refuse the file.
    """
    tokens = _tokens(text, path)
    values: dict[str, Value] = {}
    while tokens:
        line, kind, key = tokens.pop(0)
        if kind != "word" or not tokens or tokens.pop(0)[1:] != ("mark", "="):
            raise _malformed(path, line)
        values[key] = _value(tokens, path, line)
    return values


def _tokens(text: str, path: str) -> list[tuple[int, str, str]]:
    tokens = []
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _malformed(path, line)
        kind = match.lastgroup or "space"
        if kind != "space":
            tokens.append((line, kind, match[kind]))
        line += match[0].count("\n")
        position = match.end()
    return tokens


def _value(tokens: list[tuple[int, str, str]], path: str, line: int) -> Value:
    if not tokens:
        raise _malformed(path, line)
    line, kind, text = tokens.pop(0)
    if kind == "number":
        return int(text)
    if kind in {"long", "double", "single"}:
        return text
    if (kind, text) != ("mark", "["):
        raise _malformed(path, line)
    items: list[str] = []
    while tokens:
        line, kind, text = tokens.pop(0)
        if (kind, text) == ("mark", "]"):
            return tuple(items)
        if kind in {"long", "double", "single"}:
            items.append(text)
        elif (kind, text) != ("mark", ","):
            break
    raise _malformed(path, line)


def _malformed(path: str, line: int) -> ConfigError:
    return ConfigError(
        "config.malformed",
        f"{path} line {line}: libvirt cannot read this.",
        hint="libvirt's configuration is 'key = value', strings in quotes, lists in brackets.",
        facts={"path": path, "line": line},
    )


@dataclass(frozen=True, kw_only=True)
class MemoryDirectory:
    """libvirt's effective memory backing directory.

    ``configured`` is the operator's value (or libvirt's default); ``path`` is where the guests'
    directories appear. When memory_backing_dir is set in qemu.conf, even to the default, libvirt
    appends ``libvirt/qemu`` (virQEMUDriverConfigLoadMemoryEntry).
    """

    configured: str
    path: str
    explicit: bool


def memory_directory(conf: dict[str, Value]) -> MemoryDirectory:
    """Where libvirt puts guest memory, by the parsed qemu.conf."""
    value = conf.get("memory_backing_dir")
    if not isinstance(value, str):
        return MemoryDirectory(
            configured=DEFAULT_MEMORY_BACKING_DIR,
            path=DEFAULT_MEMORY_BACKING_DIR,
            explicit=False,
        )
    configured = str(PurePosixPath(value))
    return MemoryDirectory(
        configured=configured, path=str(PurePosixPath(configured, "libvirt/qemu")), explicit=True
    )
