"""libvirt's qemu.conf, and where it makes libvirt put guest memory.

The grammar is libvirt's own (virConfParse): ``key = value`` with value an integer, a string in single,
double or triple double quotes without escapes, or a list of strings in brackets; ``#`` starts a comment.
"""

import posixpath
import re
from dataclasses import dataclass

from ramshelf.core.errors import ConfigError

DEFAULT_MEMORY_BACKING_DIR = "/var/lib/libvirt/qemu/ram"

Value = int | str | tuple[str, ...]

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\n]*)
    |"{3}(?P<long>.*?)"{3}
    |"(?P<double>[^"\n]*)"
    |'(?P<single>[^'\n]*)'
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>[-+]?\d+)
    |(?P<mark>[=\[\],;])""",
    re.VERBOSE | re.DOTALL,
)


def parse_qemu_conf(text: str, path: str = "/etc/libvirt/qemu.conf") -> dict[str, Value]:
    """Keys and values; of a repeated key the first one counts, as in libvirt (virConfGetValue).

    Raises ConfigError ``config.malformed`` with path and line where libvirt would refuse the file.
    """
    tokens = _tokens(text, path)
    values: dict[str, Value] = {}
    while tokens:
        line, kind, key = tokens.pop(0)
        if kind != "word" or not tokens or tokens.pop(0)[1:] != ("mark", "="):
            raise _malformed(path, line)
        values.setdefault(key, _value(tokens, path, line))
        if tokens and tokens[0][1:] == ("mark", ";"):
            tokens.pop(0)
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
    configured = posixpath.normpath(value)
    return MemoryDirectory(
        configured=configured, path=posixpath.join(configured, "libvirt/qemu"), explicit=True
    )


_SET = re.compile(r"[ \t]*memory_backing_dir[ \t]*=")
_FORMER = "#ramshelf-former: "
_OWN = "  # ramshelf"


def set_memory_directory(text: str, directory: str) -> str:
    """The qemu.conf with this memory_backing_dir; a former setting is kept as a comment."""
    kept = [_FORMER + line if _SET.match(line) else line for line in text.splitlines(keepends=True)]
    if kept and not kept[-1].endswith("\n"):
        kept[-1] += "\n"
    return "".join(kept) + f'memory_backing_dir = "{directory}"{_OWN}\n'


def restore_memory_directory(text: str) -> str:
    """The qemu.conf without what set_memory_directory did; all other lines stay byte for byte."""
    return "".join(
        line.removeprefix(_FORMER)
        for line in text.splitlines(keepends=True)
        if not (_SET.match(line) and line.rstrip("\n").endswith(_OWN))
    )
