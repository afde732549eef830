"""Real guests: a Debian kernel and busybox that report over the serial port.

See scripts/guest_image.py for what they say and do.
"""

import os
import xml.etree.ElementTree as ET
from contextlib import suppress
from glob import glob
from pathlib import Path

from support.accelerator import accelerator
from support.process import HANG, wait_until

IMAGE = Path("/run/guest")
"""Where the ``libvirtd`` fixture puts the kernel and the initramfs, which any user may read."""

KERNEL_WORDS = "console=ttyS0 quiet panic=-1 cryptomgr.notests nowatchdog"
"""The words for every guest's kernel, without self-tests of ciphers and without a watchdog.

Those self-tests take a tenth of the kernel's start, and on a busy host a CPU seems to hang for a
while.
"""

FILE_BACKED = "<source type='file'/><access mode='shared'/>"


def domain_xml(
    name: str,
    memory_mib: int = 128,
    *,
    dirty_mib: int | str = 0,
    memory_backing: str = FILE_BACKED,
    machine: str = "pc",
    top: str = "",
    devices: str = "",
    balloon: str = "<memballoon model='none'/>",
    cpu: str = "",
    options: str = "",
    virt_type: str = "",
    vcpus: int = 1,
) -> str:
    """Return the XML of a guest that dirties ``dirty_mib`` (or "all") of its memory.

    ``top`` goes below <domain>, ``devices`` below <devices>, ``cpu`` is the whole element, and
    ``options`` are further words for the guest's kernel command line. ``virt_type`` is
    accelerator() where it is not given.
    """
    backing = f"<memoryBacking>{memory_backing}</memoryBacking>" if memory_backing else ""
    words = f"{KERNEL_WORDS} {f'ramshelf.dirty={dirty_mib}' if dirty_mib else ''} {options}"
    return f"""\
<domain type='{virt_type or accelerator()}'>
  <name>{name}</name>
  <memory unit='MiB'>{memory_mib}</memory>
  {backing}
  <vcpu>{vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{IMAGE}/vmlinuz</kernel>
    <initrd>{IMAGE}/initramfs</initrd>
    <cmdline>{words.rstrip()}</cmdline>
  </os>
  <features><acpi/></features>
  {cpu}
  {top}
  <devices>
    <controller type='usb' model='none'/>
    {balloon}
    <serial type='file'><source path='{console_path(name)}'/></serial>
    {devices}
  </devices>
</domain>
"""


def console(name: str) -> str:
    """Return what the guest has said since its latest start; '' before its first."""
    try:
        return console_path(name).read_text(errors="replace")
    except FileNotFoundError:
        return ""


def wait_console(name: str, text: str, timeout: float = HANG) -> None:
    """Wait until the guest has said ``text``."""
    try:
        wait_until(lambda: text in console(name), f"{name} says {text!r}", timeout=timeout)
    except TimeoutError as error:
        raise TimeoutError(f"{error}; it said:\n{console(name)}") from None


def last_words(name: str) -> str:
    """Return all that a guest has said here which is here no more.

    libvirt passes what QEMU writes through virtlogd, which may lag behind a QEMU that has ended.
    """
    wait_until(lambda: not _written(name), f"virtlogd has written all that {name} said")
    return console(name)


def _written(name: str) -> bool:
    """Tell whether a process has the guest's console open; a second host has one of that path."""
    own = console_path(name).stat()
    for descriptor in glob("/proc/[0-9]*/fd/*"):
        with suppress(OSError):  # Processes end meanwhile.
            if os.path.samestat(os.stat(descriptor), own):
                return True
    return False


def qemu_pid(name: str) -> int | None:
    """Return the process id of the guest's QEMU by libvirt's own record; None if none runs."""
    try:
        pid = ET.parse(f"/run/libvirt/qemu/{name}.xml").getroot().get("pid")  # noqa: S314
    except FileNotFoundError:
        return None
    return int(pid) if pid and os.path.exists(f"/proc/{pid}") else None


def console_path(name: str) -> Path:
    """Return the path of the file that is the guest's serial port."""
    return Path("/var/log/libvirt/qemu") / f"{name}.console"
