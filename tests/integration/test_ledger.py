"""What guests were promised, whatever becomes of notes, files, QEMU, libvirtd and the hook."""

import json
import os
import shutil
import signal
from pathlib import Path

from ramshelf.core.hook.script import SCRIPT
from ramshelf.core.store.directory import PROMISE_FILE
from ramshelf.core.store.ledger import STARTING, Note
from ramshelf.core.units import MIB
from ramshelf.system import ledger
from support.cli import ramshelf
from support.domains import domain_xml, qemu_pid, wait_console
from support.libvirtd import Libvirtd
from support.onstore import wait_recorded
from support.process import wait_until
from support.stores import MEMORY, store

NOTES = Path(ledger.DIRECTORY)
NUMA = "<cpu><numa><cell id='0' cpus='0' memory='131072' unit='KiB'/></numa></cpu>"
PLUGGABLE = "<maxMemory slots='2' unit='MiB'>256</maxMemory>"


def promised() -> int:
    return int(json.loads(ramshelf("capacity", "--json").stdout)["promised_mib"])


def refused(libvirtd: Libvirtd, size_mib: int) -> bool:
    """Whether a guest of that size is refused; one that is not is ended again."""
    said = libvirtd.create(domain_xml("other", size_mib), ok=(0, 1)).stderr
    if "[capacity.exceeded]" in said:
        return True
    libvirtd.virsh("destroy", "other")
    return False


def test_notes_are_roots_alone_and_go_with_their_guests(hooked: Libvirtd) -> None:
    with store():
        hooked.create(domain_xml("guest", 64))
        hooked.create(domain_xml("anonymous", 64, memory_backing=""))
        assert {path.name for path in NOTES.iterdir()} == {"guest.guest", "anonymous.guest"}
        assert (NOTES.stat().st_uid, NOTES.stat().st_mode & 0o777) == (0, 0o700)
        assert {path.stat().st_mode & 0o777 for path in NOTES.iterdir()} == {0o600}
        hooked.virsh("destroy", "guest")
        hooked.virsh("destroy", "anonymous")
        assert list(NOTES.iterdir()) == []


def test_notes_that_are_lost_are_made_again_from_the_guests_that_run(hooked: Libvirtd) -> None:
    """As after an upgrade from a version that kept none, with guests running."""
    with store("tmpfs", 400):
        hooked.create(domain_xml("guest", 128, cpu=NUMA, top=PLUGGABLE))
        wait_recorded("guest", "started")
        shutil.rmtree(NOTES)
        assert promised() == 256
        assert refused(hooked, 160)
        assert not refused(hooked, 128)
        note = ledger.read_note("guest")
        assert note is not None
        assert (note.promised, note.files[0].name) == (256 * MIB, "ram-node0")


def test_a_downgrade_finds_the_same_promises_on_the_store(hooked: Libvirtd) -> None:
    """Version 0.1.0 counts a directory's memory files, or its promise file if that is larger."""
    with store("ext4", 600):
        hooked.create(domain_xml("guest", 128, cpu=NUMA, top=PLUGGABLE))
        hooked.create(domain_xml("plain", 64))
        wait_recorded("plain", "started")
        wait_recorded("guest", "started")
        found = 0
        for directory in MEMORY.glob("*-*"):
            sizes = {path.name: path.stat().st_size for path in directory.iterdir()}
            stated = sizes.pop(PROMISE_FILE, 0)
            found += max(stated, sum(sizes.values()))
        assert found // MIB == promised() == 320


def test_a_directory_that_goes_before_its_qemu_takes_no_promise_with_it(hooked: Libvirtd) -> None:
    """When it ends a guest, libvirt 9 removes the files first, and QEMU may take its time."""
    with store("tmpfs", 300):
        hooked.create(domain_xml("guest", 128, dirty_mib=32))
        wait_console("guest", "DIRTIED")
        wait_recorded("guest", "started")
        [directory] = MEMORY.glob("*-guest")
        shutil.rmtree(directory)
        assert promised() == 128
        assert refused(hooked, 176)
        # What QEMU holds of the file that is gone is within its promise.
        assert not refused(hooked, 160)


def test_a_guest_that_libvirtd_does_not_know_to_be_dead_keeps_its_promise(hooked: Libvirtd) -> None:
    """What it held on a tmpfs is there until libvirtd is back and removes it."""
    with store("tmpfs", 300):
        hooked.create(domain_xml("guest", 128))
        wait_recorded("guest", "started")
        pid = qemu_pid("guest") or 0
        hooked.kill()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "QEMU is gone")
        assert promised() == 128
        hooked.start()
        wait_until(lambda: promised() == 0, "libvirtd has cleared up")
        assert not refused(hooked, 200)


def test_one_record_that_nobody_understands_hides_no_other(hooked: Libvirtd) -> None:
    with store("tmpfs", 300):
        hooked.create(domain_xml("guest", 128))
        shutil.rmtree(NOTES)
        odd = Path("/run/libvirt/qemu/odd.xml")
        try:
            for content in (
                b"",
                b"<domstatus",
                b"\xff\xfe",
                b"<domstatus><domain id='x'/></domstatus>",
            ):
                odd.write_bytes(content)
                assert promised() == 128
                assert refused(hooked, 200)
                assert not refused(hooked, 128)
        finally:
            odd.unlink()


def test_a_start_that_failed_without_a_word_is_forgotten_in_the_end(hooked: Libvirtd) -> None:
    """Hook, script and QEMU killed at once leave a note; who looks later drops it."""
    with store("tmpfs", 300):
        note = Note(
            name="never",
            uuid="",
            domain_id=77,
            directory=f"{MEMORY}/77-never",
            promised=128 * MIB,
            starter=ledger.starter_of(hooked.pid),
            since=ledger.clock(),
        )
        ledger.write_note(note)
        assert refused(hooked, 200)
        ledger.write_note(Note(**{**vars(note), "since": ledger.clock() - STARTING - 1}))
        assert not refused(hooked, 200)
        ledger.write_note(Note(**{**vars(note), "starter": "1 1"}))
        assert not refused(hooked, 200)
        assert not (NOTES / "never.guest").exists()


def test_a_note_that_is_cut_off_is_made_again(hooked: Libvirtd) -> None:
    with store("tmpfs", 300):
        hooked.create(domain_xml("guest", 128))
        wait_recorded("guest", "started")
        note = NOTES / "guest.guest"
        note.write_text(note.read_text()[:40])
        assert promised() == 128
        assert refused(hooked, 200)


def test_notes_are_made_anew_where_the_hook_was_away(hooked: Libvirtd) -> None:
    with store("tmpfs", 300):
        hooked.define(domain_xml("guest", 64))
        hooked.virsh("start", "guest")
        wait_recorded("guest", "started")
        ramshelf("hook", "remove")
        assert list(NOTES.iterdir()) == []
        hooked.virsh("destroy", "guest")
        hooked.virsh("undefine", "guest")
        hooked.define(domain_xml("guest", 192))
        hooked.virsh("start", "guest")
        assert promised() == 192
        ramshelf("hook", "install")
        assert promised() == 192
        assert refused(hooked, 128)
        hooked.virsh("destroy", "guest")
        hooked.virsh("undefine", "guest")
        assert promised() == 0


def test_notes_outlive_an_update_of_the_hook_and_say_since_when_the_guest_runs(
    hooked: Libvirtd,
) -> None:
    with store("ext4", 300):
        hooked.create(domain_xml("guest", 64))
        wait_recorded("guest", "started")
        note = ledger.read_note("guest")
        assert note is not None
        assert note.given
        with open(SCRIPT, "a", encoding="utf-8") as file:
            file.write("# of another version\n")
        ramshelf("hook", "install")
        assert ledger.read_note("guest") == note
        (NOTES / "guest.guest").unlink()
        later = ledger.clock()
        hooked.create(domain_xml("other", 32))  # whose start makes it again
        again = ledger.read_note("guest")
        assert again is not None
        assert note.since - 1 < again.since < later
        assert (again.promised, again.files) == (note.promised, note.files)


def test_a_record_that_libvirt_forgot_holds_nothing(hooked: Libvirtd) -> None:
    """A libvirtd that is killed during an ending and started again leaves the guest's record."""
    with store("tmpfs", 300):
        hooked.create(domain_xml("guest", 128))
        wait_recorded("guest", "started")
        assassin = Path("/etc/libvirt/hooks/qemu.d/assassin")
        assassin.write_text(f'#!/bin/sh\n[ "$2" != stopped ] || kill -9 {hooked.pid}\n')
        assassin.chmod(0o755)
        hooked.virsh("destroy", "guest", ok=(1,))
        hooked.kill()
        assassin.unlink()
        assert promised() == 128
        hooked.start()
        wait_until(lambda: promised() == 0, "it is seen that the guest is gone")
        assert not refused(hooked, 200)
        assert not (NOTES / "guest.guest").exists()
