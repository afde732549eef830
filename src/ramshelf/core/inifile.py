"""oslo.config's file format, just enough to find where a value stands.

oslo.config itself reads and checks the values; it does not say which file a winning value came from, nor
which keys nobody registered, and it is too much for the hook.
"""

from ramshelf.core.config import Setting
from ramshelf.core.errors import ConfigError


def parse_ini(text: str, path: str) -> tuple[Setting, ...]:
    """All settings in order; continuation lines are joined as oslo.config does (BaseParser).

    Raises ConfigError ``config.malformed`` naming path and line.
    """
    settings: list[Setting] = []
    section = ""
    key: str | None = None
    value: list[str] = []

    def finish() -> None:
        if key is not None:
            settings.append(Setting(path=path, section=section, key=key, value="\n".join(value).strip()))

    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.rstrip()
        if not line:
            finish()
            key, value = None, []
        elif line[0] in "#;":
            continue
        elif line[0].isspace():
            if key is None:
                raise _malformed(path, number, "a continuation line continues nothing")
            value.append(line.strip())
        elif line[0] == "[":
            finish()
            key, value = None, []
            if not line.endswith("]") or not line[1:-1].strip():
                raise _malformed(path, number, "a section must be written [NAME]")
            section = line[1:-1].strip()
        else:
            finish()
            positions = [line.find(mark) for mark in "=:" if mark in line]
            if not positions or not line[: min(positions)].strip():
                raise _malformed(path, number, "there is no KEY = VALUE")
            if not section:
                raise _malformed(path, number, "a key stands before the first section")
            position = min(positions)
            key, value = line[:position].strip(), [_unquote(line[position + 1 :].strip())]
    finish()
    return tuple(settings)


def _unquote(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def _malformed(path: str, line: int, what: str) -> ConfigError:
    return ConfigError(
        "config.malformed",
        f"{path} line {line}: {what}.",
        hint="The format is that of nova.conf: [SECTION] lines and KEY = VALUE lines.",
        facts={"path": path, "line": line},
    )
