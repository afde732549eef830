"""What the agent counts: what libvirt tells, and what it has not told, each once."""

from ramshelf.core.agent.counts import UNSEEN, Counts
from ramshelf.core.agent.events import Event, What
from ramshelf.core.units import MIB


def started(uuid: str, reason: str = "booted") -> Event:
    return Event(what=What.STARTED, guest=uuid, uuid=uuid, reason=reason)


def stopped(uuid: str, reason: str = "shutdown") -> Event:
    return Event(what=What.STOPPED, guest=uuid, uuid=uuid, reason=reason)


def looked(*running: tuple[str, int], written: int = 0) -> Counts:
    counts = Counts()
    look(counts, *running, written=written)
    return counts


def look(counts: Counts, *running: tuple[str, int], written: int = 0) -> list[tuple[What, str]]:
    unseen = counts.look({run: f"name-{run[0]}" for run in running}, written)
    assert {event.reason for event in unseen} <= {UNSEEN}
    return [(event.what, event.guest) for event in unseen]


def test_guests_that_ran_before_are_no_starts() -> None:
    counts = looked(("a", 1))
    look(counts, ("a", 1))
    assert not +counts.starts


def test_an_event_before_its_look_counts_once() -> None:
    counts = looked()
    counts.event(started("a", "migrated"))
    for _ in range(3):
        look(counts, ("a", 1))
    assert +counts.starts == {"migrated": 1}


def test_an_event_after_its_look_counts_once() -> None:
    counts = looked()
    look(counts, ("a", 1))
    counts.event(started("a"))
    for _ in range(3):
        look(counts, ("a", 1))
    assert +counts.starts == {"booted": 1}


def test_what_nobody_told_is_counted_a_look_later() -> None:
    counts = looked(("a", 1))
    assert not look(counts, ("b", 2))
    assert (+counts.starts, +counts.stops) == ({}, {})
    assert look(counts, ("b", 2)) == [(What.STOPPED, "name-a"), (What.STARTED, "name-b")]
    assert not look(counts, ("b", 2))
    assert (+counts.starts, +counts.stops) == ({UNSEEN: 1}, {UNSEEN: 1})


def test_another_run_of_the_same_guest_is_a_start_and_an_end() -> None:
    counts = looked(("a", 1))
    for _ in range(3):
        look(counts, ("a", 2))
    assert (counts.starts[UNSEEN], counts.stops[UNSEEN]) == (1, 1)


def test_a_guest_that_came_and_went_between_two_looks() -> None:
    counts = looked()
    counts.event(started("a"))
    counts.event(stopped("a", "crashed"))
    for _ in range(3):
        look(counts)
    assert (+counts.starts, +counts.stops) == ({"booted": 1}, {"crashed": 1})


def test_one_that_came_and_went_while_libvirt_was_away() -> None:
    """libvirt told of its start; it was killed together with the guest, before any look."""
    counts = looked()
    counts.event(started("a"))
    assert not look(counts)
    assert look(counts) == [(What.STOPPED, "a")]
    assert not look(counts)
    assert (+counts.starts, +counts.stops) == ({"booted": 1}, {UNSEEN: 1})


def test_other_events_are_not_counted() -> None:
    counts = looked()
    counts.event(Event(what=What.MEMORY, guest="a", uuid="a"))
    assert (+counts.starts, +counts.stops) == ({}, {})


def test_what_was_written_meanwhile_counts_to_the_ends() -> None:
    counts = looked(("a", 1), ("b", 2), written=100)
    look(counts, ("a", 1), ("b", 2), written=150)
    assert counts.stop_written == 0
    look(counts, ("b", 2), written=170)
    look(counts, ("b", 2), written=500)
    assert counts.stop_written == 20
    look(counts, written=3)  # another device: its count began anew
    assert counts.stop_written == 20


def test_the_hooks_log_tells_refusals_and_what_starts_wrote() -> None:
    counts = Counts()
    counts.record({"event": "refused", "code": "capacity.exceeded"})
    counts.record({"event": "undecided", "code": "hook.time-out", "vetoed": True})
    counts.record({"event": "undecided", "code": "hook.time-out", "vetoed": False})
    counts.record({"event": "broken", "status": 127, "vetoed": 1})
    counts.record({"event": "broken", "status": 127, "vetoed": 0})
    counts.record({"event": "started", "written_mib": 1.5})
    counts.record({"event": "started"})
    counts.record({"event": "reserved"})
    assert counts.refusals == {"capacity.exceeded": 1, "hook.time-out": 1, "hook.broken": 1}
    assert counts.start_written == 1.5 * MIB


def test_a_copy_does_not_change_with_the_original() -> None:
    counts = looked()
    copy = counts.copy()
    counts.event(started("a"))
    counts.record({"event": "refused", "code": "c"})
    assert (+copy.starts, +copy.refusals) == ({}, {})
