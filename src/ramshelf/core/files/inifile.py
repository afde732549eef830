"""A parser of oslo.config's file format, just enough to find where a value stands.

oslo.config itself reads and checks the values. It does not say which file a winning value came
from, nor which keys nobody registered, and it is too much for the hook.
"""

from __future__ import annotations

from ramshelf.core.errors import ConfigError
from ramshelf.core.setting import Setting


def parse_ini(text: str, path: str) -> tuple[Setting, ...]:
    """Return all settings in order, read as oslo.config reads them.

    The model is iniparser.BaseParser and cfg.ConfigParser. Section names are normalized as there:
    lower case, except DEFAULT. Raises ConfigError ``config.malformed`` naming path and line.
    """
    settings: list[Setting] = []
    section = ""
    key: str | None = None
    value: list[str] = []
    start = 0

    def finish() -> None:
        nonlocal key
        if key is not None:
            if not section:
                raise _malformed(path, start, "a key stands before the first section")
            settings.append(
                Setting(path=path, section=section, key=key, value="\n".join(value), line=start)
            )
        key = None

    for number, raw in enumerate(_lines(text), start=1):
        line = raw.rstrip()
        if not line:
            finish()
        elif line[0] in " \t":
            if key is None:
                raise _malformed(path, number, "a continuation line continues nothing")
            value.append(line.lstrip())
        elif line[0] == "[":
            finish()
            section = _section(line, path, number)
        elif line[0] in "#;":
            finish()
        else:
            finish()
            positions = [line.find(mark) for mark in "=:" if mark in line]
            if not positions or not line[: min(positions)].strip():
                raise _malformed(path, number, "there is no KEY = VALUE")
            position = min(positions)
            key, value, start = (
                line[:position].strip(),
                [_unquote(line[position + 1 :].strip())],
                number,
            )
    finish()
    return tuple(settings)


def _lines(text: str) -> list[str]:
    """Return lines as a text file gives them.

    str.splitlines also breaks at form feeds and Unicode separators.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _section(line: str, path: str, number: int) -> str:
    name = line[1:-1]
    if not line.endswith("]") or not name:
        raise _malformed(path, number, "a section must be written [NAME]")
    return name if name == "DEFAULT" else name.lower()


def _unquote(value: str) -> str:
    if value and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def _malformed(path: str, line: int, what: str) -> ConfigError:
    return ConfigError(
        "config.malformed",
        f"{path} line {line}: {what}.",
        hint="The format is that of nova.conf: [SECTION] lines and KEY = VALUE lines.",
        facts={"path": path, "line": line},
    )
