"""QEMU's user attacks the store while guests start and end: nobody but itself is harmed.

The attacker is a real process with that uid and nothing else (support/attacker.py). All the while
guests start, are refused and end, and ``store clean`` and the agent go on. After each round the
attacker is stopped for a moment, and what is there is compared with what would be there without it.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ramshelf.core.store.capacity import capacity
from ramshelf.core.units import MIB
from ramshelf.system.backingstore import observe_store
from support import attacker
from support.agent import agent
from support.cli import ramshelf
from support.domains import domain_xml, qemu_pid
from support.libvirtd import Libvirtd
from support.onstore import wait_recorded
from support.process import run, wait_until
from support.stores import MEMORY, store

NOTES = Path("/run/ramshelf/guests")
LOG = Path("/run/ramshelf/hook.log")
VICTIM_MIB = 32
ROUNDS = 50


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A directory of root's that looks as a store does, and that nobody may touch."""
    tmp_path.chmod(0o755)
    outside = tmp_path / "foreign"
    (outside / "12345678-9abc-4def-8123-456789abcdef").mkdir(parents=True)
    (outside / "12345678-9abc-4def-8123-456789abcdef" / "disk").write_text("an instance's disk")
    (outside / "1-victim").mkdir()
    (outside / "1-victim" / "pc.ram").write_text("another memory file")
    (outside / "precious").write_text("precious")
    return outside


def picture(directory: Path) -> dict[str, tuple[object, ...]]:
    """All that lies there: owners, modes, sizes, times and contents."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (directory, *sorted(directory.rglob("*"))):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (
            status.st_uid,
            status.st_mode,
            status.st_size,
            status.st_mtime_ns,
            content,
        )
    return found


GAME = Path("/run/game")


def may_be_attacked(libvirtd: Libvirtd, *guests: str) -> None:
    """From now on only these guests may be attacked; an attack on others is brought to an end."""
    directories = [f"{libvirtd.virsh('domid', each).stdout.strip()}-{each}" for each in guests]
    with GAME.open("r+") as game:
        fcntl.flock(game, fcntl.LOCK_EX)
        game.truncate()
        game.write(" ".join(directories))


@contextmanager
def attack(outside: Path, seed: int) -> Iterator["subprocess.Popen[str]"]:
    """The attacker at work."""
    GAME.touch(mode=0o644)
    GAME.write_text("")
    owner = MEMORY.parent.stat()
    process = subprocess.Popen(
        [
            *(
                "setpriv",
                "--reuid",
                str(owner.st_uid),
                "--regid",
                str(owner.st_gid),
                "--clear-groups",
            ),
            *(sys.executable, attacker.__file__, str(MEMORY), str(outside), str(GAME), str(seed)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def paused(process: "subprocess.Popen[str]") -> Iterator[None]:
    """The attacker does nothing meanwhile."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def promised_mib() -> int:
    usage = observe_store().usage
    assert usage is not None
    return capacity(usage, configured_mib=None).promised // MIB


def refusals() -> set[str]:
    lines = [json.loads(line) for line in LOG.read_text().splitlines()]
    return {line["code"] for line in lines if line["event"] in {"refused", "undecided", "broken"}}


def storm(libvirtd: Libvirtd, outside: Path, file_system: str, rounds: int, seed: int) -> set[str]:
    """Run so many rounds of attacks, and return the kinds of attack that succeeded."""
    before = picture(outside)
    with store(file_system, 400), agent(), attack(outside, seed) as process:
        os.set_blocking(process.stdout.fileno(), False)  # type: ignore[union-attr]
        owner = MEMORY.parent.stat()
        for number in range(rounds):
            # libvirtd does so at each start of its own.
            os.chown(MEMORY, owner.st_uid, owner.st_gid)
            name = f"victim{number % 3}"
            libvirtd.create(domain_xml(name, VICTIM_MIB))
            assert (
                "[capacity.exceeded]" in libvirtd.create(domain_xml("large", 600), ok=(1,)).stderr
            )
            if number % 5 == 0:
                ramshelf("store", "clean")
            os.chown(MEMORY, owner.st_uid, owner.st_gid)
            running = libvirtd.virsh("list", "--name").stdout.split()
            may_be_attacked(libvirtd, *running)
            time.sleep(0.1)
            with paused(process):
                assert promised_mib() == VICTIM_MIB * len(running), number
                assert {path.name for path in NOTES.iterdir()} == {
                    f"{each}.guest" for each in running
                }
                assert all(qemu_pid(each) is not None for each in running)
                assert picture(outside) == before, number
            if len(running) == 3:
                may_be_attacked(libvirtd)
                for each in running:
                    end(libvirtd, each)
        told = set((process.stdout.read() or "").split())  # type: ignore[union-attr]
        may_be_attacked(libvirtd)
        process.kill()
        process.wait()
        for each in libvirtd.virsh("list", "--name").stdout.split():
            end(libvirtd, each)
        wait_until(lambda: not any(NOTES.iterdir()), "no note is left")
        ramshelf("store", "clean")
        left = {path.name for path in MEMORY.iterdir()} - {"lost+found", "libvirt"}
        assert not [name for name in left if name.partition("-")[0].isdigit() and not is_link(name)]
        assert picture(outside) == before
    assert refusals() <= {"capacity.exceeded"}
    return told


def end(libvirtd: Libvirtd, name: str) -> None:
    """End a guest; a link in its directory's place goes first, for libvirt itself would follow it.

    The attacker takes the link away again, unless the hook has taken the directory above from it
    meanwhile.
    """
    path = MEMORY / f"{libvirtd.virsh('domid', name).stdout.strip()}-{name}"
    if path.is_symlink():
        path.unlink()
    libvirtd.virsh("destroy", name)


def is_link(name: str) -> bool:
    return (MEMORY / name).is_symlink()


@pytest.mark.parametrize("file_system", ["tmpfs", "ext4"])
def test_guests_start_and_end_as_if_nobody_attacked(
    libvirtd: Libvirtd, foreign: Path, file_system: str
) -> None:
    ramshelf("hook", "install")
    told = storm(libvirtd, foreign, file_system, ROUNDS // 2, seed=1)
    assert told >= {"plant_layout", "swap_directory", "swap_file", "unlink_file", "nest_deep"}


@pytest.mark.soak
@pytest.mark.parametrize("file_system", ["tmpfs", "ext4", "xfs"])
def test_guests_start_and_end_for_a_thousand_rounds(
    libvirtd: Libvirtd, foreign: Path, file_system: str
) -> None:
    ramshelf("hook", "install")
    for part in range(10):
        storm(libvirtd, foreign, file_system, 34, seed=part)


def test_clean_goes_out_of_the_store_by_no_link(libvirtd: Libvirtd, foreign: Path) -> None:
    """A planted layout, as of another configuration, leads to root's directories (CASES T1)."""
    before = picture(foreign)
    with store("tmpfs"):
        as_qemu("mkdir libvirt && ln -s $1 libvirt/qemu && ln -s $1 77-planted", str(foreign))
        ramshelf("store", "clean")
        ramshelf("store", "clean", "--without-libvirt", ok=(0, 1))
        libvirtd.stop()
        ramshelf("store", "clean", "--without-libvirt")
        libvirtd.start()
    assert picture(foreign) == before


def test_libvirt_is_led_out_of_the_store_by_no_link(libvirtd: Libvirtd, foreign: Path) -> None:
    """Through a link in the place of a guest's directory libvirt removes what lies behind it.

    So nobody can put one there.
    """
    ramshelf("hook", "install")
    before = picture(foreign)
    with store("tmpfs"):
        libvirtd.create(domain_xml("guest", 64))
        [directory] = MEMORY.glob("*-guest")
        as_qemu(f"mv {directory.name} aside", given=False, ok=(1,))
        as_qemu(f"ln -s $1 {directory.name}x", str(foreign), given=False, ok=(1,))
        assert MEMORY.stat().st_uid == 0
        libvirtd.virsh("destroy", "guest")
        libvirtd.restart()
        libvirtd.create(domain_xml("guest", 64))
        assert MEMORY.stat().st_uid == 0
    assert picture(foreign) == before


def as_qemu(line: str, *arguments: str, given: bool = True, ok: tuple[int, ...] = (0,)) -> None:
    """Run a line of shell as QEMU's user in the store, which may have been ``given`` to that user.

    libvirtd's start may do so. Each guest's start has come to its end before, which takes the store
    back.
    """
    for note in NOTES.glob("*.guest"):
        wait_recorded(note.stem, "started")
    owner = MEMORY.parent.stat()
    if given:
        os.chown(MEMORY, owner.st_uid, owner.st_gid)
    ids = ("--reuid", str(owner.st_uid), "--regid", str(owner.st_gid), "--clear-groups")
    run("setpriv", *ids, "sh", "-ec", f"cd {MEMORY}; {line}", "sh", *arguments, ok=ok)


def test_a_guest_whose_file_was_unlinked_keeps_its_promise(libvirtd: Libvirtd) -> None:
    """The case is CASES T5."""
    ramshelf("hook", "install")
    with store("tmpfs", 200):
        libvirtd.create(domain_xml("guest", 128))
        as_qemu("rm */pc.ram")
        assert promised_mib() == 128
        assert "[capacity.exceeded]" in libvirtd.create(domain_xml("second", 128), ok=(1,)).stderr
        libvirtd.create(domain_xml("third", 64))


def test_a_directory_that_grows_is_named_within_seconds(libvirtd: Libvirtd) -> None:
    """A tmpfs has no quota for a directory: its contents count, and the agent says whose it is."""
    ramshelf("hook", "install")
    with store("tmpfs", 300):
        libvirtd.create(domain_xml("guest", 64))
        with agent() as running:
            as_qemu("cd *-guest; head -c 120000000 /dev/zero >grown")
            line = running.wait_log("began", code="store.beyond-promise", subject="guest")
            assert "guest" in line["message"]
            assert (
                "[capacity.exceeded]" in libvirtd.create(domain_xml("second", 128), ok=(1,)).stderr
            )
            as_qemu("rm */grown")
            running.wait_log("ended", code="store.beyond-promise", subject="guest")
        libvirtd.create(domain_xml("second", 128))


def test_a_directory_that_takes_all_inodes_is_named(libvirtd: Libvirtd) -> None:
    """No guest can be given a directory then, and libvirt alone would say that no space is left."""
    ramshelf("hook", "install")
    without_end = "import itertools; [open(f'f{i}', 'x').close() for i in itertools.count()]"
    with store("ext4", 400):
        libvirtd.create(domain_xml("guest", 64))
        with agent() as running:
            as_qemu(f'cd *-guest; /usr/bin/python3 -c "{without_end}" || :')
            line = running.wait_log("began", code="store.inodes")
            assert "-guest has 1024 or more entries" in line["message"]
            assert "store.inodes" in ramshelf("doctor", ok=(2,)).stdout
            assert (
                "No space left on device"
                in libvirtd.create(domain_xml("second", 64), ok=(1,)).stderr
            )
            as_qemu("find *-guest -name 'f[0-9]*' -delete")
            running.wait_log("ended", code="store.inodes")
        libvirtd.create(domain_xml("second", 64))


def test_a_guest_is_not_blamed_for_the_inodes_that_another_takes(libvirtd: Libvirtd) -> None:
    """What lies deeper is not counted.

    Who hides what it makes has fewer entries than the innocent.
    """
    ramshelf("hook", "install")
    without_end = "import itertools; [open(f'f{i}', 'x').close() for i in itertools.count()]"
    with store("tmpfs", 400):
        run("mount", "-o", "remount,nr_inodes=200", str(MEMORY))
        libvirtd.create(domain_xml("innocent", 64))
        libvirtd.create(domain_xml("guilty", 64))
        as_qemu("cd *-innocent; touch more")
        as_qemu(
            f'cd *-guilty; rm pc.ram; mkdir sub; cd sub; /usr/bin/python3 -c "{without_end}" || :'
        )
        said = ramshelf("doctor", ok=(2,)).stdout
        assert "-guilty has" in said
        assert "-innocent has" not in said


def test_directories_deeper_than_any_path_hold_up_nobody(libvirtd: Libvirtd) -> None:
    """The case is CASES T4."""
    ramshelf("hook", "install")
    descend = "import os; [(os.mkdir('n' * 200), os.chdir('n' * 200)) for _ in range(30)]"
    deep = f'/usr/bin/python3 -c "{descend}"'
    with store("tmpfs", 200):
        libvirtd.create(domain_xml("guest", 64))
        as_qemu(f"cd *-guest; {deep}")
        assert "[capacity.exceeded]" in libvirtd.create(domain_xml("large", 1024), ok=(1,)).stderr
        libvirtd.create(domain_xml("second", 64))
        assert promised_mib() == 128
        as_qemu(f"mkdir 900-planted; cd 900-planted; {deep}")
        assert json.loads(ramshelf("store", "clean", "--json").stdout)["removed"] == [
            f"{MEMORY}/900-planted"
        ]


def test_a_fifo_in_the_place_of_a_memory_file_stops_nobody(libvirtd: Libvirtd) -> None:
    """CASES T6: whoever looks would wait in open() for ever."""
    ramshelf("hook", "install")
    with store("tmpfs", 200):
        libvirtd.create(domain_xml("guest", 64))
        as_qemu("cd *-guest; mv pc.ram aside; mkfifo pc.ram")
        for command in (("guest", "list"), ("guest", "show", "guest"), ("capacity",), ("doctor",)):
            ramshelf(*command, ok=(0, 1, 2))
        ramshelf("guest", "trim", "guest", ok=(0, 1))
        with agent() as running:
            told = "libvirt_domain_memory_backing_promised_bytes{"
            wait_until(lambda: told in running.scraped(), "the agent has looked")
        ramshelf("guest", "stop", "guest", "--now")
        assert promised_mib() == 0


def test_what_a_file_claims_to_be_blocks_nobody(libvirtd: Libvirtd) -> None:
    ramshelf("hook", "install")
    with store("tmpfs", 200):
        as_qemu("mkdir 900-planted; truncate -s 1T 900-planted/pc.ram; mkdir 901-planted")
        libvirtd.create(domain_xml("guest", 128))
        as_qemu("cd *-guest; truncate -s 1T huge")
        libvirtd.create(domain_xml("second", 64))
        assert promised_mib() == 192


def test_names_of_files_reach_no_terminal_as_they_are(hooked: Libvirtd) -> None:
    """QEMU's user owns its guest's directory, and calls a file as it likes."""
    name = "\x1b]0;you\x07\x1b[2J\x9b2J"
    with store("tmpfs") as memory:
        hooked.create(domain_xml("owner"))
        (own,) = memory.iterdir()
        script = 'printf x >"$1"'
        owner = own.stat()
        user = ("setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups")
        run(*user, "sh", "-c", script, "sh", str(own / name))
        said = ramshelf("doctor", ok=(1, 2)).stdout
        (memory / f"77-{name}").mkdir()
        said += ramshelf("store", "clean", "--dry-run").stdout + ramshelf("capacity").stdout
    shown = "?]0;you??[2J?2J"
    assert said.count(shown) >= 3
    assert all(line.isprintable() for line in said.split("\n"))
