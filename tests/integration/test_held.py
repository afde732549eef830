"""A guest that is held still for moments goes on, whatever becomes of who holds it."""

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ramshelf.core.units import MIB
from ramshelf.node.guest.hold import Pauser
from ramshelf.node.guest.let_go import resume_left
from ramshelf.node.guest.trim import trim_guest
from ramshelf.system.heldnotes import orphaned, pending
from ramshelf.system.hooklogfollower import recorded
from ramshelf.system.hypervisor import Hypervisor
from support.agent import agent, confined
from support.cli import ramshelf
from support.domains import console, domain_xml, qemu_pid, wait_console
from support.libvirtd import Libvirtd
from support.moving import moving
from support.onstore import wait_recorded
from support.process import HANG, run, thread_states, wait_until
from support.second_host import second_host
from support.stores import MEMORY, store

MOMENT = 0.03
"""Seconds that a guest is held at a time, about."""
ASKED = 0.5
"""Seconds in which a command of virsh's has asked libvirt, mostly; a late one shows less."""

NOTES = Path("/run/ramshelf/held")


@pytest.fixture
def guest(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    """A guest on a tmpfs that checks its memory again and again."""
    with store("tmpfs", 600):
        libvirtd.define(domain_xml("guest", 256, options="ramshelf.check=8"))
        libvirtd.virsh("start", "guest")
        wait_console("guest", "CHECKED 1")
        yield libvirtd


def populate(mib: int = 24) -> None:
    """Have the guest occupy memory that it does not use, as after a dump."""
    [path] = MEMORY.glob("*-guest/pc.ram")
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 64 * MIB, mib * MIB)


def state(libvirtd: Libvirtd) -> str:
    return libvirtd.virsh("domstate", "guest").stdout.strip()


def is_stopped() -> bool:
    """Whether a thread of the guest's QEMU is stopped, by a signal or a tracer."""
    return bool({"T", "t"} & thread_states(qemu_pid("guest") or 0))


def goes_on(word: str = "CHECKED") -> None:
    """The guest has checked all of its memory again, and it was whole."""
    said = console("guest").count(word)
    wait_until(
        lambda: "DAMAGED" in console("guest") or console("guest").count(word) >= said + 2,
        "the guest goes on",
    )
    assert "DAMAGED" not in console("guest")


TRIMMERS = """
import os, signal, sys
from ramshelf.core.errors import RamshelfError
from ramshelf.node.guest.trim import trim_guest
from ramshelf.system.hypervisor import Hypervisor

def trim(where, linger):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    lingers = True

    def after_step(step):
        nonlocal lingers
        print(step, flush=True)
        if step == where and lingers:
            lingers = signal.sigtimedwait({signal.SIGUSR1}, linger) is None

    try:
        with Hypervisor("qemu:///system") as hypervisor:
            trim_guest(hypervisor, "guest", after_step=after_step)
    except RamshelfError as error:
        print(error.code, flush=True)
        return 1
    return 0

for line in sys.stdin:
    trimmer = os.fork()
    if not trimmer:
        where, linger = line.split()
        os._exit(trim(where, float(linger)))
    print(trimmer, flush=True)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(trimmer, 0)[1]), flush=True)
"""


class Trimmers:
    """Trims, each a process of its own, from a process that has imported what they need."""

    def __init__(self) -> None:
        self._nursery = subprocess.Popen(
            [sys.executable, "-c", TRIMMERS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.trimmer = 0
        self.last = ""

    def begin(self, linger: float = 0, *, after: str = "held") -> None:
        """Begin a trim that waits for so many seconds after this step, each time it is done."""
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(f"{after} {linger}\n")
        self._nursery.stdin.flush()
        self.trimmer = int(self._line())

    def wait_step(self, step: str) -> None:
        """Until it has done this step."""
        while (line := self._line()) != step:
            assert not line.startswith("ended"), line

    def go_on(self) -> None:
        """Let it wait no more."""
        os.kill(self.trimmer, signal.SIGUSR1)

    def kill_with_guard(self) -> bool:
        """End the trim and its guard at once; whether it had not ended before."""
        with suppress(ProcessLookupError):
            os.kill(self.trimmer, signal.SIGKILL)
        for guard in guards():
            with suppress(ProcessLookupError):
                os.kill(guard, signal.SIGKILL)
        return self.wait_end() == -signal.SIGKILL

    def wait_end(self) -> int:
        """Its exit status once it has ended; ``last`` is then its last step or its error's code."""
        while not (line := self._line()).startswith("ended"):
            self.last = line
        return int(line.split()[1])

    def close(self) -> None:
        """No more of them."""
        self._nursery.communicate(timeout=HANG)

    def _line(self) -> str:
        assert self._nursery.stdout is not None
        line = self._nursery.stdout.readline().strip()
        assert line, "the trims' parent has ended"
        return line


@pytest.fixture
def trimmers() -> Iterator[Trimmers]:
    found = Trimmers()
    yield found
    found.close()


def guards() -> list[int]:
    """The guards that wait for the end of a trim."""
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            if b"ramshelf.node.guest.hold_guard" in Path(f"/proc/{entry}/cmdline").read_bytes():
                found.append(int(entry))
    return found


def begin_and_wait(trimmers: Trimmers, after: str) -> None:
    """Begin a trim, which then waits after this step until it is told to go on."""
    populate()
    trimmers.begin(linger=HANG, after=after)
    trimmers.wait_step(after)


def wait_asked() -> None:
    """Until libvirt has asked QEMU to let the guest that is held go on."""
    wait_until(
        lambda: "occupied" in run("virsh", "domcontrol", "guest").stdout, "libvirt is busy with it"
    )


def trim_and_kill(trimmers: Trimmers, after: str) -> None:
    """Leave the guest as one whose trim was killed together with its guard after this step."""
    begin_and_wait(trimmers, after)
    assert trimmers.kill_with_guard()


def leave_paused(trimmers: Trimmers) -> None:
    """Have libvirt pause the guest for one who does not live to ask for more."""
    trim_and_kill(trimmers, "paused")


@pytest.mark.parametrize("rounds", [40, pytest.param(1000, marks=pytest.mark.soak)])
def test_killing_trim_and_guard_at_any_time_leaves_no_stopped_guest(
    guest: Libvirtd, trimmers: Trimmers, rounds: int
) -> None:
    """QEMU goes on as the trim is gone, and the guest at once or when anybody comes next."""
    figures = {"killed": 0, "left paused": 0}
    with Hypervisor(guest.uri) as hypervisor:
        domain_id = hypervisor.find("guest").domain_id or 0
        populate()
        begin = time.monotonic()
        trimmers.begin()
        assert trimmers.wait_end() == 0
        duration = time.monotonic() - begin
        chance = random.Random(rounds)  # noqa: S311 - no secret
        for number in range(rounds):
            populate()
            step = ("", "paused", "held")[number % 3]
            trimmers.begin(linger=30 if step == "paused" else 0, after="paused")
            if step:
                trimmers.wait_step(step)
            time.sleep(chance.uniform(0, MOMENT if step else duration))
            figures["killed"] += trimmers.kill_with_guard()
            assert not is_stopped()
            figures["left paused"] += hypervisor.state(domain_id) == "paused"
            assert resume_left(hypervisor) == ()
            assert hypervisor.state(domain_id) == "running"
            assert not is_stopped()
    print(figures, duration)  # noqa: T201 - shown by pytest -s
    assert min(figures.values()) > rounds // 20
    goes_on()
    populate()
    assert json.loads(ramshelf("guest", "trim", "guest", "--json").stdout)["pauses"] > 0
    assert state(guest) == "running"
    assert not list(NOTES.iterdir())


def test_a_guest_that_somebody_has_paused_stays_so(guest: Libvirtd, trimmers: Trimmers) -> None:
    guest.virsh("suspend", "guest")
    with Hypervisor(guest.uri) as hypervisor:
        for _ in range(10):
            trim_and_kill(trimmers, "held")
            assert not is_stopped()
            assert orphaned() == ()
            assert resume_left(hypervisor) == ()
            assert state(guest) == "paused"
    guest.virsh("resume", "guest")
    goes_on()


def test_the_agent_comes_next(guest: Libvirtd, trimmers: Trimmers) -> None:
    """With no more than its unit grants, which is enough to hold a guest as well."""
    leave_paused(trimmers)
    assert state(guest) == "paused"
    guest.virsh("suspend", "guest")  # libvirt does nothing, and does not remember it
    with agent(wrapper=confined()) as running:
        wait_until(lambda: state(guest) == "running", "the guest runs again")
        assert running.wait_log("guest-resumed")["guest"] == "guest"
        leave_paused(trimmers)
        wait_until(lambda: state(guest) == "running", "the guest runs again")
        guest.virsh(
            "dump", "--memory-only", "--live", "guest", str(Path(os.environ["TMPDIR"], "dump"))
        )
        running.wait_log("trimmed", guest="guest")
    assert wait_recorded("guest", "trimmed")["pauses"] > 0
    goes_on()


def test_a_stop_and_what_the_hook_leaves_come_next(guest: Libvirtd, trimmers: Trimmers) -> None:
    leave_paused(trimmers)
    assert orphaned() == ("guest",)
    domain_id = guest.virsh("domid", "guest").stdout.strip()
    run(sys.executable, "-I", "-m", "ramshelf.node.guest.aftercare", "guest", domain_id, "resume")
    assert state(guest) == "running"
    assert wait_recorded("guest", "resumed")["id"] == int(domain_id)
    leave_paused(trimmers)
    stopped = json.loads(ramshelf("guest", "stop", "guest", "--json").stdout)
    assert stopped["how"] == "shut down"
    assert not list(NOTES.iterdir())


def test_the_guard_comes_next_at_once(guest: Libvirtd, trimmers: Trimmers) -> None:
    begin_and_wait(trimmers, "paused")
    os.kill(trimmers.trimmer, signal.SIGKILL)
    trimmers.wait_end()
    wait_until(lambda: state(guest) == "running", "the guest runs again")
    wait_until(lambda: not guards(), "the guard has ended")
    assert not list(NOTES.iterdir())
    goes_on()


def count_resumed() -> int:
    return sum(entry["event"] == "resumed" for entry in recorded("guest"))


def test_one_whose_trim_is_killed_in_a_moment_goes_on_by_itself(
    guest: Libvirtd, trimmers: Trimmers
) -> None:
    """libvirt was asked to resume it already; and whoever comes next does not do it again."""
    resumed = count_resumed()
    begin_and_wait(trimmers, "held")
    wait_asked()
    assert trimmers.kill_with_guard()
    wait_until(lambda: state(guest) == "running", "the guest runs again")
    assert orphaned() == ("guest",)
    with Hypervisor(guest.uri) as hypervisor:
        assert resume_left(hypervisor) == ()
        assert not list(NOTES.iterdir())
        guest.virsh("suspend", "guest")
        assert resume_left(hypervisor) == ()
    assert state(guest) == "paused"
    assert count_resumed() == resumed
    guest.virsh("resume", "guest")
    goes_on()


def test_a_guest_that_has_ended_is_forgotten(guest: Libvirtd, trimmers: Trimmers) -> None:
    leave_paused(trimmers)
    guest.virsh("destroy", "guest")
    with Hypervisor(guest.uri) as hypervisor:
        assert resume_left(hypervisor) == ()
        assert not pending("guest")
        guest.virsh("start", "guest")
        guest.virsh("suspend", "guest")
        assert resume_left(hypervisor) == ()
    assert state(guest) == "paused", "it is another run"


def test_a_qemu_that_dies_while_it_is_held(guest: Libvirtd, trimmers: Trimmers) -> None:
    populate()
    qemu = qemu_pid("guest") or 0
    trimmers.begin(linger=1)
    trimmers.wait_step("held")
    os.kill(qemu, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{qemu}"), "nothing of QEMU is left")
    assert trimmers.wait_end() == 1
    assert trimmers.last in {"guest.not-found", "guest.state", "libvirt.failed"}
    wait_until(lambda: state(guest) == "shut off", "libvirt knows that it has ended")
    wait_until(lambda: not list(NOTES.iterdir()), "it is forgotten")
    guest.virsh("start", "guest")


def test_a_guest_that_is_held_can_be_ended_meanwhile(guest: Libvirtd, trimmers: Trimmers) -> None:
    """When libvirt asks QEMU to end, it does so at once, however long it was to be held."""
    populate()
    trimmers.begin(linger=3600)
    trimmers.wait_step("held")
    guest.virsh("destroy", "guest")
    assert state(guest) == "shut off"
    assert trimmers.kill_with_guard()
    with Hypervisor(guest.uri) as hypervisor:
        assert resume_left(hypervisor) == ()
    assert not list(NOTES.iterdir())


@pytest.mark.parametrize("after", ["paused", "held"])
def test_a_libvirtd_that_dies_while_it_is_held_and_the_guard_as_well(
    guest: Libvirtd, trimmers: Trimmers, after: str
) -> None:
    begin_and_wait(trimmers, after)
    os.kill(guest.pid, signal.SIGKILL)
    trimmers.kill_with_guard()
    assert not is_stopped()
    guest.kill()  # reaps it
    guest.start()
    with Hypervisor(guest.uri) as hypervisor:
        wait_until(lambda: resume_left(hypervisor) == () and not orphaned(), "the guest is resumed")
    assert state(guest) == "running"
    goes_on()


@contextmanager
def traced(thread: int) -> Iterator[None]:
    """As strace does: somebody traces this thread, and lets it run."""
    ended, seized = os.pipe(), os.pipe()
    tracer = os.fork()
    if not tracer:
        failed = ctypes.CDLL(None).ptrace(0x4206, thread, None, None)
        os.write(seized[1], b"no" if failed else b"ok")
        os.close(ended[1])
        os.read(ended[0], 1)
        os._exit(0)
    assert os.read(seized[0], 2) == b"ok"
    try:
        yield
    finally:
        os.close(ended[1])
        os.waitpid(tracer, 0)


@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
def test_a_guest_that_somebody_else_traces_is_refused(guest: Libvirtd, which: int) -> None:
    """Before it is paused where all of it is traced, else it is resumed."""
    populate()
    qemu = qemu_pid("guest") or 0
    thread = sorted(int(thread) for thread in os.listdir(f"/proc/{qemu}/task"))[which]
    with traced(thread):
        refused = json.loads(ramshelf("guest", "trim", "guest", "--json", ok=(1,)).stderr)["error"]
        assert refused["code"] == "guest.traced"
        assert state(guest) == "running"
        assert not is_stopped()
    assert json.loads(ramshelf("guest", "trim", "guest", "--json").stdout)["pauses"] > 0
    goes_on()


def test_who_may_not_trace_is_refused_with_a_sentence(
    guest: Libvirtd,  # noqa: ARG001 - has it run
) -> None:
    program = (
        "import sys\nfrom ramshelf.core.errors import HostError\nfrom ramshelf.system.ptrace import"
        " stopped\ntry:\n  with stopped(int(sys.argv[1]), timeout=2): pass\nexcept HostError as "
        "error: print(error.code, error.sentence)"
    )
    bounds = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-all")
    said = run(*bounds, sys.executable, "-c", program, str(qemu_pid("guest"))).stdout
    assert said.startswith("host.no-ptrace This process may not hold QEMU still: ptrace: ")
    assert not is_stopped()


def test_what_a_guest_keeps_is_right_across_many_trims(libvirtd: Libvirtd) -> None:
    with store("tmpfs", 600), Hypervisor(libvirtd.uri) as hypervisor:
        libvirtd.create(domain_xml("guest", 192, options="ramshelf.keep=32"))
        wait_console("guest", "KEPT 1")
        pauses = 0
        for _ in range(50):
            populate(96)
            pauses += trim_guest(hypervisor, "guest").pauses
            assert "DAMAGED" not in console("guest")
        assert pauses >= 50
        goes_on("KEPT")


def virsh_in_a_moment(trimmers: Trimmers, *args: str) -> None:
    """Run virsh while the guest is held; it waits until the moment is over."""
    begin_and_wait(trimmers, "held")
    wait_asked()
    asked = subprocess.Popen(["virsh", *args])
    time.sleep(ASKED)
    assert asked.poll() is None, "it waits"
    trimmers.go_on()
    assert asked.wait(HANG) == 0


def wait_settled(trimmers: Trimmers) -> None:
    """Until the trim has ended, at its end or since the guest was saved, or has gone."""
    assert trimmers.wait_end() in {0, 1}
    assert trimmers.last in {"punched", "guest.busy", "guest.not-found", "guest.state"}
    assert orphaned() == ()


def test_a_guest_that_is_saved_in_a_moment_runs_when_it_is_restored(
    guest: Libvirtd, trimmers: Trimmers
) -> None:
    saved = str(Path(os.environ["TMPDIR"], "saved"))
    virsh_in_a_moment(trimmers, "save", "guest", saved)
    guest.virsh("restore", saved)
    assert state(guest) == "running"
    wait_settled(trimmers)
    goes_on()


def test_a_guest_whose_save_is_managed_in_a_moment_runs_when_it_is_started(
    guest: Libvirtd, trimmers: Trimmers
) -> None:
    virsh_in_a_moment(trimmers, "managedsave", "guest")
    guest.virsh("start", "guest")
    assert state(guest) == "running"
    wait_settled(trimmers)
    goes_on()


def test_a_snapshot_that_is_made_in_a_moment_is_of_a_guest_that_runs(
    guest: Libvirtd, trimmers: Trimmers
) -> None:
    memory = Path(os.environ["TMPDIR"], "snapshot")
    memory.unlink(missing_ok=True)
    virsh_in_a_moment(trimmers, "snapshot-create-as", "guest", "one", "--memspec", str(memory))
    wait_settled(trimmers)
    assert state(guest) == "running"
    assert "<state>running</state>" in guest.virsh("snapshot-dumpxml", "guest", "one").stdout
    goes_on()


def test_a_guest_that_is_suspended_in_a_moment_stays_so(
    guest: Libvirtd, trimmers: Trimmers
) -> None:
    virsh_in_a_moment(trimmers, "suspend", "guest")
    wait_settled(trimmers)
    assert not list(NOTES.iterdir())
    with Hypervisor(guest.uri) as hypervisor:
        assert resume_left(hypervisor) == ()
    assert state(guest) == "paused"
    guest.virsh("resume", "guest")
    goes_on()


@pytest.mark.parametrize("how", [(), ("--p2p",)], ids=["by virsh", "peer to peer"])
def test_a_guest_that_leaves_in_a_moment_runs_where_it_arrives(
    guest: Libvirtd,  # noqa: ARG001 - has it run
    trimmers: Trimmers,
    how: tuple[str, ...],
) -> None:
    with second_host("tmpfs", 600) as second:
        route = (second.uri, "--migrateuri", second.migrate_uri)
        virsh_in_a_moment(trimmers, "migrate", "--live", "guest", *route, *how)
        wait_settled(trimmers)
        assert second.guests() == ["guest"]
        second.wait_running("guest")


@pytest.mark.parametrize("how", [(), ("--p2p",)], ids=["by virsh", "peer to peer"])
def test_a_migration_that_begins_before_the_guest_is_to_be_resumed_is_given_up(
    guest: Libvirtd, trimmers: Trimmers, how: tuple[str, ...]
) -> None:
    """It would arrive paused."""
    with second_host("tmpfs", 600) as second:
        begin_and_wait(trimmers, "paused")
        with moving(guest, second.uri, second.migrate_uri, "--bandwidth", "1", *how) as one:
            trimmers.go_on()
            assert one.ended() == 1, one.said
        trimmers.wait_end()
        assert second.guests() == []
        assert state(guest) == "running"
        assert wait_recorded("guest", "job-given-up")["job"] == "outgoing migration"
        assert not list(NOTES.iterdir())
        goes_on()


def test_a_migration_that_began_when_the_guest_had_gone_on_is_not_given_up(
    guest: Libvirtd,
) -> None:
    """It has waited for the moment to pass, and the answer that it has passed is late."""
    with (
        second_host("tmpfs", 600) as second,
        Hypervisor(guest.uri) as hypervisor,
        moving(guest, second.uri, second.migrate_uri, "--bandwidth", "1") as one,
    ):
        domain = hypervisor.find("guest")
        pauser = Pauser(hypervisor, domain, qemu_pid("guest") or 0, lambda _step: None)
        assert not pauser._give_up()  # noqa: SLF001 - a late answer cannot be had
        one.hurry()
        assert one.ended() == 0, one.said
        assert second.guests() == ["guest"]


def test_a_guest_that_leaves_is_not_held(guest: Libvirtd, trimmers: Trimmers) -> None:
    populate()
    with (
        second_host("tmpfs", 600) as second,
        moving(guest, second.uri, second.migrate_uri, "--bandwidth", "1"),
    ):
        trimmers.begin()
        assert trimmers.wait_end() == 1
        assert trimmers.last == "guest.busy"
        assert state(guest) == "running"
        guest.virsh("domjobabort", "guest")
