"""What a call of the hook and whoever reads its answer agree on.

ramshelf-nova's wheel has a copy of this module.
"""

from __future__ import annotations

PREPARE, START, STARTED = "prepare begin", "start begin", "started begin"
MIGRATE, RELEASE = "migrate begin", "release end"
"""The phases of a guest's life at which the hook does something, in libvirt's words.

Each is OPERATION SUBOPERATION. The script lets no other through, and ``PREPARE`` for probes alone;
``RELEASE`` is handled by the script itself. What each begins is in hook/call.py.
"""

PASSED, VETOED = 0, 10
"""Exit statuses for the script; 1 and 2 are Python's own, for programs that do not even begin."""

PROBE = "ramshelf-probe-"
"""How the name of a guest begins that never starts.

The hook refuses such a guest, and so shows that it is called.
"""

HOST_PROBE = f"{PROBE}host-"
"""How the name of a probe begins that asks what the host is to a guest that may come."""

COMING_PROBE = f"{PROBE}coming-"
"""How the name of the same probe begins when its guest is about to come.

The guest's UUID follows. The guest has its claim in Placement already.
"""


def probe_xml(name: str) -> str:
    """Return the XML of a guest of this name that cannot start, and that the hook refuses before.

    It cannot start whether or not the hook is called. libvirt asks its hooks before it looks for
    the kernel.
    """
    return f"""\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>1</memory>
  <os><type>hvm</type><kernel>/nonexistent/{name}</kernel></os>
</domain>
"""


MARKS = (
    "<memoryBacking",  # a source, an access mode, huge pages, locked
    "memAccess=",  # of a NUMA cell
    "<memory model=",  # a memory device, which has an access mode of its own
    "<hostdev",
    "type='hostdev'",  # an interface, or what a network gave to it
    "type='vdpa'",
    "type='vhostvdpa'",
    "type='nvme'",  # a disk, or what lies below one
    "<launchSecurity",
    "<qemu:arg",  # anything, a memory backend or a file with one included
)
"""What libvirt writes in the XML of a guest whose memory may be in files or pinned."""


def concerned(xml: bytes) -> bool:
    """Tell whether a guest's memory may be in files or pinned, by the text of its XML.

    This is for XML that is not understood, and it errs towards yes. The hook's script has the same
    rule.
    """
    return not xml.startswith(b"<domain") or any(mark.encode() in xml for mark in MARKS)


CONCERNED, UNCONCERNED = "concerned", "unconcerned"
"""What the hook prints on a line of its own as soon as it has read a guest's XML.

So the script knows it, however the hook ends afterwards. What else the hook prints comes after this
line.
"""


def first_line(xml: bytes) -> bytes:
    """Return the line that says whether the guest is concerned."""
    return f"{CONCERNED if concerned(xml) else UNCONCERNED}\n".encode()


AFTERCARE = "aftercare"
"""The file beside the copied package that names the Python of the installation.

That Python runs what needs libvirt.
"""
