"""Sizes: bytes inside, MiB in reports, a unit demanded on the command line."""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40
PIB = 1 << 50
EIB = 1 << 60

_FACTORS = {"k": KIB, "m": MIB, "g": GIB, "t": TIB}

_DIGITS = 20
"""The digits of the largest number that libvirt takes (64 bits)."""

# The units of libvirt's <memory unit=...>: bytes, decimal and binary ones (virScaleInteger).
_LIBVIRT_UNITS = {
    "b": 1,
    "bytes": 1,
    "kb": 10**3,
    "k": KIB,
    "kib": KIB,
    "mb": 10**6,
    "m": MIB,
    "mib": MIB,
    "gb": 10**9,
    "g": GIB,
    "gib": GIB,
    "tb": 10**12,
    "t": TIB,
    "tib": TIB,
    "pb": 10**15,
    "p": PIB,
    "pib": PIB,
    "eb": 10**18,
    "e": EIB,
    "eib": EIB,
}


def parse_size(text: str) -> int:
    """Return the bytes of a size such as ``64G``, ``512MiB`` or ``1.5T``; units are binary.

    Raises ValueError for anything without a unit, negative, or zero.
    """
    size = text.strip().lower()
    if size.endswith("b"):
        size = size[:-1].removesuffix("i")
    number, factor = size[:-1].rstrip(), _FACTORS.get(size[-1:])
    whole, point, fraction = number.partition(".")
    if factor is None or not whole.isdecimal() or not (fraction.isdecimal() or not point):
        raise ValueError(f"{text!r} is not a size with a unit, such as 64G or 512MiB")
    bytes_ = int(float(number) * factor)
    if bytes_ <= 0:
        raise ValueError(f"{text!r} is not more than zero")
    return bytes_


def libvirt_bytes(value: str, unit: str | None) -> int:
    """Return the bytes of a libvirt scaled integer; the default unit is KiB (virDomainParseMemory).

    Raises ValueError for a number or unit that libvirt does not know.
    """
    factor = _LIBVIRT_UNITS.get((unit or "KiB").strip().lower())
    if factor is None:
        raise ValueError(f"unknown memory unit {unit!r}")
    digits = value.strip()
    if digits.startswith("-"):
        raise ValueError(f"memory size {value!r} is negative")
    if not (digits.isascii() and digits.removeprefix("+").isdigit() and len(digits) <= _DIGITS):
        raise ValueError(f"memory size {value!r} is no number")
    return int(digits) * factor


def to_mib(size: int) -> int:
    """Return the whole MiB in ``size`` bytes, rounded down."""
    return size // MIB


def align_up(size: int, alignment: int) -> int:
    """Return ``size`` rounded up to a multiple of ``alignment``."""
    return -(-size // alignment) * alignment


def format_size(size: int) -> str:
    """Return a size for people to read, in the largest binary unit of which it has at least one."""
    number, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if round(number, 1) < KIB:
            break
        number, unit = number / KIB, larger
    return f"{number:.1f}".removesuffix(".0") + f" {unit}"
