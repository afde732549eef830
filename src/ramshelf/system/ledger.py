"""The notes of what guests were promised, in /run/ramshelf/guests.

They are read, corrected, written and removed here. Root alone can go there. All who write what
somebody was promised hold the store's lock, except the hook's script, which removes the note of a
guest that has ended.
"""

from __future__ import annotations

import os
import time

from ramshelf.core.record import replace
from ramshelf.core.store.ledger import (
    STARTING,
    NotedFile,
    completed,
    format_note,
    note_of,
    parse_note,
)
from ramshelf.system import livestate
from ramshelf.system.filesystem import RUN_DIR, have_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ramshelf.core.domain.memory import Guest
    from ramshelf.core.store.directory import FileUsage
    from ramshelf.core.store.ledger import Note

DIRECTORY = f"{RUN_DIR}/guests"
_NOTE, _WAIT = ".guest", ".wait"


def write_note(note: Note) -> None:
    """Write or replace a guest's note: the old or the new one is there, never half of one.

    Raises OSError.
    """
    have_directory(DIRECTORY, 0o700)
    temporary = f"{DIRECTORY}/.new{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        os.write(descriptor, format_note(note).encode(errors="surrogateescape"))
    finally:
        os.close(descriptor)
    os.replace(temporary, f"{DIRECTORY}/{note.name}{_NOTE}")


def read_note(name: str) -> Note | None:
    """Return a guest's note, or None where there is none, or none that is whole."""
    try:
        with open(f"{DIRECTORY}/{name}{_NOTE}", "rb") as file:
            return parse_note(name, file.read().decode(errors="surrogateescape"))
    except FileNotFoundError:
        return None


def remove_note(name: str) -> None:
    """Remove a guest's note, and the mark that its start is waited for, if they are there."""
    for suffix in (_NOTE, _WAIT):
        _unlink(f"{DIRECTORY}/{name}{suffix}")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def have_started_waited_for(name: str) -> None:
    """Have the hook's script wait for the answer when the guest has started."""
    have_directory(DIRECTORY, 0o700)
    os.close(os.open(f"{DIRECTORY}/{name}{_WAIT}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def is_waited_for(name: str) -> bool:
    """Tell whether libvirt waits for what the hook says of the guest that has started."""
    return os.path.exists(f"{DIRECTORY}/{name}{_WAIT}")


def noted_names() -> frozenset[str]:
    """Return the names of the guests that have a note."""
    try:
        entries = os.listdir(DIRECTORY)
    except FileNotFoundError:
        return frozenset()
    return frozenset(entry[: -len(_NOTE)] for entry in entries if entry.endswith(_NOTE))


def this_starter() -> str:
    """Return the process that called the hook's script, as a note has it: "PID START".

    The script has called this process.
    """
    return starter_of(int(_stat(os.getppid())[1]))


def starter_of(pid: int) -> str:
    """Return a process as a note has it: "PID START"."""
    return f"{pid} {_start(pid)}"


def clock() -> float:
    """Return the seconds since boot, including the time that the host was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def holding(
    place: Callable[[Guest], str],
    files: Callable[[str], tuple[FileUsage, ...]],
    *,
    but: str = "",
    keep: bool = False,
) -> tuple[Note, ...]:
    """Return the notes of all guests that run or are starting, and make missing ones again.

    ``place`` gives the path of a guest's directory, and ``files`` the regular files in such a
    directory, for notes that are made again. The guest ``but`` is left out. With ``keep``, which is
    for callers that hold the store's lock, what was found is written down, and the note of a guest
    that has ended is removed.
    """
    recorded, noted = livestate.live_names(), noted_names()
    found = []
    for name in sorted(recorded | noted):
        if name == but:
            continue
        note = read_note(name) if name in noted else None
        runs = name in recorded and not livestate.is_forgotten(name)
        if not runs and (note is None or name in recorded or not _starts(note)):
            if keep and note is not None:
                remove_note(name)
            continue
        if note is None or (runs and not _is_whole(note)):
            note = _again(name, place, files)
            if note is not None and keep:
                write_note(note)
        if note is not None and runs and not note.vcpus:
            note = _completed(note, keep=keep)
        if note is not None:
            found.append(note)
    return tuple(found)


def _completed(note: Note, *, keep: bool) -> Note:
    """Return a note of an older version, with what that did not say by the guest's record."""
    live = livestate.read_live(note.name)
    if live is None or live.guest is None:
        return note
    note = completed(note, live.guest)
    if keep:
        write_note(note)
    return note


def _again(
    name: str, place: Callable[[Guest], str], files: Callable[[str], tuple[FileUsage, ...]]
) -> Note | None:
    """Return the note of a guest that runs, made again by its record.

    Return None for a guest that has ended, or whose record is not understood.
    """
    live = livestate.read_live(name)
    if live is None or live.guest is None:
        return None
    return noted_again(live.guest, place(live.guest), files)


def noted_again(guest: Guest, path: str, files: Callable[[str], tuple[FileUsage, ...]]) -> Note:
    """Make the note of a guest that runs, whose directory is to be ``path``.

    Of the files in it, only the guest's own are noted.
    """
    directory = path if guest.file_backed else ""
    sizes = {file.name: file.size for file in guest.files}
    made = [
        NotedFile(name=file.name, size=file.apparent, inode=file.inode)
        for file in (files(directory) if directory else ())
        if sizes.get(file.name) == file.apparent
    ]
    pid = livestate.qemu_pid(guest.name) or 0
    return replace(
        note_of(guest, directory=directory, files=made), since=_began(pid) or clock(), pid=pid
    )


def _is_whole(note: Note) -> bool:
    """Tell whether the note is of the guest that runs, and says where its memory is.

    A hook that was away for a time has not seen a guest end; one that was killed has not noted
    where the memory is.
    """
    if note.promised and not note.directory:
        return False
    pid = livestate.recorded_pid(note.name)
    if note.pid and pid is not None:
        return note.pid == pid
    live = livestate.read_live(note.name)
    if live is None or live.guest is None:
        return True
    return (note.uuid, note.domain_id) == (live.guest.uuid, live.guest.domain_id)


def _starts(note: Note) -> bool:
    """Tell whether a guest without a record may be about to have one.

    That is so while its QEMU is there, or while the process that started it goes on and the start
    is not long ago.
    """
    if livestate.qemu_pid(note.name) is not None:
        return True
    pid, _, start = note.starter.partition(" ")
    if not start or _start(int(pid)) != start:
        return False
    return clock() - note.since < STARTING


def _start(pid: int) -> str:
    """Return when a process began, in ticks since boot (proc_pid_stat(5), field 22).

    Return '' for a process that is gone.
    """
    try:
        return _stat(pid)[19].decode()
    except (OSError, IndexError):
        return ""


def _began(pid: int) -> float:
    """Return when a process began, in seconds since boot, or 0 for one that is gone."""
    return int(_start(pid) or "0") / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat that follow the process's name, from the state on."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def forget() -> None:
    """Remove the notes of guests that run, so that they are made again.

    This is for the end of a time without this hook.
    """
    for name in noted_names() & livestate.live_names():
        _unlink(f"{DIRECTORY}/{name}{_NOTE}")
