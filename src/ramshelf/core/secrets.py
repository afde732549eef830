"""Secrets kept out of what is said.

Sentences, facts and log lines may be read by others than root.
"""

import re
from collections.abc import Iterable

from ramshelf.core.errors import RamshelfError

HIDDEN = "***"
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s\"'@:]*:[^/?#\s\"']*@")
"""User and password in a URL, up to the last @ before the path (RFC 3986, section 3.2.1)."""

_NAMES = (
    r"passw|passcode|passphrase|(?<![a-z])pass(?![a-z])|adminpass|secret|token|credential|private"
    r"|api_?key|auth_?key"
)
_SECRET_KEY = re.compile(_NAMES, re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"""(?<![\w.-])((?>[\w.-]*?(?:{_NAMES}))[\w.-]*+\\?["']?\s*[=:]\s*)"""
    r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\\".*?\\"|[^\s,;&<>"'}]+)""",
    re.IGNORECASE,
)
"""A key that names a secret and its value, as in shells, JSON, XML, headers and QEMU's options.

It looks at each word once: QEMU's user may write lines that are one word of hundreds of KiB.
"""

_SCHEME = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]+", re.IGNORECASE)
_KEY_BLOCK = re.compile(r"-----BEGIN [^-]*-----.*?(-----END [^-]*-----|\Z)", re.DOTALL)


def is_secret(key: str) -> bool:
    """Tell whether the name of a setting says that its value is a secret."""
    return bool(_SECRET_KEY.search(key))


def secret_values(settings: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return the secret values of these settings (key and value), by the names of the keys."""
    values = {value.strip() for key, value in settings if is_secret(key)}
    return frozenset(values - {""})


def hide(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the text without these secrets and without credentials in URLs.

    A secret is hidden where it stands as a word.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    return _CREDENTIALS.sub(f"{HIDDEN}@", text)


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text of another program's without these secrets, and without what looks like one.

    That is what ``hide`` finds, values after names such as ``password=``, HTTP credentials and
    blocks of keys (RFC 7468). It is for texts of which no list can say what they may hold.
    """
    text = _KEY_BLOCK.sub(HIDDEN, hide(text, secrets))
    return _ASSIGNED.sub(rf"\1{HIDDEN}", _SCHEME.sub(rf"\1 {HIDDEN}", text))


def without_secrets(error: RamshelfError, secrets: Iterable[str]) -> RamshelfError:
    """Return the same error with neither these secrets nor credentials in what it says."""
    facts = {
        name: hide(fact, secrets) if isinstance(fact, str) else fact
        for name, fact in error.facts.items()
    }
    return type(error)(error.code, hide(error.sentence, secrets), hint=error.hint, facts=facts)
