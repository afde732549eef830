"""What the kernel's log says of failed writes to a disk store: memory that guests have lost.

Memory of a guest on a disk store is written to the device long after the guest wrote it
(writeback). When that fails the kernel marks the pages clean all the same, and drops them when it
needs RAM: the guest goes on, and reads something else later. Nobody is told but who syncs the file,
and of ext4's failed allocations not even they. The log tells all of it, by the name of the file
system's device. It does not tell how many pages were lost: the kernel keeps most of these messages
back (printk_ratelimit).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from functools import lru_cache

from ramshelf.core.record import dataclass, replace
from ramshelf.core.store.ledger import Note

_LOST = (
    # ext4: fs/ext4/inode.c mpage_map_and_submit_extent; fs/ext4/page-io.c ext4_end_io_end,
    # ext4_end_bio
    r"EXT4-fs \({device}\): Delayed block allocation failed for inode (?P<inode>\d+) ",
    r"EXT4-fs \({device}\): failed to convert unwritten extents .*\(inode (?P<inode>\d+),",
    (
        r"EXT4-fs warning \(device {device}\): ext4_end_bio:\d+: I/O error \d+ writing to inode "
        r"(?P<inode>\d+) "
    ),
    # fs/ext4/page-io.c buffer_io_error; fs/buffer.c end_buffer_async_write, end_buffer_write_sync
    r"Buffer I/O error on device {device}, logical block \d+$",
    r"Buffer I/O error on dev {device}, logical block \d+, lost a?sync page write$",
    # A file system that writes no more says this: ext4_handle_error, ext4_force_shutdown
    r"EXT4-fs \({device}\): (Remounting filesystem read-only|shut down requested)",
    # xfs: fs/iomap iomap_finish_ioend; before Linux 5.5 xfs_destroy_ioend; xfs_discard_folio
    r"{device}: writeback error on inode (?P<inode>\d+), ",
    r"XFS \({device}\): writeback error on sector ",
    r"XFS \({device}\): page discard on page .*, inode (?P<hexadecimal>0x[0-9a-f]+), ",
    # xfs_do_force_shutdown, xlog_force_shutdown; the latter words are there since Linux 5.15. The
    # pattern leaves out what is said of a process that is called as if it were XFS
    # ("COMM[PID]: segfault ... in FILE").
    r"XFS \({device}\): (?!\[\d+\]: ).*(Shutting down filesystem|Filesystem has been shut down)",
)
_MOUNTED = (
    # ext4_fill_super and ext4_put_super; xfs_log_mount and xfs_fs_put_super
    r"EXT4-fs \({device}\): (un)?mount(ed|ing) filesystem",
    r"XFS \({device}\): (Mounting V\d+|Unmounting) Filesystem",
)

_UNSTEADY = 2000
"""The part of the time by which the log's clock may differ from others: one in so many.

It is not steered as other clocks are, and NTP corrects at most this much (MAXFREQ).
"""


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message of the kernel's own; ``at`` is in seconds since boot, by the log's clock."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class WriteErrors:
    """What the log tells of the store as it is mounted now: how many messages, and the last one.

    ``inodes`` are those of the files that were named, each with the last time. ``cut`` says that
    messages since the mount may have been overwritten before they were read.
    """

    messages: int = 0
    last: str = ""
    inodes: Mapping[int, float] = field(default_factory=dict)
    cut: bool = False


def parse_message(record: bytes) -> Message | None:
    """Return the message in a record of /dev/kmsg; None where it is not the kernel's own.

    The format is that of Documentation/ABI/testing/dev-kmsg. What processes write there has another
    facility. A line end within a text is escaped.
    """
    head, _, rest = record.partition(b";")
    fields = head.split(b",")
    if len(fields) < 3 or not fields[0].isdigit() or not fields[2].isdigit() or int(fields[0]) >> 3:
        return None
    text = rest.partition(b"\n")[0].decode("ascii", errors="replace")
    return Message(at=int(fields[2]) / 1e6, text=text.strip())


def with_messages(seen: WriteErrors, messages: Iterable[Message], device: str) -> WriteErrors:
    """Return what was seen before with what these messages add.

    They count for the file system on the device of this name. A mount begins anew: names of devices
    are used again, and what another file system there has lost is nothing to this one.
    """
    mounted = re.compile("|".join(_about(device, _MOUNTED)))
    since: list[Message] = []
    for message in messages:
        if mounted.match(message.text):
            seen = WriteErrors()
            since.clear()
        elif device in message.text:
            since.append(message)
    for message in since:
        if found := next(filter(None, (each.match(message.text) for each in _lost(device))), None):
            inodes = {int(inode, 0): message.at for inode in found.groupdict().values() if inode}
            seen = replace(
                seen,
                messages=seen.messages + 1,
                last=message.text,
                inodes={**seen.inodes, **inodes},
            )
    return seen


@lru_cache(maxsize=1)
def _lost(device: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern) for pattern in _about(device, _LOST))


def _about(device: str, patterns: Iterable[str]) -> list[str]:
    return [pattern.replace("{device}", re.escape(device)) for pattern in patterns]


def who_lost_memory(errors: WriteErrors, notes: Iterable[Note]) -> tuple[str, ...]:
    """Return the guests that have surely lost memory.

    A file of theirs was named, after their note was written. File systems use inodes again, so a
    guest that started later may have the inode of one that is gone.
    """
    return tuple(
        sorted(
            note.name
            for note in notes
            if any(
                note.since <= errors.inodes[file.inode] * (1 + 1 / _UNSTEADY)
                for file in note.files
                if file.inode in errors.inodes
            )
        )
    )
