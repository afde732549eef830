"""The systemd units and sysctl settings that bring the store back after a reboot, in order.

The paths of the operator's wish were checked by ``core/store/facts``: they need no quoting
anywhere.
"""

import re

from ramshelf.core.record import dataclass
from ramshelf.core.store.kind import Kind

SYSTEMD = "/etc/systemd/system"
LOOP_UNIT = "ramshelf-store.service"
LOOP_UNIT_PATH = f"{SYSTEMD}/{LOOP_UNIT}"
CLEAN_UNIT = "ramshelf-clean.service"
CLEAN_UNIT_PATH = f"{SYSTEMD}/{CLEAN_UNIT}"
DAEMONS = ("libvirtd.service", "virtqemud.service")
SERVICES = (
    *DAEMONS,
    "libvirt-guests.service",
    "nova-compute.service",
)
"""The services that start guests, or read where their memory goes: they start after the store."""

NEEDING = frozenset({"nova-compute.service"})
"""The services that do not start without the store.

All that nova-compute would start there would be refused, and a compute service that is down is what
keeps Nova's scheduler away. libvirt has guests that need no store.
"""
SYSCTL_PATH = "/etc/sysctl.d/90-ramshelf.conf"

_HEADER = "# Made by 'ramshelf store create'; 'ramshelf store remove' takes it away.\n"


def escape_path(path: str, suffix: str) -> str:
    """Return the name of systemd's unit for an absolute path.

    The rules are those of systemd.unit(5), "String Escaping".
    """
    text = path.strip("/").replace("//", "/")
    escaped = "".join(
        "-" if character == "/" else character if _plain(character) else _hexadecimal(character)
        for character in text
    )
    if escaped.startswith("."):
        escaped = _hexadecimal(".") + escaped[1:]
    return f"{escaped or '-'}.{suffix}"


def _plain(character: str) -> bool:
    return (character.isascii() and character.isalnum()) or character in ":_."


def _hexadecimal(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode())


def drop_in_path(service: str) -> str:
    """Return the path of a service's drop-in."""
    return f"{SYSTEMD}/{service}.d/ramshelf.conf"


def drop_in(service: str, mount_point: str, *, clean: bool = False) -> str:
    """Return a service's drop-in: it starts after the store is mounted, or could not be.

    Those that need the store do not start in the latter case. With ``clean`` the service also waits
    until leftovers were removed, or could not be.
    """
    if service in NEEDING:
        return f"{_HEADER}[Unit]\nRequiresMountsFor={mount_point}\n"
    units = escape_path(mount_point, "mount") + (f" {CLEAN_UNIT}" if clean else "")
    return f"{_HEADER}[Unit]\nWants={units}\nAfter={units}\n"


def attach_command(path: str, size: int) -> str:
    """Return the shell command that attaches a store's file to a loop device.

    Running it twice does nothing more. It fills holes first, since a sparse file below the store
    loses guest memory without an error when its file system is full. It refuses discards for the
    same reason: fstrim would punch holes. Direct I/O keeps guest memory from being cached a second
    time; sectors of 4096 bytes let it work on every disk. The device's buffers are flushed because
    a device that was on its way out and is taken back may have cached what the file held before.
    """
    return (
        f"fallocate --length {size} {path} && "
        "device=$(losetup --find --show --nooverlap --direct-io=on --sector-size 4096 "
        f"{path}) && "
        'echo 0 >"/sys/block/${device#/dev/}/queue/discard_max_bytes" && '
        'blockdev --flushbufs "$device"'
    )


def loop_command(path: str) -> str:
    """Return the command that prints the loop device of the store's file."""
    return f"losetup --noheadings --output NAME --associated {path}"


def detach_command(path: str) -> str:
    """Return the shell command that undoes attach_command."""
    return f"{loop_command(path)} | xargs --no-run-if-empty losetup --detach"


def loop_unit(path: str, size: int) -> str:
    """Return the unit that attaches the store's file before the store is mounted."""
    directory = path.rpartition("/")[0] or "/"
    return (
        f"{_HEADER}[Unit]\n"
        "Description=Loop device of the store of guest memory\n"
        "DefaultDependencies=no\n"
        f"RequiresMountsFor={directory}\n"
        "# The root file system can be written to only then.\n"
        "After=systemd-remount-fs.service\n"
        "Conflicts=umount.target\n"
        "Before=umount.target\n"
        "\n"
        "[Service]\n"
        "Type=oneshot\n"
        "RemainAfterExit=yes\n"
        f"ExecStart=/bin/sh -c '{attach_command(path, size).replace('$', '$$')}'\n"
        f"ExecStop=/bin/sh -c '{detach_command(path)}'\n"
    )


def clean_unit(mount_point: str, python: str) -> str:
    """Return the unit that removes what a power cut left, each time before libvirt starts.

    ``python`` may be any path: it is quoted as systemd.service(5), "Command lines", says.
    """
    quoted = re.sub(r'(["\\])', r"\\\1", python).replace("%", "%%").replace("$", "$$")
    return _HEADER + _CLEAN.format(python=quoted, mount_point=mount_point)


_CLEAN = """\
[Unit]
Description=Removal of guest memory that no guest owns
RequiresMountsFor={mount_point}

[Service]
Type=oneshot
ExecStart="{python}" -I -m ramshelf store clean --without-libvirt

ProtectSystem=strict
# What it removes lies there.
ReadWritePaths={mount_point}
# The store's lock is there.
RuntimeDirectory=ramshelf
RuntimeDirectoryPreserve=yes
# ramshelf may be installed there.
ProtectHome=read-only
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
DevicePolicy=closed
NoNewPrivileges=yes
# Guests' directories are QEMU's user's.
CapabilityBoundingSet=CAP_DAC_OVERRIDE
# Which process has a file open, and whether one is libvirt's.
CapabilityBoundingSet=CAP_SYS_PTRACE
PrivateNetwork=yes
IPAddressDeny=any
# The journal, and services that know users' names.
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
# What a program takes that works on files; without what needs privileges, or changes limits.
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @keyring
SystemCallErrorNumber=EPERM
UMask=0022
"""


@dataclass(frozen=True, kw_only=True)
class Sysctl:
    """A kernel setting, the reason for it, and its value before ramshelf changed it."""

    key: str
    value: int
    reason: str
    before: int = -1

    @property
    def path(self) -> str:
        """The setting's file below /proc/sys."""
        return "/proc/sys/" + self.key.replace(".", "/")


_SYSCTLS = {
    Kind.SWAP: (
        Sysctl(
            key="vm.page-cluster",
            value=0,
            reason=(
                "Guests read swapped memory at random: reading neighbouring pages ahead only costs "
                "RAM."
            ),
        ),
        Sysctl(
            key="vm.swappiness",
            value=100,
            reason="Swap on a fast device costs as much as reading a file again: prefer neither.",
        ),
    ),
    Kind.DISK: (
        Sysctl(
            key="vm.dirty_ratio",
            value=60,
            reason=(
                "Above this share of dirty memory the kernel slows guests down to the speed of the "
                "disk."
            ),
        ),
    ),
}
SYSCTL_KEYS = tuple(setting.key for settings in _SYSCTLS.values() for setting in settings)


def sysctls(kind: Kind, current: dict[str, int]) -> tuple[Sysctl, ...]:
    """Return the kernel settings to make for a store of this kind.

    vm.dirty_ratio stays as it is where it is higher already, or where it is 0, which means that the
    operator uses vm.dirty_bytes.
    """
    return tuple(
        Sysctl(key=wanted.key, value=wanted.value, reason=wanted.reason, before=current[wanted.key])
        for wanted in _SYSCTLS.get(kind, ())
        if wanted.key in current
        and not (
            wanted.key == "vm.dirty_ratio"
            and (current[wanted.key] == 0 or current[wanted.key] >= wanted.value)
        )
    )


def sysctl_text(settings: tuple[Sysctl, ...]) -> str:
    """Return the text of the sysctl.d file: each setting with its reason and the value before."""
    return _HEADER + "".join(
        f"\n# {setting.reason}\n# Before: {setting.before}\n{setting.key} = {setting.value}\n"
        for setting in settings
    )


_SETTING = re.compile(
    r"# (?P<reason>.*)\n# Before: (?P<before>\d+)\n(?P<key>[\w.-]+) = (?P<value>\d+)\n"
)


def parse_sysctl_text(text: str) -> tuple[Sysctl, ...]:
    """Return the settings in a text that sysctl_text wrote."""
    return tuple(
        Sysctl(
            key=match["key"],
            value=int(match["value"]),
            reason=match["reason"],
            before=int(match["before"]),
        )
        for match in _SETTING.finditer(text)
    )
