"""What each guest was promised: a note per guest, in /run, where QEMU's user cannot write.

QEMU's user owns all that lies on the store, so nothing that is found there is believed: files are
unlinked, grown, planted and renamed while they are looked at. The hook writes a guest's note when
it admits the guest, and the note is what counts until the guest has ended. A note that is missing
is made again from the running guest's XML, never from what lies on the store.
"""

from __future__ import annotations

from ramshelf.core.record import dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ramshelf.core.domain.memory import Guest

STARTING = 600
"""Seconds after which a guest with no trace but its note is taken to have failed to start.

libvirt needs milliseconds from its hook's answer to its record of the guest. The hook's script
takes the note away where a start fails; this is for one that was killed in the middle.
"""


@dataclass(frozen=True, kw_only=True)
class NotedFile:
    """A memory file that was made for the guest: its name, its size in bytes and its inode."""

    name: str
    size: int
    inode: int


@dataclass(frozen=True, kw_only=True)
class Note:
    """What one run of a guest was promised.

    ``directory`` is the path of the guest's directory on the store, '' where it has none.
    ``promised`` is what the store must be able to hold for it, ``pinned`` what it keeps in RAM, in
    bytes. ``files`` are those that were made for it. ``given`` are the inodes of its files that had
    all their extents once, on a disk: holes in them are what the guest gave back. ``starter`` is
    the process that called the hook, as "PID START", '' for a note that was made again. ``since``,
    in seconds since boot, and ``written``, in bytes, are where the clock and the device's counter
    stood when the note was written. ``flushes`` says that discard is set, and would write the
    guest's memory. ``pid`` is that of its QEMU, 0 before it is known.

    The rest is what core/ram.py asks, in bytes. ``memory`` is all that the guest may come to have
    in the system's own pages, wherever that is, and ``private`` what of its files is mapped
    privately. ``plugged`` is what it keeps in RAM since a device was plugged in. ``emulated`` says
    that QEMU itself runs its instructions, ``locked`` that all its memory is locked. ``vcpus`` is 0
    in a note of an older version, which does not say any of this.
    """

    name: str
    uuid: str
    domain_id: int
    directory: str = ""
    promised: int = 0
    pinned: int = 0
    files: tuple[NotedFile, ...] = ()
    starter: str = ""
    since: float = 0.0
    written: int = 0
    flushes: bool = False
    pid: int = 0
    given: tuple[int, ...] = ()
    memory: int = 0
    private: int = 0
    plugged: int = 0
    vcpus: int = 0
    emulated: bool = False
    locked: bool = False

    @property
    def noted(self) -> int:
        """The sum of the sizes of the files that were made for the guest."""
        return sum(file.size for file in self.files)


_NUMBERS = {
    "id": "domain_id",
    "promised": "promised",
    "pinned": "pinned",
    "written": "written",
    "pid": "pid",
    "memory": "memory",
    "private": "private",
    "plugged": "plugged",
    "vcpus": "vcpus",
}
_FLAGS = ("flushes", "emulated", "locked")
_WORDS = {"uuid": "uuid", "directory": "directory", "starter": "starter"}


def format_note(note: Note) -> str:
    """Return the text of a note, with a key and a value on each line.

    The guest's name is not in it: it is that of the file.
    """
    lines = [f"{key} {getattr(note, name)}" for key, name in (*_WORDS.items(), *_NUMBERS.items())]
    lines.append(f"since {note.since}")
    lines += [f"{flag} 1" for flag in _FLAGS if getattr(note, flag)]
    lines += [f"file {file.inode} {file.size} {file.name}" for file in note.files]
    lines += [f"given {inode}" for inode in note.given]
    return "".join(f"{line}\n" for line in (*lines, "end"))


def parse_note(name: str, text: str) -> Note | None:
    """Return the note of the guest ``name``; None for a text that is no whole note."""
    values: dict[str, object] = {"name": name}
    files, given = [], []
    lines = text.split("\n")
    if lines[-2:] != ["end", ""]:
        return None
    try:
        for line in lines[:-2]:
            key, _, value = line.partition(" ")
            if key in _NUMBERS:
                values[_NUMBERS[key]] = int(value)
            elif key in _WORDS:
                values[_WORDS[key]] = value
            elif key == "since":
                values["since"] = float(value)
            elif key in _FLAGS:
                values[key] = True
            elif key == "file":
                inode, size, file = value.split(" ", 2)
                files.append(NotedFile(name=file, size=int(size), inode=int(inode)))
            elif key == "given":
                given.append(int(value))
        return Note(files=tuple(files), given=tuple(given), **values)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def note_of(guest: Guest, *, directory: str = "", files: Iterable[NotedFile] = ()) -> Note:
    """Return the note of a guest by its XML."""
    return Note(
        name=guest.name,
        uuid=guest.uuid,
        domain_id=guest.domain_id or 0,
        directory=directory,
        promised=guest.promise,
        pinned=guest.pinned,
        files=tuple(files),
        flushes=guest.discard,
        memory=guest.paged,
        private=guest.private_bytes,
        vcpus=max(1, guest.vcpus),
        emulated=guest.emulated,
        locked=guest.locked,
    )


def completed(note: Note, guest: Guest) -> Note:
    """Return a note of an older version with what it did not say filled in by the guest's XML."""
    now = note_of(guest)
    return replace(
        note,
        pinned=max(note.pinned, now.pinned),
        memory=now.memory,
        private=now.private,
        vcpus=now.vcpus,
        emulated=now.emulated,
        locked=now.locked,
    )
