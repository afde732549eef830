"""Single facts of the host: kernel settings, KVM, control groups, users and directories.

Each says why it cannot be had, where that is so.
"""

import fcntl
import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from ramshelf.core.doctor.facts import PathDirectory
from ramshelf.core.errors import RamshelfError
from ramshelf.core.files.mounts import Mount
from ramshelf.core.files.qemuconf import Value
from ramshelf.core.host import Account, Slice, Unknown
from ramshelf.core.requirements import Version, version
from ramshelf.system.filesystem import read_text

_Fact = TypeVar("_Fact")
_Arguments = ParamSpec("_Arguments")

_KVM_GET_API_VERSION = 0xAE00
_KVM_API_VERSION = 12
_DEFAULT_USERS = ("libvirt-qemu", "qemu")
"""QEMU's user in Debian's and in everybody else's build of libvirt."""

_CGROUP_V1_UNLIMITED = 1 << 60
"""Bytes from which on a limit counts as none.

Without a limit, memory.limit_in_bytes is the largest page-aligned 64-bit number.
"""


def known(
    read: Callable[_Arguments, _Fact], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> _Fact | Unknown:
    """Return what ``read`` returns, or why it cannot be had."""
    try:
        return read(*args, **kwargs)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return Unknown(f"{where}{os.strerror(error.errno or 0).lower()}")
    except (ValueError, LookupError) as error:
        return Unknown(str(error.args[0]) if error.args else type(error).__name__)
    except RamshelfError as error:
        return Unknown(error.sentence.rstrip("."))


def sysctl(name: str) -> int:
    """Return the number in /proc/sys/vm/NAME."""
    return int(read_text(f"/proc/sys/vm/{name}"))


def kernel() -> Version:
    """Return the running kernel's version."""
    return version(os.uname().release)


def oom_kills() -> int:
    """Return how many processes the kernel killed since boot for lack of memory.

    The count is oom_kill of /proc/vmstat (Linux 4.13).
    """
    for line in read_text("/proc/vmstat").splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    raise LookupError("/proc/vmstat has no oom_kill")


def kvm_problem() -> str | Unknown:
    """Return why KVM cannot be used; '' where it answers.

    Whether KVM also runs a guest only a guest can tell.
    """
    try:
        descriptor = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return "there is no /dev/kvm"
    except PermissionError:
        who = "only root and the group kvm may" if os.geteuid() else "root may not, here,"
        return Unknown(f"{who} open it")
    except OSError as error:
        return os.strerror(error.errno or 0).lower()
    try:
        api = fcntl.ioctl(descriptor, _KVM_GET_API_VERSION)
    except OSError as error:
        return os.strerror(error.errno or 0).lower()
    finally:
        os.close(descriptor)
    return "" if api == _KVM_API_VERSION else f"its API version is {api}, not {_KVM_API_VERSION}"


def service_slices(mounts: tuple[Mount, ...]) -> tuple[Slice, ...] | Unknown:
    """Return the top-level slices of a cgroup v2 hierarchy, except for the guests' own."""
    root = _cgroup(mounts, version=2)
    if root is None:
        return Unknown("there is no cgroup v2 with a memory controller")
    names = sorted(path.name for path in root.glob("*.slice") if path.name != "machine.slice")
    slices = tuple(
        _slice_v2(root / name) for name in names if (root / name / "memory.max").exists()
    )
    return slices or Unknown("there are no control groups of services")


def machine_slice(mounts: tuple[Mount, ...]) -> Slice | None:
    """Return the control group of all guests; None where libvirt has made none."""
    for hierarchy in (2, 1):
        root = _cgroup(mounts, version=hierarchy)
        for name in ("machine.slice", "machine"):
            if root is not None and (root / name).is_dir():
                return _slice_v2(root / name) if hierarchy == 2 else _slice_v1(root / name)
    return None


def _cgroup(mounts: tuple[Mount, ...], *, version: int) -> Path | None:
    for mount in mounts:
        root = Path(mount.mount_point)
        if version == 1 and mount.fstype == "cgroup" and "memory" in mount.super_options:
            return root
        if version == 2 and mount.fstype == "cgroup2":
            controllers = read_text(root / "cgroup.controllers", "").split()
            if "memory" in controllers:
                return root
    return None


def _slice_v2(path: Path) -> Slice:
    def limit(name: str) -> int | None:
        text = read_text(path / name, "max").strip()
        return None if text == "max" else int(text)

    return Slice(name=path.name, memory_max=limit("memory.max"), swap_max=limit("memory.swap.max"))


def _slice_v1(path: Path) -> Slice:
    memory = int(read_text(path / "memory.limit_in_bytes", str(_CGROUP_V1_UNLIMITED)))
    both = int(read_text(path / "memory.memsw.limit_in_bytes", str(_CGROUP_V1_UNLIMITED)))
    return Slice(
        name=path.name,
        memory_max=memory if memory < _CGROUP_V1_UNLIMITED else None,
        swap_max=both - memory if both < _CGROUP_V1_UNLIMITED else None,
    )


def qemu_account(conf: dict[str, Value]) -> Account:
    """Return who QEMU runs as: qemu.conf's user and group, else the distribution's.

    As in libvirt, ``+N`` is a number. It need not be a user here: that of libvirt's container is
    none. Raises LookupError for a user or group of a name that does not exist.
    """
    user, group = conf.get("user"), conf.get("group")
    number = str(user).removeprefix("+")
    try:
        entry = _user(user) if isinstance(user, str) else _default_user()
    except KeyError:
        if not number.isdecimal():
            raise
        gid = _group(group) if isinstance(group, str) else int(number)
        return Account(user=str(user), uid=int(number), gids=frozenset({gid}))
    gid = _group(group) if isinstance(group, str) else entry.pw_gid
    return Account(
        user=entry.pw_name, uid=entry.pw_uid, gids=frozenset(os.getgrouplist(entry.pw_name, gid))
    )


def _user(name: str) -> pwd.struct_passwd:
    if name.removeprefix("+").isdecimal():
        return pwd.getpwuid(int(name.removeprefix("+")))
    return pwd.getpwnam(name)


def _group(name: str) -> int:
    if name.removeprefix("+").isdecimal():
        return int(name.removeprefix("+"))
    return grp.getgrnam(name).gr_gid


def _default_user() -> pwd.struct_passwd:
    for name in _DEFAULT_USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return pwd.getpwuid(0)


def root_context() -> str:
    """Return the SELinux context for a store's root; '' without SELinux.

    It is the one that the policy in force has given to QEMU's own directory: policies differ in it
    (Fedora's has qemu_var_run_t, Debian's svirt_runtime_t). Without one it is Fedora's.
    """
    if not os.path.exists("/sys/fs/selinux/enforce"):
        return ""
    try:
        label = os.getxattr("/var/lib/libvirt/qemu", "security.selinux").decode().rstrip("\0")
    except OSError:
        label = ""
    return label or "system_u:object_r:qemu_var_run_t:s0"


def directories_to(path: str) -> tuple[PathDirectory, ...]:
    """Return every directory from the root down to ``path``.

    Raises OSError for one that cannot be looked at.
    """
    found = []
    for directory in [*reversed(Path(path).parents), Path(path)]:
        status = os.stat(directory)
        found.append(
            PathDirectory(
                path=str(directory), uid=status.st_uid, gid=status.st_gid, mode=status.st_mode
            )
        )
    return tuple(found)


def modified(path: str) -> float | None:
    """Return when the file was last written; None where there is none."""
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return None
