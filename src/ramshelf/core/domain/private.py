"""Guests that map memory files so that what they write does not reach the files."""

from collections.abc import Iterator

from ramshelf.core.catalog import finding
from ramshelf.core.domain.memory import Guest
from ramshelf.core.findings import Finding
from ramshelf.core.units import MIB, align_up, to_mib


def private_mapping(guest: Guest) -> Iterator[Finding]:
    """Yield a finding for a guest whose memory files do not keep what it writes."""
    if guest.private_bytes:
        size = to_mib(align_up(guest.private_bytes, MIB))
        yield finding(
            "guest.private",
            f"Guest {guest.name} maps {size} MiB of its memory files privately: what it writes "
            "there becomes anonymous memory, besides its place on the store.",
            hint=f"Stop it; 'ramshelf guest start {guest.name}' then gives it shared access.",
            guest=guest.name,
            private_mib=size,
        )
