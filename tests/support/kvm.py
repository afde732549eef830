"""Whether KVM runs a guest on this machine: tried, because a /dev/kvm that opens may run none."""

import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

from support.domains import IMAGE

_OPTIONS = "-accel kvm -m 128 -nodefaults -display none -no-reboot -serial stdio"


def why_not_kvm(seconds: float) -> str:
    """Return why KVM boots no guest within this time, in a few words; "" where it does.

    The guest's kernel is to be at IMAGE.
    """
    if not os.path.exists("/dev/kvm"):
        return "there is no /dev/kvm"
    kernel = ("-kernel", f"{IMAGE}/vmlinuz", "-initrd", f"{IMAGE}/initramfs")
    try:
        ended = subprocess.run(
            (
                "qemu-system-x86_64",
                *_OPTIONS.split(),
                *kernel,
                *("-append", "console=ttyS0 quiet panic=-1 ramshelf.poweroff"),
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
            **_qemu_user(),
        )
    except subprocess.TimeoutExpired:
        return "/dev/kvm opens, but a guest hangs on it"
    if b"GUEST-UP" in ended.stdout:
        return ""
    said = ended.stderr.decode(errors="replace").strip() or "the guest did not come up"
    return said.splitlines()[0]


def _qemu_user() -> dict[str, Any]:
    """Return subprocess.run's arguments for running as the user that libvirt runs QEMU as."""
    user = pwd.getpwnam(Path("/var/lib/libvirt/qemu").owner())
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": groups}
