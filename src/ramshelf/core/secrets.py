"""Secrets kept out of what is said.

Sentences, facts and log lines may be read by others than root.
"""

import re
from collections.abc import Iterable

from ramshelf.core.errors import RamshelfError

_HIDDEN = "***"
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s\"'@]*:[^/?#\s\"']*@")
"""User and password in a URL, up to the last @ before the path (RFC 3986, section 3.2.1)."""

_SECRET_KEY = re.compile(r"password|passcode|secret|token|credential|private", re.IGNORECASE)


def secret_values(settings: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return the secret values of these settings (key and value), by the names of the keys."""
    values = {value.strip() for key, value in settings if _SECRET_KEY.search(key)}
    return frozenset(values - {""})


def hide(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the text without these secrets and without credentials in URLs.

    A secret is hidden where it stands as a word.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", _HIDDEN, text)
    return _CREDENTIALS.sub(f"{_HIDDEN}@", text)


def without_secrets(error: RamshelfError, secrets: Iterable[str]) -> RamshelfError:
    """Return the same error with neither these secrets nor credentials in what it says."""
    facts = {
        name: hide(fact, secrets) if isinstance(fact, str) else fact
        for name, fact in error.facts.items()
    }
    return type(error)(error.code, hide(error.sentence, secrets), hint=error.hint, facts=facts)
