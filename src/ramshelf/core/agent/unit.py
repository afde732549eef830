"""The agent's units of systemd's: the agent, and the listener that serves its metrics.

Each capability, path, device, family of addresses and group of system calls that one of them has
stands on a line of its own, below the reason for it.
"""

import re

from ramshelf.core.hook.copy import PYTHON
from ramshelf.core.record import dataclass

DIRECTORY = "/etc/systemd/system"
SHIPPED = "/usr/lib/systemd/system"
"""The directory of units that a package of the distribution has; those in ``DIRECTORY`` win."""
AGENT = "ramshelf-agent.service"
LISTENER = "ramshelf-metrics.service"
SOCKET = "ramshelf-metrics.socket"
ENABLED = f"{DIRECTORY}/multi-user.target.wants/{AGENT}"
"""The link that has systemd start the agent at boot, wherever its unit lies."""
DOOR = "/run/ramshelf/metrics.sock"
"""The Unix socket at which the listener waits for the agent."""
LIBVIRTS = "/var/lib/libvirt/qemu"
"""The directory above libvirt's own memory backing directory."""

HEADER = "# Made by ramshelf agent install; ramshelf agent remove removes it.\n"

_AGENT = """\
[Unit]
Description=ramshelf: keeps guests, store and what is reported in agreement
Documentation=man:ramshelf-agent(1)
Wants={socket}
After={socket} local-fs.target swap.target libvirtd.service libvirtd.socket virtqemud.service virtqemud.socket

[Service]
Type=notify
ExecStart={command}
ExecReload=/bin/sh -c 'kill -HUP "$$MAINPID"'
Restart=on-failure
RestartSec=10
# What is wrong in the configuration is wrong the next time, too.
RestartPreventExitStatus=255
# One turn may wait 60 s for libvirt and 30 s for the store's lock, twice each.
WatchdogSec=300
TimeoutStopSec=20
# What trims a guest, and holds it still meanwhile, is let finish.
KillMode=process

# It is what cleans up when memory is short.
OOMScoreAdjust=-900
MemorySwapMax=0

ProtectSystem=strict
# The hook's log and the store's lock are there, too: the directory outlives the agent.
RuntimeDirectory=ramshelf
RuntimeDirectoryPreserve=yes
# An embedded Placement keeps its database there.
StateDirectory=ramshelf
StateDirectoryMode=0700
# Guests' memory files are made and removed there.
ReadWritePaths={writable}
# ramshelf, or a file of its configuration, may be there.
ProtectHome=read-only
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes

DevicePolicy=closed
# /dev/kvm, which the doctor tries; by its numbers: where KVM is loaded later there is no such path yet.
DeviceAllow=/dev/char/10:232 rw
# Only there does the kernel tell that it has lost guests' memory; so ProtectKernelLogs= stays off.
DeviceAllow=/dev/kmsg r

NoNewPrivileges=yes
# Memory files are made for QEMU's user.
CapabilityBoundingSet=CAP_CHOWN
# So are their directories; and what of a file is in RAM the kernel tells only to who might write it.
CapabilityBoundingSet=CAP_DAC_OVERRIDE
# A memory file that is QEMU's already gets its SELinux label.
CapabilityBoundingSet=CAP_FOWNER
# Which process has a file open, and which is libvirt's; and a guest is held still while it is trimmed.
CapabilityBoundingSet=CAP_SYS_PTRACE
# The kernel's log, where kernel.dmesg_restrict is set.
CapabilityBoundingSet=CAP_SYSLOG

# libvirt, QEMU's monitors, the listener, the journal.
RestrictAddressFamilies=AF_UNIX
# Placement and Keystone; and the address of the metrics, which the listener is lent.
RestrictAddressFamilies=AF_INET AF_INET6
# Which addresses a name has depends on those of this host (getaddrinfo).
RestrictAddressFamilies=AF_NETLINK

RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
# Named is what is forbidden: cachestat(2) is newer than many lists of what is allowed.
SystemCallFilter=~@clock @cpu-emulation @debug @keyring @module @mount @obsolete @raw-io @reboot @swap
# But for one of @debug, which holds a guest still while it is trimmed.
SystemCallFilter=ptrace
SystemCallErrorNumber=EPERM
UMask=0022

[Install]
WantedBy=multi-user.target
"""  # noqa: E501 - the unit's own lines

_SOCKET = """\
[Unit]
Description=Where the agent of ramshelf lends its address for metrics
Documentation=man:ramshelf-agent(1)
PartOf={agent}

[Socket]
# The agent alone connects, and is root; who serves strangers can connect to nothing.
ListenStream={door}
SocketMode=0600
RemoveOnStop=yes
# A listener that ends is always started again; RestartSec= there is what keeps that slow.
TriggerLimitIntervalSec=0
"""

_LISTENER = """\
[Unit]
Description=ramshelf: serves the metrics of its agent to whoever asks
Documentation=man:ramshelf-agent(1)
PartOf={agent}
# So it ends after the agent, which would have it started again.
Before={agent}
StartLimitIntervalSec=0

[Service]
ExecStart={command}
Restart=always
RestartSec=5

# It has the Unix socket, is lent the one that listens for scrapes, and needs nothing else:
# no user, no file but Python's own, no capability, no network, no socket that it makes itself.
DynamicUser=yes
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
PrivateNetwork=yes
IPAddressDeny=any
RestrictAddressFamilies=none
PrivateUsers=yes
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectSystem=strict
# ramshelf may be installed there.
ProtectHome=read-only
ProtectProc=invisible
ProcSubset=pid
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RemoveIPC=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
# What a Python that serves takes; without what needs privileges, or changes limits and priorities.
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @keyring @ipc @chown
# The lent socket is of the host's network: it is not to be sent elsewhere, nor descriptors away.
SystemCallFilter=~connect bind listen sendto sendmsg sendmmsg
# io_uring does what a filter of system calls forbids, such as to connect to a Unix socket.
SystemCallFilter=~@aio
SystemCallErrorNumber=EPERM
UMask=0777

# 32 connections with a text of some MiB each, in two threads.
MemoryMax=256M
MemorySwapMax=0
TasksMax=4
LimitNOFILE=64
OOMScoreAdjust=500
"""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit of the agent's, as it is to be."""

    name: str
    text: str

    @property
    def path(self) -> str:
        """Where systemd looks for it."""
        return unit_path(self.name)

    @property
    def shipped(self) -> str:
        """Its text in a package, which removes it itself."""
        return self.text.removeprefix(HEADER)


NAMES = (SOCKET, LISTENER, AGENT)


def unit_path(name: str) -> str:
    """Return where a unit lies."""
    return f"{DIRECTORY}/{name}"


def units(
    python: tuple[str, ...], options: tuple[str, ...], writable: tuple[str, ...]
) -> tuple[Unit, ...]:
    """Return the units, in the order of ``NAMES``.

    ``python`` is the command that runs a module of ramshelf's whose name follows; the agent gets
    the ``options`` and may write below the directories ``writable``. Those that are not there do
    not count, and /run/ramshelf is writable besides. Any path will do (systemd.service(5), "Command
    lines", on quoting).
    """
    agent = (*python, "ramshelf", *options, "agent", "run", "--metrics-socket", DOOR)
    listener = (*python, "ramshelf.agent.listener")
    texts = (
        _SOCKET.format(agent=AGENT, door=DOOR),
        _LISTENER.format(agent=AGENT, command=_command(listener)),
        _AGENT.format(
            socket=SOCKET,
            command=_command(agent),
            writable=" ".join(_quoted(f"-{path}", dollars=False) for path in writable),
        ),
    )
    return tuple(
        Unit(name=name, text=HEADER + text) for name, text in zip(NAMES, texts, strict=True)
    )


def packaged_units() -> tuple[Unit, ...]:
    """Return the units as a package has them: with the default files and libvirt's directory."""
    return units((PYTHON, "-I", "-m"), (), (LIBVIRTS,))


def _command(argv: tuple[str, ...]) -> str:
    return " ".join(_quoted(word) for word in argv)


def _quoted(word: str, *, dollars: bool = True) -> str:
    text = re.sub(r'(["\\])', r"\\\1", word).replace("%", "%%")
    return f'"{text.replace("$", "$$") if dollars else text}"'
