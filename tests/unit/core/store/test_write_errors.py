"""What the kernel's log says of writes that failed.

The messages are those of kernels from 5.4 to 6.18.
"""

import pytest

from ramshelf.core.store.ledger import Note, NotedFile
from ramshelf.core.store.write_errors import (
    Message,
    WriteErrors,
    parse_message,
    who_lost_memory,
    with_messages,
)

EXT4 = (
    "EXT4-fs (loop1): mounted filesystem 159710ee-9fbd-485c-93ec-2d0b03d6f830 r/w with ordered data"
    " mode."
)
FAILED = "loop1: writeback error on inode 131, offset 1187840, sector 207200"
LOST = {
    FAILED: 131,
    "EXT4-fs (loop1): Delayed block allocation failed for inode 12 at logical offset 8 with "
    "max blocks 1 with error 28": 12,
    "EXT4-fs (loop1): failed to convert unwritten extents to written extents -- "
    "potential data loss!  (inode 12, error -5)": 12,
    "EXT4-fs warning (device loop1): ext4_end_bio:368: I/O error 3 writing to inode 12 "
    "starting block 13569)": 12,
    "Buffer I/O error on device loop1, logical block 12289": None,
    "Buffer I/O error on dev loop1, logical block 9, lost async page write": None,
    "EXT4-fs (loop1): Remounting filesystem read-only": None,
    "XFS (loop1): page discard on page 00000000d976f7c9, inode 0x83, pos 28315648.": 0x83,
    "XFS (loop1): writeback error on sector 42005378320": None,
    "XFS (loop1): Filesystem has been shut down due to log error (0x2).": None,
    "XFS (loop1): Log I/O Error (0x6) detected at xfs_fs_goingdown.  Shutting down filesystem.": (
        None
    ),
}
NOTHING = [
    "I/O error, dev loop1, sector 24578 op 0x1:(WRITE) flags 0x4000 phys_seg 29 prio class 2",
    "critical space allocation error, dev loop1, sector 24578 op 0x1:(WRITE) flags 0x0 phys_seg 2",
    "Buffer I/O error on dev loop1, logical block 20971397, async page read",
    "loop1: detected capacity change from 0 to 819200",
    "XFS (loop1): Ending clean mount",
    "loop11: writeback error on inode 131, offset 0, sector 8",
    "EXT4-fs (dm-0): Delayed block allocation failed for inode 12 at logical offset 8",
    f"a name: {FAILED}",
    "XFS (loop1): [8236]: segfault at 0 ip 1 sp 2 error 6 in Shutting down filesystem[55d0+1000]",
]


def seen(*texts: str, before: WriteErrors | None = None) -> WriteErrors:
    messages = [Message(at=float(at), text=text) for at, text in enumerate(texts, 1)]
    return with_messages(before or WriteErrors(), messages, "loop1")


def note(name: str, inode: int, since: float) -> Note:
    files = (NotedFile(name="pc.ram", size=1 << 20, inode=inode),)
    return Note(name=name, uuid=name, domain_id=1, files=files, since=since)


@pytest.mark.parametrize("text", LOST)
def test_a_write_that_failed_is_counted_with_its_file(text: str) -> None:
    inode = LOST[text]
    inodes = {} if inode is None else {inode: 1.0}
    assert seen(text) == WriteErrors(messages=1, last=text, inodes=inodes)


@pytest.mark.parametrize("text", NOTHING)
def test_what_is_no_lost_write_to_the_store_is_not_counted(text: str) -> None:
    assert seen(text) == WriteErrors()


def test_messages_add_up_and_the_last_time_of_a_file_counts() -> None:
    first = seen(FAILED, FAILED)
    both = seen("nothing", "loop1", FAILED.replace("131", "132"), FAILED, before=first)
    assert (both.messages, both.last, both.inodes) == (4, FAILED, {131: 4.0, 132: 3.0})
    assert first.inodes == {131: 2.0}


@pytest.mark.parametrize(
    "mount",
    [
        EXT4,
        "EXT4-fs (loop1): unmounting filesystem 159710ee-9fbd-485c-93ec-2d0b03d6f830.",
        "XFS (loop1): Mounting V5 Filesystem c02151ef-1135-4277-9f6f-1c7f01be70b8",
        "XFS (loop1): Unmounting Filesystem",
    ],
)
def test_what_was_mounted_there_before_does_not_count(mount: str) -> None:
    assert seen(FAILED, mount) == WriteErrors()
    assert seen(FAILED, mount, FAILED).messages == 1
    assert seen(FAILED, mount.replace("loop1", "loop11"), FAILED).messages == 2
    assert seen(FAILED, "EXT4-fs (loop1): re-mounted 159710ee r/w.").messages == 1


def test_what_the_log_has_forgotten_is_known_from_the_next_mount_on() -> None:
    cut = WriteErrors(cut=True)
    assert seen("another message of loop1", before=cut).cut
    assert seen(FAILED, before=cut) == WriteErrors(
        messages=1, last=FAILED, inodes={131: 1.0}, cut=True
    )
    assert not seen(EXT4, before=cut).cut


def test_a_record_is_the_kernels_own_or_nothing() -> None:
    record = b"3,15177,26150090342,-;" + FAILED.encode() + b"\n SUBSYSTEM=block\n DEVICE=b7:1\n"
    assert parse_message(record) == Message(at=26150.090342, text=FAILED)
    assert parse_message(record.replace(b"3,", b"12,", 1)) is None  # LOG_USER: written by a process
    for odd in (b"", b";", b"3", b"3,1,x,-;text", b"x,1,2,-;text"):
        assert parse_message(odd) is None


def test_a_guest_is_concerned_whose_file_was_named_after_it_was_noted() -> None:
    errors = WriteErrors(messages=1, last=FAILED, inodes={131: 100_000.0})
    guests = [note("before", 131, 99_000), note("other", 132, 99_000), note("later", 131, 101_000)]
    assert who_lost_memory(errors, guests) == ("before",)


def test_the_logs_clock_may_lag_by_what_ntp_corrects() -> None:
    errors = WriteErrors(messages=1, last=FAILED, inodes={131: 100_000.0})
    assert who_lost_memory(errors, [note("guest", 131, 100_049)]) == ("guest",)
    assert who_lost_memory(errors, [note("guest", 131, 100_051)]) == ()
