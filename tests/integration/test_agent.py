"""``ramshelf agent``: on real guests, with a libvirtd that goes away, and killed itself."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ramshelf.system.procfs import swaps
from support.agent import CONF, PATIENCE, Agent, agent, promtool
from support.cli import ramshelf
from support.domains import domain_xml, qemu_pid, wait_console
from support.libvirtd import Libvirtd
from support.process import run, wait_until
from support.stores import store

MEMORY = Path("/var/lib/libvirt/qemu/ram")
MIB = 1 << 20
NUMA = "<cpu><numa><cell id='0' cpus='0' memory='128' unit='MiB'/></numa></cpu>"
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
        hooked.virsh("destroy", "guest")
        assert running.wait_log("guest-stopped", guest="guest")["reason"] == "destroyed"
        running.wait_metric("ramshelf_store_promised_bytes", lambda value: value == 0)
        figures = running.scrape()
        assert (figures[starts("booted")], figures[stops("destroyed")]) == (1, 1)
        assert figures['ramshelf_guest_refusals_total{code="capacity.exceeded"}'] == 1
        assert guest_metric("guest", "promised") not in figures


def test_a_crash_is_a_warning(hooked: Libvirtd) -> None:
    with agent() as running:
        hooked.create(domain_xml("guest", 128))
        pid = qemu_pid("guest")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        line = running.wait_log("guest-stopped")
        assert (line["reason"], line["level"]) == ("crashed", "warning")
        wait_until(lambda: not any(MEMORY.iterdir()), "nothing is left of it", timeout=PATIENCE)


def test_what_past_guests_left_is_removed_at_the_start_and_later(hooked: Libvirtd) -> None:
    hooked.create(domain_xml("alive", 64))
    first = leave("900-gone")
    with agent() as running:
        wait_until(lambda: not first.exists(), "it is removed", timeout=PATIENCE)
        second = leave("901-gone")
        wait_until(lambda: not second.exists(), "it is removed", timeout=PATIENCE)
        running.wait_metric("ramshelf_cleaned_directories_total", lambda value: value == 2)
        assert directory("alive").is_dir()


@pytest.mark.parametrize("file_system", ["tmpfs", "ext4"])
def test_guests_started_without_the_hook_are_reserved_late(libvirtd: Libvirtd, file_system: str) -> None:
    """What may be plugged in is promised, and on a disk every block is allocated."""
    with store(file_system, 1024), agent() as running:
        assert running.wait_log("began", code="hook.missing")["level"] == "error"
        libvirtd.create(domain_xml("guest", 128, cpu=NUMA, top=PLUGGABLE))
        running.wait_log("reserved-late", guest="guest")
        running.wait_metric(guest_metric("guest", "promised"), lambda value: value == 384 * MIB)
        status = (directory("guest") / "ram-node0").stat()
        assert file_system == "tmpfs" or status.st_blocks * 512 >= status.st_size == 128 * MIB
        running.wait_metric("ramshelf_late_reservations_total", lambda value: value == 1)
        assert running.events().count("reserved-late") == 1


def test_a_guest_that_cannot_be_promised_more_runs_on_and_is_told(libvirtd: Libvirtd) -> None:
    with store("tmpfs", 256), agent() as running:
        libvirtd.create(domain_xml("guest", 128, cpu=NUMA, top=PLUGGABLE))
        running.wait_log("began", code="guest.hot-plug", subject="guest")
        assert not (directory("guest") / ".ramshelf-promise").exists()
        libvirtd.virsh("destroy", "guest")
        running.wait_log("ended", code="guest.hot-plug", subject="guest")


def test_hot_plugged_memory_is_within_the_promise(hooked: Libvirtd) -> None:
    with agent() as running:
        hooked.create(domain_xml("guest", 128, cpu=NUMA, top=PLUGGABLE))
        hooked.virsh("attach-device", "guest", "/dev/stdin", "--live", stdin=DIMM)
        running.wait_metric(guest_metric("guest", "size"), lambda value: value == 256 * MIB)
        figures = running.scrape()
        assert figures[guest_metric("guest", "promised")] == 384 * MIB
        assert figures["ramshelf_store_promised_bytes"] == 384 * MIB
        assert figures["ramshelf_late_reservations_total"] == 0


def test_memory_plugged_into_a_guest_without_a_promise_is_admitted_late(libvirtd: Libvirtd) -> None:
    with store("tmpfs", 1024):
        libvirtd.create(domain_xml("guest", 128, cpu=NUMA, top=PLUGGABLE))
        libvirtd.virsh("attach-device", "guest", "/dev/stdin", "--live", stdin=DIMM)
        before = ramshelf("doctor", "--json", ok=(2,)).stdout
        assert "guest.hot-plugged" in before
        with agent() as running:
            running.wait_log("reserved-late", guest="guest")
            running.wait_metric(guest_metric("guest", "promised"), lambda value: value == 384 * MIB)
        assert "guest.hot-plugged" not in ramshelf("doctor", "--json", ok=(2,)).stdout


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


def test_lost_swap_is_lost_capacity(libvirtd: Libvirtd) -> None:
    with store("swap", 256) as at:
        CONF.parent.mkdir(exist_ok=True)
        fstab = Path("/etc/fstab")
        fstab.write_text(fstab.read_text().replace(",x-ramshelf.beyond-swap", ""))
        libvirtd.create(domain_xml("guest", 128))
        with agent() as running:
            running.wait_metric("ramshelf_store_capacity_bytes", lambda value: value > 128 * MIB)
            own = [area.path for area in swaps() if "/loop" in area.path]
            others = sum(area.size for area in swaps() if area.path not in own)
            for path in own:
                run("swapoff", path)
            running.wait_metric("ramshelf_store_capacity_bytes", lambda value: value <= others)
            if others < 128 * MIB:
                running.wait_log("began", code="store.overpromised")
            for path in own:
                run("swapon", path)
        assert at.is_mount()


def test_a_store_that_is_unmounted_is_told_once(host: None, libvirtd: Libvirtd) -> None:  # noqa: ARG001
    with store("tmpfs", 128), agent() as running:
        run("umount", str(MEMORY))
        running.wait_log("began", code="store.not-mounted")
        running.wait_metric("ramshelf_store_mounted", lambda value: value == 0)
        run("mount", str(MEMORY))
        running.wait_log("ended", code="store.not-mounted")
        running.wait_metric("ramshelf_store_mounted", lambda value: value == 1)
        assert running.events().count("began store.not-mounted") == 1


def test_libvirtd_is_restarted_killed_and_frozen(hooked: Libvirtd) -> None:
    with agent() as running:
        hooked.create(domain_xml("guest", 64))
        for number, end in enumerate((hooked.stop, hooked.kill), start=1):
            end()
            running.wait_metric("libvirt_up", lambda value: value == 0)
            assert running.scrape()[guest_metric("guest", "promised")] == 64 * MIB
            hooked.start()
            running.wait_metric("libvirt_up", lambda value: value == 1)
            assert running.events().count("began libvirt.unreachable") >= number
        os.kill(hooked.pid, signal.SIGSTOP)
        try:
            running.wait_metric("libvirt_up", lambda value: value == 0)
        finally:
            os.kill(hooked.pid, signal.SIGCONT)
        running.wait_metric("libvirt_up", lambda value: value == 1)
        hooked.virsh("destroy", "guest")
        running.wait_log("guest-stopped", guest="guest")


def test_it_ends_at_once_while_libvirtd_hangs(hooked: Libvirtd) -> None:
    with agent() as running:
        os.kill(hooked.pid, signal.SIGSTOP)
        try:
            looked = running.scrape()["ramshelf_look_timestamp_seconds"]
            wait_until(lambda: Path(f"/proc/{running.process.pid}").is_dir(), "it runs", timeout=1)
            running.process.terminate()
            assert running.process.wait(timeout=15) == 0  # libvirt's own patience is more
            assert looked > 0
        finally:
            os.kill(hooked.pid, signal.SIGCONT)
            running.process = Agent().process  # for the end of the context
            running.wait_metric("libvirt_up", lambda value: value == 1)


def test_guests_that_start_and_end_unseen_are_counted(hooked: Libvirtd) -> None:
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
            lambda: sum(value for name, value in running.scrape().items() if "stops_total" in name) == 1,
            "its end is counted once",
            timeout=PATIENCE,
        )


def test_the_second_agent_is_refused(hooked: Libvirtd) -> None:  # noqa: ARG001
    with agent() as running:
        second = ramshelf("agent", ok=(1,))
        assert f"(process {running.process.pid}). [agent.running]" in second.stderr
        assert "hint: " in second.stderr
        running.kill()
        running.process = Agent().process  # the lock ended with its holder
        running.wait_metric("libvirt_up", lambda value: value == 1)


def test_killed_at_random_it_converges(hooked: Libvirtd) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)  # noqa: S311 - no secret
    print("seed", seed)
    for number in range(12):
        running = Agent()
        name = f"guest{number}"
        hooked.create(domain_xml(name, 64, cpu="", top=""))
        leave(f"{900 + number}-gone")
        try:
            running.process.wait(timeout=chance.uniform(0.1, 1.5))
        except TimeoutError:
            pass
        except Exception as error:
            assert "timed out" in str(error)
        if chance.random() < 0.5:
            hooked.virsh("destroy", name)
        running.kill()
        if chance.random() < 0.3:
            hooked.kill()
            hooked.start()
    alive = set(hooked.virsh("list", "--name").stdout.split())
    with agent() as last:
        last.wait_metric("ramshelf_store_promised_bytes", lambda value: value == len(alive) * 64 * MIB)
        wait_until(lambda: len(list(MEMORY.iterdir())) == len(alive), "nothing is left", timeout=PATIENCE)
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
        wait_until(lambda: not running.scrape(), "it no longer listens there", timeout=PATIENCE)
        CONF.write_text(good)
        running.signal(signal.SIGHUP)
        running.wait_metric("libvirt_up", lambda value: value == 1)


def test_a_port_that_another_has_keeps_nothing_else_from_being_done(hooked: Libvirtd) -> None:
    with agent():
        left = leave("900-gone")
        wait_until(lambda: not left.exists(), "it is removed", timeout=PATIENCE)
    program = (
        "import socket,sys; s=socket.create_server(('127.0.0.1',10177)); print(flush=True); sys.stdin.read()"
    )
    import subprocess
    import sys

    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        other.stdout.readline()
        with agent(wait=False) as running:
            running.wait_log("began", code="metrics.no-address")
            left = leave("901-gone")
            wait_until(lambda: not left.exists(), "it is removed", timeout=PATIENCE)
        other.stdin.close()
    assert hooked.virsh("list", "--name").stdout.strip() == ""


def test_promtool_finds_nothing(hooked: Libvirtd) -> None:
    with agent() as running:
        hooked.create(domain_xml('a"\\é', 64))
        hooked.create(domain_xml("large", 2048), ok=(1,))
        running.wait_log("guest-refused")
        running.wait_metric("ramshelf_store_promised_bytes", lambda value: value == 64 * MIB)
        import urllib.request

        with urllib.request.urlopen("http://127.0.0.1:10177/metrics", timeout=30) as answer:
            text = answer.read().decode()
        assert promtool(text) == ""
        assert 'ramshelf_build_info{python="' in text


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


def test_its_memory_does_not_grow(hooked: Libvirtd) -> None:
    with agent() as running:

        def rounds(count: int) -> float:
            for number in range(count):
                hooked.create(domain_xml("guest", 64))
                if number % 4 == 3:
                    hooked.restart()
                hooked.virsh("destroy", "guest")
            running.wait_metric("libvirt_up", lambda value: value == 1)
            running.wait_metric("ramshelf_store_promised_bytes", lambda value: value == 0)
            return running.scrape()["process_resident_memory_bytes"]

        first = rounds(12)
        second = rounds(24)
        figures = running.scrape()
        assert second <= first * 1.05
        assert figures["process_open_fds"] <= 16
        assert len(os.listdir(f"/proc/{running.process.pid}/task")) <= 8


def test_as_its_unit_confines_it(libvirtd: Libvirtd) -> None:
    wait_console  # noqa: B018
