"""The agent's unit, and how it is put there and taken away."""

import pytest

from ramshelf.core.agent.unit import UNIT, Service, plan_install, plan_remove, unit_text
from ramshelf.core.errors import HostError, RefusedError
from ramshelf.core.plan import RemoveFile, Run, WriteFile

TEXT = unit_text(
    ("/opt/ramshelf/bin/python", "-I", "-m", "ramshelf", "agent"), ("/var/lib/libvirt/qemu",)
)
ABSENT = Service(text=None, systemd=True)


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_the_unit_runs_what_is_given_and_may_write_where_it_is_said() -> None:
    assert 'ExecStart="/opt/ramshelf/bin/python" "-I" "-m" "ramshelf" "agent"' in lines(TEXT)
    assert 'ReadWritePaths="-/var/lib/libvirt/qemu"' in lines(TEXT)
    assert "Type=notify" in lines(TEXT)


def test_the_unit_allows_what_holds_a_guest_still() -> None:
    """A second list, of what is allowed, takes from the first, of what is not (systemd.exec(5))."""
    filters = [line for line in lines(TEXT) if line.startswith("SystemCallFilter=")]
    assert "@debug" in filters[0].split()
    assert filters[0].startswith("SystemCallFilter=~")
    assert filters[1:] == ["SystemCallFilter=ptrace"]
    [capabilities] = [line for line in lines(TEXT) if line.startswith("CapabilityBoundingSet=")]
    assert "CAP_SYS_PTRACE" in capabilities.split()


def test_the_unit_lets_the_kernels_log_be_read() -> None:
    """Without the capability not where kernel.dmesg_restrict is set (check_syslog_permissions)."""
    assert "DeviceAllow=/dev/kmsg r" in lines(TEXT)
    assert "ProtectKernelLogs=yes" not in lines(TEXT)
    [capabilities] = [line for line in lines(TEXT) if line.startswith("CapabilityBoundingSet=")]
    assert "CAP_SYSLOG" in capabilities.split()


def test_strange_paths_are_quoted() -> None:
    text = unit_text(('/a b/"%$\\/python',), ("/c d/%",))
    assert 'ExecStart="/a b/\\"%%$$\\\\/python"' in lines(text)
    assert 'ReadWritePaths="-/c d/%%"' in lines(text)


def test_install_writes_and_starts_and_the_second_time_does_nothing() -> None:
    first, *rest = plan_install(ABSENT, TEXT)
    assert isinstance(first, WriteFile)
    assert (first.path, first.text) == (UNIT, TEXT)
    assert [action.argv[1] for action in rest if isinstance(action, Run)] == [
        "daemon-reload",
        "enable",
        "restart",
    ]
    assert plan_install(Service(text=TEXT, systemd=True), TEXT) == ()


def test_an_older_unit_is_brought_up_to_date() -> None:
    older = TEXT.replace("WatchdogSec=300", "WatchdogSec=90")
    first = plan_install(Service(text=older, systemd=True), TEXT)[0]
    assert "+WatchdogSec=300" in first.lines()


def test_remove_undoes_it_and_the_second_time_does_nothing() -> None:
    stop, remove, _ = plan_remove(Service(text=TEXT, systemd=True))
    assert isinstance(stop, Run)
    assert stop.argv[1:3] == ("disable", "--now")
    assert isinstance(remove, RemoveFile)
    assert plan_remove(ABSENT) == ()


def test_what_ramshelf_did_not_write_stays() -> None:
    foreign = Service(text="[Service]\nExecStart=/bin/true\n", systemd=True)
    with pytest.raises(RefusedError) as caught:
        plan_install(foreign, TEXT)
    assert caught.value.code == "agent.foreign"
    with pytest.raises(RefusedError):
        plan_remove(foreign)


def test_without_systemd_it_says_what_to_do() -> None:
    with pytest.raises(HostError) as caught:
        plan_install(Service(text=None, systemd=False), TEXT)
    assert caught.value.code == "agent.no-systemd"
    assert "ramshelf agent" in caught.value.hint
