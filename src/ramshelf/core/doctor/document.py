"""The doctor's facts as a document, for a support bundle."""

import enum
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from ramshelf.core.config import Config
from ramshelf.core.errors import RamshelfError

_LEFT_OUT = frozenset({"argv"})
"""QEMU's command line: it may hold secrets, and libvirt's log of the guest has it masked."""

_LEFT_OUT_OF_CONFIG = frozenset({"contradictions", "placement", "settings"})
"""What stands in the files as it is, with Nova's passwords."""


def as_document(value: object) -> object:
    """Return facts as what JSON can say, without what may hold secrets."""
    match value:
        case enum.Enum():
            return value.value
        case None | bool() | int() | float() | str():
            return value
        case RamshelfError():
            return {"code": value.code, "message": value.sentence}
        case AbstractSet():
            return sorted(map(str, value))
        case list() | tuple():
            return [as_document(each) for each in value]
    fields = value if isinstance(value, Mapping) else vars(value)
    left_out = _LEFT_OUT_OF_CONFIG if isinstance(value, Config) else _LEFT_OUT
    return {str(name): as_document(each) for name, each in fields.items() if name not in left_out}
