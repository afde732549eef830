"""The agent's duties, each under the real units of systemd's, with AppArmor enforced."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.placement_service import placement_service
from support.real_host import MEMORY, RealHost, guest_xml

METRICS = "curl -sf 127.0.0.1:10177/metrics"
CONF = "/etc/ramshelf/ramshelf.conf"
LEFT = f"{MEMORY}/900-gone"
"""What a guest leaves that ended while nobody looked."""

LISTENER = "ramshelf-metrics.service"
EXPOSED = {LISTENER: 2.0, "ramshelf-clean.service": 3.0, "ramshelf-agent.service": 4.0}
"""The most that `systemd-analyze security` may say of each unit; 10 is a service without limits."""


@pytest.fixture(scope="module", autouse=True)
def service(machine: RealHost) -> Iterator[None]:
    """A disk store, the hook, and the agent as a service that looks often."""
    machine.run(f"mkdir -p /etc/ramshelf && cat >{CONF}", stdin="[ramshelf]\nlook_interval = 5\n")
    machine.run("ramshelf store create --kind disk --fs ext4 --device /dev/vdb --size 2G")
    machine.run("ramshelf hook install && ramshelf agent install")
    yield
    machine.remove_guests()
    for noun in ("agent", "hook", "store"):
        machine.run(f"ramshelf {noun} remove")
    machine.run(f"rm {CONF}")


def wait_metric(machine: RealHost, sample: str) -> None:
    """Wait until a scrape has a sample: a regular expression for the begin of its line."""
    machine.wait(f"{METRICS} | grep -E '^{sample}'", f"the metrics have {sample}")


def wait_log(machine: RealHost, event: str, guest: str) -> None:
    """Wait until the agent has logged an event of this guest."""
    journal = "journalctl -u ramshelf-agent -o cat"
    line = f'"event": "{event}".*"{guest}"'
    machine.wait(f"{journal} | grep -e '{line}'", f"the agent logs {event} of {guest}")


def user(machine: RealHost, unit: str) -> str:
    """Return as whom a unit's process runs, and with which capabilities."""
    status = f"/proc/$(systemctl show --value -p MainPID {unit})/status"
    return machine.said(f"grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' {status}")


def test_the_listener_serves_without_any_privilege(machine: RealHost) -> None:
    wait_metric(machine, "libvirt_up 1")
    status = dict(line.split(":\t") for line in user(machine, LISTENER).splitlines())
    assert "0" not in status["Uid"].split()
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    accept = "Accept: application/openmetrics-text;version=1.0.0"
    assert machine.said(f"{METRICS} -H '{accept}' --compressed | tail -n 1") == "# EOF"
    assert machine.holds("aa-enabled --quiet")


ATTACK = r"""
import ctypes, errno, json, os, select, socket

said = {}

def tried(name, attempt):
    try:
        said[name] = str(attempt())
    except OSError as error:
        said[name] = errno.errorcode[error.errno]

def called(*arguments):
    result = ctypes.CDLL(None, use_errno=True).syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result

def connected():
    lent.shutdown(socket.SHUT_RDWR)
    return lent.sendto(b"x", 0x20000000, ("127.0.0.1", 22))  # MSG_FASTOPEN: it connects

door = socket.socket(fileno=3)
connection, _ = door.accept()
_, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
lent = socket.socket(fileno=descriptors[0])
os.write(connection.fileno(), b"\xff")
mine, _ = socket.socketpair()
tried("a socket of another kind", lambda: socket.socket(socket.AF_INET))
tried("a Unix socket", lambda: socket.socket(socket.AF_UNIX))
tried("descriptors to the agent", lambda: socket.send_fds(connection, [b"\x00"], [0]))
tried("a connection from the host's network", connected)
tried("listening again", lambda: lent.listen())
tried("a ring", lambda: called(425, 4, ctypes.create_string_buffer(120)))
tried("tracing the agent", lambda: called(101, 16, AGENT, 0, 0))
tried("ending the agent", lambda: os.kill(AGENT, 0))
tried("the agent's files", lambda: os.listdir(f"/proc/{AGENT}/fd"))
tried("libvirt's configuration", lambda: open("/etc/libvirt/qemu.conf").read())
tried("a device", lambda: os.open("/dev/kvm", os.O_RDWR))
tried("a file", lambda: open("/run/ramshelf/mine", "w"))
print(json.dumps(said), flush=True)
select.poll().poll()
"""
UNIT = f"/run/systemd/system/{LISTENER}.d"


def test_a_listener_that_is_taken_over_gets_no_further(machine: RealHost) -> None:
    """Another program in its place, with all that the unit allows."""
    pid = machine.said("systemctl show --value -p MainPID ramshelf-agent")
    machine.run("cat >/opt/attack.py", stdin=f"AGENT = {pid}\n{ATTACK}")
    machine.run(
        f"mkdir -p {UNIT} && cat >{UNIT}/attack.conf && systemctl daemon-reload",
        stdin="[Service]\nExecStart=\nExecStart=/usr/bin/python3 -I /opt/attack.py\n",
    )
    since = machine.said("date +%s")
    machine.run(f"systemctl kill --signal KILL {LISTENER}")
    said = f"journalctl -u {LISTENER} -o cat --since @{since} | grep -m 1 '^{{'"
    machine.wait(said, "it has tried")
    tried = json.loads(machine.said(said))
    machine.run(f"rm -r {UNIT} /opt/attack.py && systemctl daemon-reload")
    machine.run(f"systemctl kill --signal KILL {LISTENER}")
    refused = {"EPERM", "EACCES", "ENOENT", "EAFNOSUPPORT", "EROFS", "ESRCH"}
    assert {name: word for name, word in tried.items() if word not in refused} == {}
    wait_metric(machine, "libvirt_up 1")


def test_the_units_are_as_little_exposed_as_they_can_be(machine: RealHost) -> None:
    for unit, most in EXPOSED.items():
        analysed = machine.said(f"systemd-analyze security --no-pager {unit}")
        found = re.search(r"Overall exposure level for \S+: ([\d.]+)", analysed)
        assert found, analysed
        print(f"{unit}: {found[1]}")  # noqa: T201 - for who asks with pytest's -s
        assert float(found[1]) <= most, analysed


def test_the_listener_comes_back_when_it_is_killed(machine: RealHost) -> None:
    wait_metric(machine, "libvirt_up 1")
    pid = machine.said(f"systemctl show --value -p MainPID {LISTENER}")
    machine.run(f"kill -KILL {pid}")
    machine.wait(
        f'[ "$(systemctl show --value -p MainPID {LISTENER})" != {pid} ]', "the listener has ended"
    )
    wait_metric(machine, "libvirt_up 1")


def test_the_agent_is_killed_and_both_come_back(machine: RealHost) -> None:
    pid = machine.said("systemctl show --value -p MainPID ramshelf-agent")
    machine.run("systemctl kill --signal KILL ramshelf-agent")
    machine.wait(
        f'systemctl is-active ramshelf-agent && [ "$(systemctl show --value -p MainPID '
        f'ramshelf-agent)" != {pid} ]',
        "the agent was started again",
    )
    wait_metric(machine, "libvirt_up 1")


def test_a_reload_takes_the_listener_to_another_port(machine: RealHost) -> None:
    machine.run(f"echo metrics_port = 10178 >>{CONF} && systemctl reload ramshelf-agent")
    machine.wait("curl -sf 127.0.0.1:10178/metrics", "it serves there")
    assert machine.run(METRICS, ok=range(256)).status != 0
    machine.run(f"sed -i /metrics_port/d {CONF} && systemctl reload ramshelf-agent")
    wait_metric(machine, "libvirt_up 1")


def test_guests_are_told_of_and_what_they_have_in_ram(machine: RealHost) -> None:
    machine.define(guest_xml("guest", dirty_mib=64))
    machine.run("virsh --quiet start guest")
    wait_log(machine, "guest-started", "guest")
    pid = "$(cat /run/libvirt/qemu/guest.pid)"
    assert "(enforce)" in machine.said(f"cat /proc/{pid}/attr/current")
    wait_metric(machine, r'libvirt_domain_memory_backing_resident_bytes\{domain="guest"\} [1-9]')
    machine.run("virsh --quiet destroy guest")
    wait_log(machine, "guest-stopped", "guest")


def test_the_kernel_s_log_is_read(machine: RealHost) -> None:
    machine.run("sysctl -qw kernel.dmesg_restrict=1 && systemctl restart ramshelf-agent")
    wait_metric(machine, "ramshelf_store_write_errors_total 0")
    wait_metric(machine, r"ramshelf_check_timestamp_seconds [1-9]")
    wait_metric(machine, r'ramshelf_findings\{code="store.write-errors-unknown",.*\} 0')


def test_what_an_ended_guest_left_is_removed_by_the_agent(machine: RealHost) -> None:
    machine.run(f"mkdir {LEFT} && truncate -s 1M {LEFT}/pc.ram && chown -R libvirt-qemu: {LEFT}")
    machine.wait(f"[ ! -e {LEFT} ]", "it is removed")
    wait_metric(machine, "ramshelf_cleaned_directories_total [1-9]")


def test_what_an_ended_guest_left_is_removed_before_libvirt_starts(machine: RealHost) -> None:
    sockets = "libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket"
    machine.run(f"systemctl stop ramshelf-agent {sockets} libvirtd.service")
    machine.run(f"mkdir {LEFT} && truncate -s 1M {LEFT}/pc.ram && chown -R libvirt-qemu: {LEFT}")
    machine.run("systemctl start ramshelf-clean.service")
    assert not machine.holds(f"[ -e {LEFT} ]")
    machine.run(f"systemctl start {sockets} ramshelf-agent")
    wait_metric(machine, "libvirt_up 1")


def test_a_guest_that_no_hook_saw_is_reserved_late(machine: RealHost) -> None:
    machine.run("ramshelf hook remove")
    machine.run("virsh --quiet start guest")
    wait_log(machine, "reserved-late", "guest")
    size, blocks = machine.said(f"stat --format '%s %b' {MEMORY}/*-guest/pc.ram").split()
    assert int(blocks) * 512 >= int(size) == 192 << 20
    machine.remove_guests()


def test_placement_is_told(machine: RealHost, tmp_path: Path) -> None:
    machine.run(f"cp {CONF} {CONF}.kept")
    with placement_service(tmp_path) as service, machine.lent(service.port):
        settings = f"placement_owner = true\n{service.configuration()}"
        machine.run(f"cat >>{CONF} && systemctl restart ramshelf-agent", stdin=settings)
        wait_metric(machine, "ramshelf_placement_up 1")
        machine.define(guest_xml("claimed"))
        machine.run("virsh --quiet start claimed")
        wait_metric(machine, r"ramshelf_placement_allocated_bytes 2.01326592e\+08")
        assert "POST /allocations 204" in service.writes()
    machine.run(f"mv {CONF}.kept {CONF} && systemctl restart ramshelf-agent")
    machine.remove_guests()


@pytest.mark.soak
def test_what_a_dump_has_populated_is_given_back(machine: RealHost) -> None:
    """On a tmpfs, since ext4 keeps large folios. To the end it would take an emulated host long."""
    machine.run("ramshelf store remove")
    machine.run("ramshelf store create --kind swap --device /dev/vdb --size 2G")
    machine.run("ramshelf hook install && systemctl restart ramshelf-agent")
    machine.define(guest_xml("dumped", 256, dirty_mib=16))
    machine.run("virsh --quiet start dumped")
    machine.wait_console("dumped", "DIRTIED")
    wait_metric(machine, r'libvirt_domain_memory_backing_allocated_bytes\{domain="dumped"\} [1-9]')
    machine.run("sleep 8")  # so that a look has seen what it had before
    machine.run("virsh --quiet dump dumped /var/tmp/dump --memory-only && rm /var/tmp/dump")
    occupied = f"du --block-size M {MEMORY}/*-dumped/pc.ram"
    before = int(machine.said(occupied).partition("M")[0])
    wait_log(machine, "trimming", "dumped")
    machine.wait(f"[ $({occupied} | cut -dM -f1) -lt {before - 4} ]", "memory is given back")
    machine.wait("virsh domstate dumped | grep -q running", "it runs, between two pauses")
    machine.remove_guests()


def test_it_is_taken_away_as_a_whole(machine: RealHost) -> None:
    machine.run("ramshelf agent remove")
    assert machine.said("ls /etc/systemd/system | grep ramshelf-[am]", ok=(1,)) == ""
    machine.wait("[ ! -e /run/ramshelf/metrics.sock ]", "the socket is gone")
    assert machine.run(METRICS, ok=range(256)).status != 0
    units = "systemctl list-units --plain --no-legend 'ramshelf-[am]*'"
    machine.wait(f'[ -z "$({units})" ]', "systemd has forgotten the units")
