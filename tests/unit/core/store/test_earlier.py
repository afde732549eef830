"""Promises from before an upgrade: who is on record, who may start again, who would not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.domain.memory import Guest, MemoryFile
from ramshelf.core.hook.script import SCRIPT, HookScript, render
from ramshelf.core.record import replace
from ramshelf.core.store.capacity import StoreUsage, capacity
from ramshelf.core.store.directory import FileUsage, GuestDirectory
from ramshelf.core.store.earlier import (
    MOST,
    EarlierPromise,
    format_promises,
    granted,
    is_honoured,
    missed,
    parse_promises,
    refused_anew,
    still_needed,
    to_be_recorded,
)
from ramshelf.core.store.kind import Kind
from ramshelf.core.store.ledger import Note, NotedFile
from ramshelf.core.units import GIB, MIB
from ramshelf.system import earlier
from support.good_host import GUEST

EMPTY = StoreUsage(
    kind=Kind.DISK, file_system="ext4", size=16 * GIB, used=64 * MIB, swap=0, beyond_swap=False
)
NOW = capacity(EMPTY, configured_mib=None).total
BEFORE = capacity(EMPTY, configured_mib=None, earlier=True).total
HALF, REST = NOW // 2, BEFORE - NOW // 2
"""What two guests had that filled the store under version 0.1.0."""


def note(name: str, promised: int, number: int = 1) -> Note:
    return Note(
        name=name, uuid=f"uuid-{name}", domain_id=number, directory=f"/s/{name}", promised=promised
    )


def promise(name: str, promised: int) -> EarlierPromise:
    return EarlierPromise(name=name, uuid=f"uuid-{name}", promised=promised)


def guest(name: str, memory: int) -> Guest:
    files = (MemoryFile(name="pc.ram", size=memory),)
    return replace(
        GUEST, name=name, uuid=f"uuid-{name}", memory=memory, max_memory=memory, files=files
    )


def running(*notes: Note, **more: Any) -> StoreUsage:
    return replace(EMPTY, notes=notes, **more)


FULL = running(note("a", HALF, 2), note("b", REST, 1))
RECORD = (promise("a", HALF), promise("b", REST))


def test_what_version_0_1_0_set_aside_is_known() -> None:
    assert EMPTY.size - EMPTY.used - BEFORE == (16 + 16) * MIB
    assert NOW < BEFORE - 200 * MIB
    for kind in (Kind.RAM, Kind.SWAP):
        tmpfs = replace(EMPTY, kind=kind, swap=16 * GIB)
        assert capacity(tmpfs, configured_mib=None, earlier=True) == capacity(
            tmpfs, configured_mib=None
        )


def test_guests_that_have_more_than_fits_are_put_on_record() -> None:
    assert to_be_recorded(FULL, ()) == RECORD
    assert to_be_recorded(running(note("a", HALF), note("anonymous", 0)), ()) == ()
    assert to_be_recorded(replace(FULL, kind=Kind.RAM), ()) == ()


def test_who_is_on_record_stays_there_with_what_it_has_now() -> None:
    stopped = promise("c", MIB)
    assert to_be_recorded(running(note("a", HALF)), (stopped,)) == (stopped,)
    assert to_be_recorded(FULL, (stopped, promise("a", MIB))) == (stopped, *RECORD)


def test_a_record_is_bounded() -> None:
    many = tuple(note(str(number), 2 * MIB) for number in range(MOST + 10))
    assert len(to_be_recorded(running(*many), ())) == MOST
    line = format_promises(RECORD[:1])
    assert len(parse_promises(line * (MOST + 10))) == MOST


@given(
    st.lists(
        st.builds(
            EarlierPromise,
            name=st.text("a b\u00e9-.", min_size=1),
            uuid=st.uuids().map(str),
            promised=st.integers(0, 2**50),
        )
    )
)
def test_a_record_is_read_as_it_was_written(promises: list[EarlierPromise]) -> None:
    assert parse_promises(format_promises(promises)) == tuple(promises)


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "\n",
        "uuid",
        "uuid 12",
        "uuid x name",
        "uuid -1 name",
        "uuid  name\n",
        "uuid \u0663 name",
        f"uuid {'9' * 5000} name",
    ],
)
def test_what_is_no_record_of_a_guest_is_passed_over(odd: str) -> None:
    assert parse_promises(f"{odd}\nuuid 12 a name\n") == (
        EarlierPromise(name="a name", uuid="uuid", promised=12),
    )


def test_a_guest_on_record_starts_again_with_no_more_than_it_was_promised() -> None:
    without = running(note("a", HALF))

    def honoured(name: str, memory: int, **more: Any) -> bool:
        usage = more.pop("usage", without)
        return is_honoured(
            RECORD, guest(name, memory), usage, configured_mib=more.get("configured_mib")
        )

    assert honoured("b", REST)
    assert not honoured("b", REST + 1)
    assert not honoured("c", 1)
    # What the operator has set holds for all.
    assert not honoured("b", REST, configured_mib=NOW // MIB)
    assert not honoured("b", REST, usage=running(note("a", HALF + MIB)))


def test_a_guest_on_record_is_given_nothing_that_others_extents_have_taken() -> None:
    def beside(records: int) -> StoreUsage:
        """The other guest has all of its memory, and so much for the records of its extents."""
        made = NotedFile(name="pc.ram", size=HALF, inode=7)
        file = FileUsage(path="/s/a/pc.ram", apparent=HALF, allocated=HALF + records, inode=7)
        directory = GuestDirectory(path="/s/a", device=(0, 45), uid=0, gid=0, files=(file,))
        return running(
            replace(note("a", HALF), files=(made,)),
            used=EMPTY.used + file.allocated,
            directories=(directory,),
        )

    for records, honoured in ((0, True), (32 * MIB, True), (33 * MIB, False)):
        assert (
            is_honoured(RECORD, guest("b", REST), beside(records), configured_mib=None) == honoured
        )


def test_the_record_goes_when_all_that_is_promised_fits() -> None:
    known = {"uuid-a", "uuid-b"}
    assert still_needed(FULL, RECORD, known) == RECORD
    assert still_needed(EMPTY, RECORD, known) == RECORD  # nobody runs after a reboot
    assert still_needed(replace(FULL, size=18 * GIB), RECORD, known) == ()
    assert still_needed(EMPTY, RECORD, {"uuid-a"}) == ()
    assert still_needed(running(note("new", REST)), RECORD, {"uuid-a"}) == RECORD[:1]


def test_the_record_goes_when_guests_on_it_have_been_made_smaller() -> None:
    smaller = running(note("a", HALF), note("b", NOW - HALF))
    assert still_needed(smaller, RECORD, {"uuid-a", "uuid-b"}) == ()
    assert still_needed(running(note("a", HALF)), RECORD, {"uuid-a", "uuid-b"}) == RECORD


def test_since_when_a_guest_on_record_is_missed() -> None:
    first = missed(RECORD, {"uuid-b"}, {}, 10.0)
    assert first == {"uuid-a": 10.0}
    assert missed(RECORD, {"uuid-b"}, first, 20.0) == first
    assert missed(RECORD, set(), first, 30.0) == {"uuid-a": 10.0, "uuid-b": 30.0}
    assert missed(RECORD, {"uuid-a", "uuid-b"}, first, 40.0) == {}


def test_who_would_be_refused_after_a_reboot_is_who_comes_last() -> None:
    assert refused_anew(FULL, (), configured_mib=None) == ("a",)  # b was started first
    assert refused_anew(FULL, RECORD, configured_mib=None) == ()
    assert refused_anew(running(note("a", HALF)), RECORD, configured_mib=None) == ()
    assert refused_anew(
        running(note("a", HALF), note("new", MIB)), RECORD, configured_mib=None
    ) == ("b",)
    assert refused_anew(FULL, RECORD, configured_mib=REST // MIB + 1) == ("a",)
    assert refused_anew(EMPTY, (), configured_mib=None) == ()


def test_what_is_granted_goes_by_the_uuid() -> None:
    assert granted(RECORD, "uuid-b") == REST
    assert granted((), "uuid-b") == 0
    assert granted(RECORD, "") == 0


def test_the_script_of_version_0_1_0_is_told_from_todays() -> None:
    assert earlier._SCRIPT == SCRIPT  # noqa: SLF001 - see there
    today = render(HookScript(python="/usr/bin/python3", main="/main.py", config_files=()))
    assert earlier._ONLY_THERE not in today  # noqa: SLF001 - see there
