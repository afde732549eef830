"""The agent as a service of systemd's: its unit, and how that is installed and removed."""

import re
from dataclasses import dataclass

from ramshelf.core.errors import HostError, RefusedError
from ramshelf.core.plan import Action, RemoveFile, Run, WriteFile

SERVICE = "ramshelf-agent.service"
UNIT = f"/etc/systemd/system/{SERVICE}"
_HEADER = "# Made by ramshelf agent install; ramshelf agent remove removes it.\n"

_TEMPLATE = """\
[Unit]
Description=ramshelf: keeps guests, store and what is reported in agreement
After=local-fs.target swap.target libvirtd.service libvirtd.socket virtqemud.service virtqemud.socket

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

# The hook's log and the store's lock are there, too: the directory outlives the agent.
RuntimeDirectory=ramshelf
RuntimeDirectoryPreserve=yes
# An embedded Placement keeps its database there.
StateDirectory=ramshelf
StateDirectoryMode=0700
ProtectSystem=strict
ReadWritePaths={writable}
ProtectHome=read-only
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
DevicePolicy=closed
# /dev/kvm, by its numbers: where KVM is loaded after the agent is started there is no such path yet.
DeviceAllow=/dev/char/10:232 rw
# Only there does the kernel tell that it has lost guests' memory; so ProtectKernelLogs= stays off.
DeviceAllow=/dev/kmsg r
NoNewPrivileges=yes
# chown: memory files belong to QEMU's user. dac_override: so do their directories, and the kernel tells what
# of a file is in RAM only to who might write it. fowner: SELinux labels. sys_ptrace: who has a file open.
# And to hold a guest still while it is trimmed. syslog: the kernel's log, where kernel.dmesg_restrict is set.
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_SYS_PTRACE CAP_SYSLOG
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
# Named is what is forbidden: cachestat(2) is newer than many lists of what is allowed.
SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap
# But for one of @debug, which holds a guest still while it is trimmed.
SystemCallFilter=ptrace
SystemCallErrorNumber=EPERM
UMask=0022

[Install]
WantedBy=multi-user.target
"""  # noqa: E501 - the unit's own lines


def unit_text(argv: tuple[str, ...], writable: tuple[str, ...]) -> str:
    """Return the unit that runs ``argv`` and may write below the directories ``writable``.

    Those that are not there do not count, and /run/ramshelf is writable besides. Any path will do
    (systemd.service(5), "Command lines", on quoting).
    """
    return _HEADER + _TEMPLATE.format(
        command=" ".join(_quoted(word) for word in argv),
        writable=" ".join(_quoted(f"-{path}", dollars=False) for path in writable),
    )


def _quoted(word: str, *, dollars: bool = True) -> str:
    text = re.sub(r'(["\\])', r"\\\1", word).replace("%", "%%")
    return f'"{text.replace("$", "$$") if dollars else text}"'


@dataclass(frozen=True, kw_only=True)
class Service:
    """What is there of the service.

    ``text`` is the unit's, None where there is none. ``systemd``: it runs here.
    """

    text: str | None
    systemd: bool

    @property
    def foreign(self) -> bool:
        """Whether somebody else has written the unit."""
        return self.text is not None and not self.text.startswith(_HEADER)


def plan_install(found: Service, text: str) -> tuple[Action, ...]:
    """Return the actions that are missing until the service runs with this unit.

    Raises HostError, RefusedError.
    """
    _refuse(found)
    if found.text == text:
        return ()
    return (
        WriteFile(why="Describe the service to systemd", path=UNIT, text=text, before=found.text),
        Run(why="Have systemd read it", argv=("systemctl", "daemon-reload")),
        Run(why="Start it at every boot", argv=("systemctl", "enable", SERVICE)),
        Run(why="Start it now, anew where it runs", argv=("systemctl", "restart", SERVICE)),
    )


def plan_remove(found: Service) -> tuple[Action, ...]:
    """Undo what ``install`` did.

    Raises HostError, RefusedError.
    """
    if found.text is None:
        return ()
    _refuse(found)
    return (
        Run(why="Stop it, and start it no more", argv=("systemctl", "disable", "--now", SERVICE)),
        RemoveFile(why="Remove the service", path=UNIT, before=found.text),
        Run(why="Have systemd forget it", argv=("systemctl", "daemon-reload")),
    )


def _refuse(found: Service) -> None:
    if found.foreign:
        raise RefusedError(
            "agent.foreign",
            f"{UNIT} was not made by ramshelf.",
            hint="Remove or rename it, if the agent is to be a service that ramshelf made.",
            facts={"path": UNIT},
        )
    if not found.systemd:
        raise HostError(
            "agent.no-systemd",
            "systemd does not run here.",
            hint=(
                "Have whatever starts services here run 'ramshelf agent'; it stays in the "
                "foreground."
            ),
        )
