"""Memory in files that a domain's qemu:commandline gives QEMU, beside what libvirt makes for it.

libvirt knows nothing of it, so its hook does not either: no promise counts it.
"""

import json
import re
from itertools import pairwise

from ramshelf.core.domain.xml import Element, parse
from ramshelf.core.record import dataclass

_OBJECT = ("-object", "--object")
_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)([bkmgtpe]?)")
_HEXADECIMAL = re.compile(r"0x[0-9a-f]{1,16}")
_SHIFTS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}


@dataclass(frozen=True, kw_only=True)
class OwnBackend:
    """A memory-backend-file of the domain's own: the path that QEMU opens, and its size in bytes.

    ``path`` may be a directory: QEMU makes a file there and unlinks it at once (file_ram_open).
    ``size`` is 0 where it cannot be read.
    """

    path: str
    size: int


def own_backends(text: str | bytes) -> tuple[OwnBackend, ...]:
    """Return the domain's own backends from its XML, plain or inside a ``domstatus``.

    Raises InputError ``xml.malformed``.
    """
    root = parse(text)
    domain = root.find("domain") if root.tag == "domstatus" else root
    found = []
    for option, value in pairwise(_arguments(domain) if domain is not None else ()):
        if option not in _OBJECT:
            continue
        kind, properties = _properties(value)
        path = properties.get("mem-path", "")
        if kind == "memory-backend-file" and path:
            found.append(OwnBackend(path=path, size=_bytes(properties.get("size", ""))))
    return tuple(found)


def _arguments(domain: Element) -> list[str]:
    """Return the domain's own arguments for QEMU.

    libvirt writes their elements with the prefix ``qemu``.
    """
    return [argument.get("value", "") for argument in domain.each("qemu:commandline/qemu:arg")]


def _properties(value: str) -> tuple[str, dict[str, str]]:
    """Return the type and the properties of an object.

    It may be in QEMU's own notation, where ``,,`` stands for a comma, or in JSON.
    """
    if value.lstrip().startswith("{"):
        try:
            document = json.loads(value)
        except (ValueError, RecursionError):
            return "", {}
        properties = {key: str(each) for key, each in document.items()}
        return properties.pop("qom-type", ""), properties
    parts = [part.replace("\0", ",") for part in value.replace(",,", "\0").split(",")]
    properties = dict(part.partition("=")[::2] for part in parts)
    return properties.pop("qom-type", parts[0]), properties


def _bytes(size: str) -> int:
    """Return the bytes of a size, with or without a suffix, as QEMU reads it (qemu_strtosz).

    The result is 0 where the size cannot be read.
    """
    size = size.strip().lower()
    if _HEXADECIMAL.fullmatch(size):
        return int(size, 16)
    match = _SIZE.fullmatch(size)
    return int(float(match[1]) * (1 << _SHIFTS[match[2]])) if match else 0
