"""The units of the agent and of its listener."""

import re
from itertools import pairwise

import pytest

from ramshelf.core.agent.unit import AGENT, DOOR, LISTENER, NAMES, SOCKET, units
from ramshelf.core.store.boot import clean_unit

PYTHON = ("/opt/ramshelf/bin/python", "-I", "-m")
UNITS = {unit.name: unit for unit in units(PYTHON, (), ("/var/lib/libvirt/qemu",))}
TEXTS = {
    **{name: unit.text for name, unit in UNITS.items()},
    "ramshelf-clean.service": clean_unit("/var/lib/libvirt/qemu/ram", PYTHON[0]),
}


def settings(text: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


def test_the_units_run_what_is_given_and_may_write_where_it_is_said() -> None:
    agent = TEXTS[AGENT]
    assert settings(agent, "ExecStart") == [
        f'"{PYTHON[0]}" "-I" "-m" "ramshelf" "agent" "run" "--metrics-socket" "{DOOR}"'
    ]
    assert settings(agent, "ReadWritePaths") == ['"-/var/lib/libvirt/qemu"']
    assert settings(agent, "Type") == ["notify"]
    assert settings(TEXTS[LISTENER], "ExecStart") == [
        f'"{PYTHON[0]}" "-I" "-m" "ramshelf.agent.listener"'
    ]
    assert settings(TEXTS[SOCKET], "ListenStream") == [DOOR]
    assert tuple(UNITS) == NAMES


def test_the_listener_lives_with_the_agent_and_root_alone_reaches_it() -> None:
    assert settings(TEXTS[AGENT], "Wants") == [SOCKET]
    assert settings(TEXTS[SOCKET], "PartOf") == settings(TEXTS[LISTENER], "PartOf") == [AGENT]
    assert settings(TEXTS[SOCKET], "SocketMode") == ["0600"]


def test_the_listener_has_nothing() -> None:
    listener = TEXTS[LISTENER]
    assert settings(listener, "CapabilityBoundingSet") == [""]
    assert settings(listener, "RestrictAddressFamilies") == ["none"]
    assert settings(listener, "DynamicUser") == ["yes"]
    allowed, *forbidden = settings(listener, "SystemCallFilter")
    assert allowed == "@system-service"
    assert all(each.startswith("~") for each in forbidden)
    # What can connect a socket, whichever way.
    words = {word for each in forbidden for word in each.removeprefix("~").split()}
    assert {"connect", "sendto", "sendmsg", "sendmmsg", "@aio"} <= words
    for path in ("ReadWritePaths", "RuntimeDirectory", "StateDirectory", "DeviceAllow"):
        assert settings(listener, path) == []


@pytest.mark.parametrize("name", [AGENT, "ramshelf-clean.service"])
def test_whatever_a_unit_has_has_its_reason_above_it(name: str) -> None:
    """One capability a line, so that none stands there without one."""
    grants = (
        r"(CapabilityBoundingSet|RestrictAddressFamilies|DeviceAllow|ReadWritePaths|RuntimeDirectory"
        r"|StateDirectory|SystemCallFilter|ProtectHome)=(.+)"
    )
    seen = set()
    for before, line in pairwise(TEXTS[name].splitlines()):
        if found := re.fullmatch(grants, line):
            seen.add(found[1])
            same = found[1] == "SystemCallFilter" and before.startswith("SystemCallFilter=")
            assert before.startswith("# ") or same, line
            assert found[1] != "CapabilityBoundingSet" or " " not in found[2]
    assert {"CapabilityBoundingSet", "RestrictAddressFamilies", "ReadWritePaths"} <= seen


def test_the_agent_s_unit_allows_what_holds_a_guest_still() -> None:
    """A second list, of what is allowed, takes from the first, of what is not (systemd.exec(5))."""
    first, *more = settings(TEXTS[AGENT], "SystemCallFilter")
    assert first.startswith("~")
    assert "@debug" in first.split()
    assert more == ["ptrace"]
    assert "CAP_SYS_PTRACE" in settings(TEXTS[AGENT], "CapabilityBoundingSet")


def test_the_agent_s_unit_lets_the_kernels_log_be_read() -> None:
    """Without the capability not where kernel.dmesg_restrict is set (check_syslog_permissions)."""
    assert "/dev/kmsg r" in settings(TEXTS[AGENT], "DeviceAllow")
    assert "ProtectKernelLogs=yes" not in TEXTS[AGENT].splitlines()
    assert "CAP_SYSLOG" in settings(TEXTS[AGENT], "CapabilityBoundingSet")


def test_strange_paths_and_options_are_quoted() -> None:
    found = units(('/a b/"%$\\/python', "-m"), ("--config-file=/$x",), ("/c d/%",))
    texts = {unit.name: unit.text for unit in found}
    quoted = '"/a b/\\"%%$$\\\\/python" "-m" "ramshelf'
    assert settings(texts[AGENT], "ExecStart")[0].startswith(f'{quoted}" "--config-file=/$$x"')
    assert settings(texts[LISTENER], "ExecStart")[0].startswith(f"{quoted}.")
    assert settings(texts[AGENT], "ReadWritePaths") == ['"-/c d/%%"']
