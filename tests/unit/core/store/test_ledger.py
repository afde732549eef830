"""Notes of what guests were promised, as text."""

import pytest

from ramshelf.core.domain.memory import parse_guest
from ramshelf.core.store.ledger import Note, NotedFile, completed, format_note, parse_note
from ramshelf.core.units import GIB

NOTE = Note(
    name="web ",
    uuid="c2e1b5f4-0000-4000-8000-000000000001",
    domain_id=3,
    directory="/ram/3-web ",
    promised=1 << 30,
    pinned=1 << 20,
    files=(
        NotedFile(name="ram-node0", size=1 << 30, inode=7),
        NotedFile(name="my dimm", size=0, inode=8),
    ),
    starter="17 4711",
    since=12.5,
    written=99,
    flushes=True,
    pid=18,
    given=(7, 8),
    memory=1 << 31,
    private=1 << 21,
    plugged=1 << 22,
    vcpus=3,
    emulated=True,
)


def test_a_note_says_what_was_noted() -> None:
    assert parse_note(NOTE.name, format_note(NOTE)) == NOTE


def test_keys_of_other_versions_are_passed_over() -> None:
    assert parse_note(NOTE.name, f"colour green\n{format_note(NOTE)}") == NOTE


@pytest.mark.parametrize("cut", [0, 1, 40, -1, -5])
def test_half_a_note_is_none(cut: int) -> None:
    assert parse_note(NOTE.name, format_note(NOTE)[:cut]) is None


def test_a_note_of_an_older_version_is_completed() -> None:
    guest = parse_guest(
        "<domain><memory>1048576</memory><launchSecurity type='sev'/><vcpu>2</vcpu></domain>"
    )
    older = Note(name="g", uuid="u", domain_id=1, promised=5)
    found = completed(older, guest)
    assert (found.pinned, found.memory, found.vcpus, found.promised) == (GIB, GIB, 2, 5)
