"""libvirt's qemu.conf, and where it makes libvirt put guest memory.

The grammar is libvirt's own (virConfParse): ``key = value`` with value an integer, a string in
single, double or triple double quotes without escapes, or a list of strings in brackets; ``#``
starts a comment.
"""

from __future__ import annotations

import posixpath

from ramshelf.core.errors import ConfigError
from ramshelf.core.record import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    Value = int | str | tuple[str, ...]
    _Token = tuple[str, str, int]
else:
    Value = object  # For whoever imports it: such a union needs Python 3.10.

DEFAULT_MEMORY_BACKING_DIR = "/var/lib/libvirt/qemu/ram"

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_DIGITS = frozenset("0123456789")
_BLANK = frozenset(" \t\r\n#")


def parse_qemu_conf(text: str, path: str = "/etc/libvirt/qemu.conf") -> dict[str, Value]:
    """Return keys and values; of a repeated key the first counts, as in libvirt (virConfGetValue).

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
    """Return all tokens as (line, kind, text); white space and comments are no tokens."""
    tokens = []
    position, line = 0, 1
    while position < len(text):
        kind, value, end = _token(text, position)
        if not kind:
            raise _malformed(path, line)
        if kind != "space":
            tokens.append((line, kind, value))
        line += text.count("\n", position, end)
        position = end
    return tokens


def _token(text: str, position: int) -> _Token:
    """Return the kind of the token at this position, its text, and where it ends.

    The kind is '' where there is no token.
    """
    first = text[position]
    if first in _BLANK:
        return "space", "", _past_blank(text, position)
    if first in "\"'":
        return _string(text, position)
    if first in "=[],;":
        return "mark", first, position + 1
    letters, kind = (_LETTERS | _DIGITS, "word") if first in _LETTERS else (_DIGITS, "number")
    end = position + 1
    while end < len(text) and text[end] in letters:
        end += 1
    value = text[position:end]
    if kind == "number" and not _DIGITS.issuperset(value.lstrip("-+") or "-"):
        kind = ""
    return kind, value, end


def _past_blank(text: str, position: int) -> int:
    """Return where white space and comments end; as a rule they are nearly all of the file."""
    while position < len(text) and text[position] in _BLANK:
        position = _past(text, "\n", position) if text[position] == "#" else position + 1
    return position


def _string(text: str, position: int) -> _Token:
    """Return the string at this position as a token.

    It is in three double quotes, and may have line ends then, or in one quote of either kind.
    """
    if text.startswith('"""', position) and (end := text.find('"""', position + 3)) > 0:
        return "string", text[position + 3 : end], end + 3
    end = text.find(text[position], position + 1)
    value = text[position + 1 : end]
    return ("", "", position) if end < 0 or "\n" in value else ("string", value, end + 1)


def _past(text: str, mark: str, position: int) -> int:
    """Return where the next ``mark`` is, or where the text ends."""
    end = text.find(mark, position)
    return len(text) if end < 0 else end


def _value(tokens: list[tuple[int, str, str]], path: str, line: int) -> Value:
    if not tokens:
        raise _malformed(path, line)
    line, kind, text = tokens.pop(0)
    if kind == "number":
        return int(text)
    if kind == "string":
        return text
    if (kind, text) != ("mark", "["):
        raise _malformed(path, line)
    items: list[str] = []
    while tokens:
        line, kind, text = tokens.pop(0)
        if (kind, text) == ("mark", "]"):
            return tuple(items)
        if kind == "string":
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


def sets(text: str, key: str) -> bool:
    """Tell whether qemu.conf may set this key: whether it stands on a line that is no comment.

    This is for the hook, which need not parse what libvirt ships: half a thousand lines of
    comments.
    """
    at = text.find(key)
    while at >= 0:
        if not text[text.rfind("\n", 0, at) + 1 : at].lstrip().startswith("#"):
            return True
        at = text.find(key, at + 1)
    return False


def memory_directory(conf: dict[str, Value]) -> MemoryDirectory:
    """Return where libvirt puts guest memory, by the parsed qemu.conf."""
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


_FORMER = "#ramshelf-former: "
_OWN = "  # ramshelf"


def set_memory_directory(text: str, directory: str) -> str:
    """Return the qemu.conf with this memory_backing_dir; a former setting is kept as a comment."""
    kept = [
        _FORMER + line if _sets_directory(line) else line for line in text.splitlines(keepends=True)
    ]
    if kept and not kept[-1].endswith("\n"):
        kept[-1] += "\n"
    return "".join(kept) + f'memory_backing_dir = "{directory}"{_OWN}\n'


def restore_memory_directory(text: str) -> str:
    """Undo set_memory_directory in a qemu.conf; all other lines stay byte for byte."""
    return "".join(
        line.removeprefix(_FORMER)
        for line in text.splitlines(keepends=True)
        if not (_sets_directory(line) and line.rstrip("\n").endswith(_OWN))
    )


def _sets_directory(line: str) -> bool:
    key, assigned, _ = line.partition("=")
    return bool(assigned) and key.strip(" \t") == "memory_backing_dir"


@dataclass(frozen=True, kw_only=True)
class OwnDirectory:
    """An edit of qemu.conf after which ramshelf sets this memory_backing_dir, or none for ''."""

    directory: str = ""

    def __call__(self, text: str) -> str:
        """Return the qemu.conf with the edit made; all other lines stay byte for byte."""
        others = restore_memory_directory(text)
        return set_memory_directory(others, self.directory) if self.directory else others
