"""The lowest versions that work and what each version allows, in one table.

The lowest versions are those of Nova's admin guide, file-backed-memory.

Its imports are relative: ramshelf-nova's wheel has copies of them.
"""

from __future__ import annotations

from .errors import HostError
from .record import dataclass

Version = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The lowest versions that a feature works with."""

    feature: str
    libvirt: Version
    qemu: Version


FILE_BACKING = Floor(feature="file-backed memory", libvirt=(4, 0, 0), qemu=(2, 6, 0))
DISCARD = Floor(feature="discard", libvirt=(4, 4, 0), qemu=(2, 10, 0))

VIRT_TYPES = ("kvm", "qemu")
"""Nova's virt_type values with which file-backed memory works."""

EXT4_PUNCH_DROPS_SINCE = (6, 14, 0)
"""The Linux version since which ext4 does not write a range back before it punches a hole in it."""

LONG_TERM_PIN_REFUSED_SINCE = (6, 5, 0)
"""The Linux version since which no page of a regular file can be pinned for a device to write to.

The kernel calls that FOLL_LONGTERM. Pages of a tmpfs can be pinned.
"""


def version(text: str) -> Version:
    """Return the first three numbers of a version text such as ``6.1.0-56-cloud-amd64``.

    Raises ValueError where there is no number.
    """
    numbers = "".join(letter if letter.isdecimal() else " " for letter in text).split()[:3]
    if not numbers:
        raise ValueError(f"{text!r} is not a version")
    major, minor, micro = (*map(int, numbers), 0, 0)[:3]
    return (major, minor, micro)


def libvirt_version(number: int) -> Version:
    """Return the version in libvirt's API number: major * 1,000,000 + minor * 1,000 + micro."""
    return (number // 1_000_000, number // 1_000 % 1_000, number % 1_000)


def dotted(numbers: Version) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, numbers))


def supports(floor: Floor, libvirt: Version, qemu: Version) -> bool:
    """Tell whether both are at or above the floor."""
    return libvirt >= floor.libvirt and qemu >= floor.qemu


def require(libvirt: Version, qemu: Version) -> None:
    """Refuse a host below the floors of file backing.

    Raises HostError ``versions.libvirt-old`` or ``versions.qemu-old``. Between these floors and
    those of discard a guest starts without discard.
    """
    for name, found, floor in (
        ("libvirt", libvirt, FILE_BACKING.libvirt),
        ("QEMU", qemu, FILE_BACKING.qemu),
    ):
        if found < floor:
            raise HostError(
                f"versions.{name.lower()}-old",
                f"{name} {dotted(found)} is older than {dotted(floor)}, which file-backed memory "
                "needs.",
                hint=f"Upgrade {name}.",
                facts={"version": dotted(found), "floor": dotted(floor)},
            )


def punch_writes_back(fstype: str, kernel: Version) -> bool:
    """Tell whether punching a hole (what QEMU's discard does) writes the range to the device first.

    tmpfs frees the pages; ext4 drops them since Linux 6.14; XFS and btrfs, and all that is not
    known, write back first (filemap_write_and_wait_range).
    """
    if fstype == "tmpfs":
        return False
    return not (fstype == "ext4" and kernel >= EXT4_PUNCH_DROPS_SINCE)
