"""``ramshelf agent``: on real guests, with a libvirtd that goes away, and killed itself."""

import json
import os
import random
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ramshelf.core.agent.unit import NAMES
from ramshelf.core.record import replace
from ramshelf.system import ledger
from ramshelf.system.backingstore import observe_store
from ramshelf.system.filesystem import size_and_used
from ramshelf.system.procfs import swaps
from support.agent import CONF, Agent, agent, confined, promtool
from support.cli import ramshelf
from support.devices import own_swaps
from support.domains import domain_xml, qemu_pid, wait_console
from support.libvirtd import Libvirtd
from support.process import HANG, run, wait_until
from support.stores import store

MEMORY = Path("/var/lib/libvirt/qemu/ram")
MIB = 1 << 20
NUMA = "<cpu><numa><cell id='0' cpus='0' memory='128' unit='MiB'/></numa></cpu>"
CELL = "<cpu><numa><cell id='0' cpus='0' memory='64' unit='MiB'/></numa></cpu>"
PLUGGABLE = "<maxMemory slots='4' unit='MiB'>384</maxMemory>"
DIMM = "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>"


@pytest.fixture
def hooked(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    with store("tmpfs", 1024):
        ramshelf("hook", "install")
        yield libvirtd


def directory(name: str) -> Path:
    [found] = MEMORY.glob(f"*-{name}")
    return found


def leave(name: str) -> Path:
    """What a guest leaves behind when the host loses power."""
    left = MEMORY / name
    left.mkdir()
    with (left / "pc.ram").open("wb") as file:
        file.truncate(MIB)
    return left


def guest_metric(name: str, what: str) -> str:
    return f'libvirt_domain_memory_backing_{what}_bytes{{domain="{name}"}}'


def starts(reason: str) -> str:
    return f'ramshelf_guest_starts_total{{reason="{reason}"}}'


def stops(reason: str) -> str:
    return f'ramshelf_guest_stops_total{{reason="{reason}"}}'


def finding(code: str, severity: str) -> str:
    return f'ramshelf_findings{{code="{code}",severity="{severity}"}}'


def test_starts_ends_and_refusals_are_seen(hooked: Libvirtd) -> None:
    with agent() as running:
        hooked.create(domain_xml("guest", 128, dirty_mib=16))
        assert running.wait_log("guest-started")["reason"] == "booted"
        running.wait_metric(guest_metric("guest", "promised"), lambda value: value == 128 * MIB)
        running.wait_metric(guest_metric("guest", "resident"), lambda value: value > 16 * MIB)
        hooked.create(domain_xml("large", 2048), ok=(1,))
        assert running.wait_log("guest-refused")["code"] == "capacity.exceeded"
        hooked.define(domain_xml("large", 2048))
        ramshelf("guest", "start", "large", ok=(1,))
        hooked.virsh("destroy", "guest")
        assert running.wait_log("guest-stopped", guest="guest")["reason"] == "destroyed"
        gone = lambda: guest_metric("guest", "promised") not in running.scrape()  # noqa: E731
        wait_until(gone, "it is not told of any more")
        figures = running.scrape()
        assert figures["ramshelf_store_promised_bytes"] == 0
        assert (figures[starts("booted")], figures[stops("destroyed")]) == (1, 1)
        assert figures['ramshelf_guest_refusals_total{code="capacity.exceeded"}'] == 2


def test_a_crash_is_a_warning(hooked: Libvirtd) -> None:
    with agent() as running:
        hooked.create(domain_xml("guest", 128))
        pid = qemu_pid("guest")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        line = running.wait_log("guest-stopped")
        assert (line["reason"], line["level"]) == ("failed", "warning")
        wait_until(lambda: not any(MEMORY.iterdir()), "nothing is left of it")


def test_what_past_guests_left_is_removed_at_the_start_and_later(hooked: Libvirtd) -> None:
    hooked.create(domain_xml("alive", 64))
    first = leave("900-gone")
    with agent() as running:
        wait_until(lambda: not first.exists(), "it is removed")
        second = leave("901-gone")
        wait_until(lambda: not second.exists(), "it is removed")
        running.wait_metric("ramshelf_cleaned_directories_total", lambda value: value == 2)
        assert directory("alive").is_dir()


def test_a_bypass_is_told_of_while_it_lasts(hooked: Libvirtd) -> None:
    with agent() as running:
        ramshelf("hook", "bypass", "--for", "1h")
        running.wait_log("began", code="hook.bypassed")
        hooked.create(domain_xml("large", 2048))
        assert running.wait_log("guest-bypassed")["guest"] == "large"
        ramshelf("hook", "bypass", "--end")
        running.wait_log("ended", code="hook.bypassed")


@pytest.mark.parametrize("file_system", ["tmpfs", "ext4"])
def test_guests_started_without_the_hook_are_reserved_late(
    libvirtd: Libvirtd, file_system: str
) -> None:
    """What may be plugged in is promised, and on a disk every block is allocated."""
    with store(file_system, 1024), agent() as running:
        assert running.wait_log("began", code="hook.missing")["level"] == "error"
        libvirtd.create(domain_xml("guest", 128, cpu=NUMA, top=PLUGGABLE))
        running.wait_metric(guest_metric("guest", "promised"), lambda value: value == 384 * MIB)
        late = file_system != "tmpfs"  # there is nothing to be allocated
        if late:
            running.wait_log("reserved-late", guest="guest")
        status = (directory("guest") / "ram-node0").stat()
        assert not late or status.st_blocks * 512 >= status.st_size == 128 * MIB
        running.wait_metric("ramshelf_late_reservations_total", lambda value: value == late)
        assert running.events().count("reserved-late") == late
        wait_until(Path("/run/ramshelf/guests/guest.guest").exists, "the agent has noted it")


def test_a_guest_that_was_noted_before_its_files_were_there_is_reserved_late(
    libvirtd: Libvirtd,
) -> None:
    """As by somebody who looks while it is just starting without the hook."""
    with store("ext4", 1024):
        libvirtd.create(domain_xml("guest", 128))
        [noted] = observe_store().notes
        ledger.write_note(replace(noted, files=()))
        with agent() as running:
            assert running.wait_log("reserved-late", guest="guest")["files"] == [
                str(directory("guest") / "pc.ram")
            ]
            running.wait_metric("ramshelf_late_reservations_total", lambda value: value == 1)


def test_a_guest_that_needs_more_than_there_is_runs_on_and_is_told(libvirtd: Libvirtd) -> None:
    """It was started without the hook, and what it may come to need counts.

    So nobody else is admitted there.
    """
    with store("tmpfs", 256), agent() as running:
        libvirtd.create(domain_xml("guest", 128, cpu=NUMA, top=PLUGGABLE))
        told = running.wait_log("began", code="store.overpromised")
        assert "384 MiB are promised" in told["message"]
        libvirtd.virsh("destroy", "guest")
        running.wait_log("ended", code="store.overpromised")


@pytest.mark.parametrize("file_system", ["tmpfs", "ext4"])
def test_hot_plugged_memory_is_within_the_promise(libvirtd: Libvirtd, file_system: str) -> None:
    """On a disk it gets its extents; nothing was missing, so nothing is told or counted."""

    def given() -> bool:
        return (
            file_system == "tmpfs"
            or (directory("guest") / "dimm0").stat().st_blocks * 512 >= 128 * MIB
        )

    with store(file_system, 1024), agent() as running:
        ramshelf("hook", "install")
        libvirtd.create(domain_xml("guest", 128, cpu=NUMA, top=PLUGGABLE))
        libvirtd.virsh("attach-device", "guest", "/dev/stdin", "--live", stdin=DIMM)
        running.wait_metric(guest_metric("guest", "size"), lambda value: value == 256 * MIB)
        wait_until(given, "the memory that was plugged in has its extents")
        looked = running.scrape()["ramshelf_look_timestamp_seconds"]
        running.wait_metric("ramshelf_look_timestamp_seconds", lambda value: value > looked + 1)
        figures = running.scrape()
        assert figures[guest_metric("guest", "promised")] == 384 * MIB
        assert figures["ramshelf_store_promised_bytes"] == 384 * MIB
        assert figures["ramshelf_late_reservations_total"] == 0
        assert running.events().count("reserved-late") == 0


def test_memory_plugged_into_a_guest_that_no_hook_saw_is_promised(libvirtd: Libvirtd) -> None:
    with store("tmpfs", 1024):
        libvirtd.create(domain_xml("guest", 128, cpu=NUMA, top=PLUGGABLE))
        libvirtd.virsh("attach-device", "guest", "/dev/stdin", "--live", stdin=DIMM)
        assert json.loads(ramshelf("capacity", "--json").stdout)["promised_mib"] == 384
        with agent() as running:
            running.wait_metric(guest_metric("guest", "promised"), lambda value: value == 384 * MIB)
        assert "guest.hot-plugged" not in ramshelf("doctor", "--json", ok=(2,)).stdout


def test_what_a_dump_has_populated_is_given_back(hooked: Libvirtd, tmp_path: Path) -> None:
    with agent() as running:
        hooked.create(domain_xml("guest", 512, dirty_mib=16))
        wait_console("guest", "DIRTIED")
        looked = running.scrape()["ramshelf_look_timestamp_seconds"]
        running.wait_metric("ramshelf_look_timestamp_seconds", lambda value: value > looked + 1)
        before = running.scrape()[guest_metric("guest", "allocated")]
        assert before < 384 * MIB
        hooked.virsh("dump", "guest", str(tmp_path / "dump"), "--memory-only")
        assert running.wait_log("trimming", guest="guest")["grown_mib"] >= 64
        running.wait_log("trimmed", guest="guest")
        running.wait_metric(
            guest_metric("guest", "allocated"), lambda value: value < before + 64 * MIB
        )
        assert hooked.virsh("domstate", "guest").stdout.strip() == "running"


def test_a_store_that_shrinks_below_its_promise_is_shouted_about(hooked: Libvirtd) -> None:
    with agent() as running:
        hooked.create(domain_xml("guest", 256))
        running.wait_metric("ramshelf_store_promised_bytes", lambda value: value == 256 * MIB)
        run("mount", "-o", "remount,size=200M", str(MEMORY))
        assert running.wait_log("began", code="store.overpromised")["level"] == "error"
        assert running.wait_log("capacity-changed")["capacity_mib"] == 200
        running.wait_metric(finding("store.overpromised", "failure"), lambda value: value == 1)
        assert running.scrape()["ramshelf_store_free_bytes"] == 0
        run("mount", "-o", "remount,size=1024M", str(MEMORY))
        running.wait_log("ended", code="store.overpromised")
        running.wait_metric(finding("store.overpromised", "failure"), lambda value: value == 0)
        assert hooked.virsh("domstate", "guest").stdout.strip() == "running"


@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
def test_a_disk_store_that_fills_up_is_shouted_about_while_there_is_room(
    libvirtd: Libvirtd, file_system: str
) -> None:
    ramshelf("hook", "install")
    with store(file_system, 400):
        libvirtd.create(domain_xml("guest", 128))
        with agent() as running:
            size, used = size_and_used(MEMORY)
            stranger = MEMORY / "stranger"
            run("fallocate", "--length", str(size - used - 2 * MIB), str(stranger))
            line = running.wait_log("began", code="store.extents")
            assert line["message"].startswith(("1 MiB of the ", "2 MiB of the "))
            assert "store.extents" in ramshelf("doctor", ok=(2,)).stdout
            stranger.unlink()
            running.wait_log("ended", code="store.extents")
        assert "store.extents" not in ramshelf("doctor", ok=(1, 2)).stdout


def test_lost_swap_is_lost_capacity(libvirtd: Libvirtd) -> None:
    with store("swap", 256):
        [own] = own_swaps()
        if any(area.path != own for area in swaps()):
            pytest.skip("there is other swap on this machine, and a store over swap counts all")
        fstab = Path("/etc/fstab")
        fstab.write_text(fstab.read_text().replace(",x-ramshelf.beyond-swap", ""))
        libvirtd.create(domain_xml("guest", 128))
        with agent() as running:
            running.wait_metric("ramshelf_store_capacity_bytes", lambda value: value > 128 * MIB)
            run("swapoff", own)
            running.wait_log("began", code="store.overpromised")
            assert running.scrape()["ramshelf_store_capacity_bytes"] == 0
            run("swapon", own)
            running.wait_log("ended", code="store.overpromised")


def test_a_store_that_is_unmounted_is_told_once(host: None, libvirtd: Libvirtd) -> None:  # noqa: ARG001
    with store("tmpfs", 128), agent() as running:
        wait_until(
            lambda: run("umount", str(MEMORY), ok=(0, 32)).status == 0,
            "the store is unmounted",
        )
        running.wait_log("began", code="store.not-mounted")
        running.wait_metric("ramshelf_store_mounted", lambda value: value == 0)
        run("mount", str(MEMORY))
        running.wait_log("ended", code="store.not-mounted")
        running.wait_metric("ramshelf_store_mounted", lambda value: value == 1)
        assert running.events().count("began store.not-mounted") == 1


def test_libvirtd_is_restarted_killed_and_frozen(hooked: Libvirtd) -> None:
    with agent() as running:
        hooked.create(domain_xml("guest", 64))
        running.wait_metric(guest_metric("guest", "promised"), lambda value: value == 64 * MIB)
        for number, end in enumerate((hooked.stop, hooked.kill), start=1):
            end()
            running.wait_metric("libvirt_up", lambda value: value == 0)
            assert running.scrape()[guest_metric("guest", "promised")] == 64 * MIB
            hooked.start()
            running.wait_metric("libvirt_up", lambda value: value == 1)
            away = [event for event in running.events() if event.startswith("began libvirt.")]
            assert len(away) >= number
        os.kill(hooked.pid, signal.SIGSTOP)
        try:
            running.wait_metric("libvirt_up", lambda value: value == 0)
        finally:
            os.kill(hooked.pid, signal.SIGCONT)
        running.wait_metric("libvirt_up", lambda value: value == 1)
        hooked.virsh("destroy", "guest")
        running.wait_log("guest-stopped", guest="guest")


def test_a_look_that_had_to_wait_for_libvirt_puts_off_none(hooked: Libvirtd) -> None:
    """A guest may take as long to start: ten times as long without a look would be minutes."""

    def looked() -> float:
        return running.scrape()["ramshelf_look_timestamp_seconds"]

    with agent() as running:
        before = looked()
        running.wait_metric("ramshelf_look_timestamp_seconds", lambda value: value > before)
        os.kill(hooked.pid, signal.SIGSTOP)
        try:
            # Less than libvirt's client takes to give a daemon up that does not answer: 20 s.
            wait_until(lambda: time.time() - looked() > 15, "it waits")
        finally:
            os.kill(hooked.pid, signal.SIGCONT)
        running.wait_metric("ramshelf_look_duration_seconds", lambda value: value > 9)
        waited = looked()
        running.wait_metric("ramshelf_look_timestamp_seconds", lambda value: value > waited)


def test_it_ends_at_once_while_libvirtd_hangs(hooked: Libvirtd) -> None:
    with agent() as running:
        looked = running.scrape()["ramshelf_look_timestamp_seconds"]
        running.wait_metric("ramshelf_look_timestamp_seconds", lambda value: value > looked)
        os.kill(hooked.pid, signal.SIGSTOP)
        try:
            # It waits for an answer when whole intervals have passed without a look.
            wait_until(
                lambda: time.time() - running.scrape()["ramshelf_look_timestamp_seconds"] > 3,
                "it waits for libvirt",
            )
            running.process.terminate()
            assert running.process.wait(timeout=HANG) == 0
        finally:
            os.kill(hooked.pid, signal.SIGCONT)
            running.process = Agent().process  # The context ends this one.
            running.wait_metric("libvirt_up", lambda value: value == 1)


def test_guests_that_start_and_end_unseen_are_told_of(hooked: Libvirtd) -> None:
    """What happened while the agent or libvirt was away is there at the next look."""
    hooked.create(domain_xml("stays", 64))
    hooked.create(domain_xml("ends", 64))
    with agent() as running:
        running.wait_metric("ramshelf_store_promised_bytes", lambda value: value == 128 * MIB)
        pid = qemu_pid("ends")
        assert pid is not None
        hooked.kill()
        os.kill(pid, signal.SIGKILL)
        hooked.start()
        running.wait_metric("ramshelf_store_promised_bytes", lambda value: value == 64 * MIB)
        wait_until(
            lambda: (
                sum(value for name, value in running.scrape().items() if "stops_total" in name) == 1
            ),
            "its end is counted once",
        )
        assert running.wait_log("guest-stopped", guest="ends")["reason"] == "unseen"
        hooked.virsh("destroy", "stays")
        assert running.wait_log("guest-stopped", guest="stays")["reason"] == "destroyed"


def test_the_second_agent_is_refused(hooked: Libvirtd) -> None:  # noqa: ARG001
    with agent() as running:
        second = ramshelf("agent", "run", ok=(1,))
        assert f"(process {running.process.pid}). [agent.running]" in second.stderr
        assert "hint: " in second.stderr
        running.kill()
        running.process = Agent().process  # the lock ended with its holder
        running.wait_metric("libvirt_up", lambda value: value == 1)


@pytest.mark.parametrize("rounds", [12, pytest.param(200, marks=pytest.mark.soak)])
def test_killed_at_random_it_converges(
    hooked: Libvirtd, rounds: int, record_property: Callable[[str, object], None]
) -> None:
    seed = secrets.randbelow(1 << 32)
    record_property("seed", seed)
    chance = random.Random(seed)  # noqa: S311 - no secret
    for number in range(rounds):
        running = Agent()
        hooked.create(
            domain_xml("guest", 64, cpu=CELL, top="<maxMemory slots='1' unit='MiB'>96</maxMemory>")
        )
        leave(f"{10000 + number}-gone")
        with suppress(subprocess.TimeoutExpired):  # it is to be in the middle of something
            running.process.wait(timeout=chance.uniform(0.1, 1.5))
        if number < rounds - 1 or chance.random() < 0.5:
            hooked.virsh("destroy", "guest")
        running.kill()
        if chance.random() < 0.3:
            hooked.kill()
            hooked.start()
    alive = set(hooked.virsh("list", "--name").stdout.split())
    with agent() as last:
        last.wait_metric(
            "ramshelf_store_promised_bytes", lambda value: value == len(alive) * 96 * MIB
        )
        wait_until(lambda: len(list(MEMORY.iterdir())) == len(alive), "nothing is left")
        assert {path.name.partition("-")[2] for path in MEMORY.iterdir()} == alive
        assert last.scrape()["ramshelf_store_unowned_bytes"] == 0


def test_reload_takes_the_configuration_anew(hooked: Libvirtd) -> None:  # noqa: ARG001
    with agent() as running:
        good = CONF.read_text()
        CONF.write_text(f"{good}metrics_prot = 1\n")
        running.signal(signal.SIGHUP)
        running.wait_log("began", code="config.unknown-key")
        assert running.scrape()["libvirt_up"] == 1
        CONF.write_text(f"{good}[libvirt]\nfile_backed_memory = 100\n")
        running.signal(signal.SIGHUP)
        running.wait_log("ended", code="config.unknown-key")
        running.wait_metric("ramshelf_store_capacity_bytes", lambda value: value == 100 * MIB)
        CONF.write_text(f"{good}metrics_port = 10178\n")
        running.signal(signal.SIGHUP)
        wait_until(lambda: not running.scrape(), "it no longer listens there")
        CONF.write_text(good)
        running.signal(signal.SIGHUP)
        running.wait_metric("libvirt_up", lambda value: value == 1)


def test_a_port_that_another_has_keeps_nothing_else_from_being_done(
    hooked: Libvirtd,  # noqa: ARG001
) -> None:
    with socket.create_server(("127.0.0.1", 10177)), agent(wait=False) as running:
        running.wait_log("began", code="metrics.no-address")
        left = leave("901-gone")
        wait_until(lambda: not left.exists(), "it is removed")


def test_promtool_finds_nothing(hooked: Libvirtd) -> None:
    with agent() as running:
        hooked.create(domain_xml("gu\\é", 64))
        hooked.create(domain_xml("large", 2048), ok=(1,))
        running.wait_log("guest-refused")
        running.wait_metric("ramshelf_store_promised_bytes", lambda value: value == 64 * MIB)
        text = running.scraped()
        assert promtool(text) == ""
        assert 'libvirt_domain_memory_backing_size_bytes{domain="gu\\\\é"}' in text


def test_without_pressure_figures(hooked: Libvirtd) -> None:  # noqa: ARG001
    """As on a kernel without them, or booted with psi=0."""
    present = Path("/proc/pressure").is_dir()
    with agent() as running:
        name = 'ramshelf_pressure_waiting_seconds_total{resource="memory"}'
        assert (name in running.scrape()) == present
    if present:
        run("mount", "-t", "tmpfs", "none", "/proc/pressure")
        try:
            with agent() as running:
                assert name not in running.scrape()
                assert running.scrape()["libvirt_up"] == 1
        finally:
            run("umount", "/proc/pressure")


def test_as_its_unit_confines_it_it_does_and_finds_the_same(libvirtd: Libvirtd) -> None:
    """With few capabilities, in a mount namespace of its own where nearly all is read-only."""

    def session(wrapper: tuple[str, ...]) -> set[str]:
        with agent(wrapper=wrapper) as running:
            left = leave("900-gone")
            libvirtd.create(domain_xml("guest", 128, dirty_mib=16, cpu=NUMA, top=PLUGGABLE))
            running.wait_log("reserved-late", guest="guest")
            running.wait_metric(guest_metric("guest", "resident"), lambda value: value > 16 * MIB)
            wait_until(lambda: not left.exists(), "it is removed")
            checked = running.scrape()["ramshelf_check_timestamp_seconds"]
            running.wait_metric("ramshelf_check_timestamp_seconds", lambda value: value > checked)
            libvirtd.virsh("destroy", "guest")
            running.wait_log("guest-stopped")
            return {event for event in running.events() if event.startswith("began")}

    with store("ext4", 1024):
        free = session(())
        assert "began hook.missing" in free
        assert session(confined()) <= free


def test_as_its_unit_confines_it_it_sees_the_daemon_that_calls_the_hook(hooked: Libvirtd) -> None:
    hooked.restart()
    with agent(wrapper=confined()) as running:
        assert not [event for event in running.events() if event.startswith("began hook.")]
    # libvirt was not asked by a probe.
    assert not list(Path("/var/log/libvirt/qemu").glob("ramshelf-probe-*"))


@pytest.mark.parametrize("options", [(), ("--config-file", "/etc/nova/nova conf%.conf")])
def test_its_units_are_such_that_systemd_takes_them(
    host: None,  # noqa: ARG001
    options: tuple[str, ...],
    tmp_path: Path,
) -> None:
    systemd = Path("/run/systemd/system")
    systemd.mkdir(parents=True, exist_ok=True)
    try:
        plan = json.loads(ramshelf(*options, "agent", "install", "--dry-run", "--json").stdout)[
            "actions"
        ]
    finally:
        systemd.rmdir()  # systemd-analyze makes its parent
    assert [action["change"][0] for action in plan[len(NAMES) :]] == [
        "systemctl daemon-reload",
        "systemctl reenable ramshelf-agent.service",
        "systemctl restart ramshelf-agent.service",
    ]
    files = [tmp_path / name for name in NAMES]
    for file, action in zip(files, plan, strict=False):
        diff = action["change"]
        added = [line[1:] for line in diff if line[:1] == "+" and line[:3] != "+++"]
        file.write_text("\n".join(added) + "\n")
    verified = run("systemd-analyze", "--man=no", "verify", *map(str, files))  # a package has it
    assert verified.stdout + verified.stderr == ""


def test_installing_it_where_there_is_no_systemd(host: None) -> None:  # noqa: ARG001
    refused = ramshelf("agent", "install", ok=(1,))
    assert "[agent.no-systemd]" in refused.stderr
    assert ramshelf("agent", "remove").stdout == "The agent is not installed.\n"


def test_removing_it_again_leaves_nothing(host: None) -> None:  # noqa: ARG001
    """A removal that was cut off has removed the units, and not yet what is in /run."""
    ramshelf("hook", "bypass", "--for", "1s")
    assert Path("/run/ramshelf/hook.log").exists()
    ramshelf("agent", "remove")
    assert not Path("/run/ramshelf").exists()


def test_the_service_manager_hears_that_it_is_ready_and_alive(
    hooked: Libvirtd,  # noqa: ARG001
    tmp_path: Path,
) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(HANG)
        running = Agent(NOTIFY_SOCKET=name, WATCHDOG_USEC="3000000")
        try:
            heard = [manager.recv(4096).decode()]
            while not any(message.startswith("READY=1") for message in heard):
                heard.append(manager.recv(4096).decode())
            beats = 0
            while beats < 3:
                beats += manager.recv(4096) == b"WATCHDOG=1"
            running.process.terminate()
            while manager.recv(4096) != b"STOPPING=1":
                pass
            assert running.process.wait(timeout=HANG) == 0
        finally:
            if running.process.poll() is None:
                running.kill()
