"""What the agent counts: what libvirt tells, and what it has not told, each once."""

from ramshelf.core.agent.counts import UNSEEN, Tally
from ramshelf.core.agent.events import Event, What
from ramshelf.core.units import MIB


def started(uuid: str, reason: str = "booted") -> Event:
    return Event(what=What.STARTED, guest=uuid, uuid=uuid, reason=reason)


def stopped(uuid: str, reason: str = "shutdown") -> Event:
    return Event(what=What.STOPPED, guest=uuid, uuid=uuid, reason=reason)


def looked(*running: tuple[str, int], written: int = 0) -> Tally:
    tally = Tally()
    tally.look(running, written)
    return tally


def test_guests_that_ran_before_are_no_starts() -> None:
    tally = looked(("a", 1))
    tally.look([("a", 1)], 0)
    assert not +tally.starts


def test_an_event_before_its_look_counts_once() -> None:
    tally = looked()
    tally.event(started("a", "migrated"))
    for _ in range(3):
        tally.look([("a", 1)], 0)
    assert +tally.starts == {"migrated": 1}


def test_an_event_after_its_look_counts_once() -> None:
    tally = looked()
    tally.look([("a", 1)], 0)
    tally.event(started("a"))
    for _ in range(3):
        tally.look([("a", 1)], 0)
    assert +tally.starts == {"booted": 1}


def test_what_nobody_told_is_counted_a_look_later() -> None:
    tally = looked(("a", 1))
    tally.look([("b", 2)], 0)
    assert (+tally.starts, +tally.stops) == ({}, {})
    tally.look([("b", 2)], 0)
    tally.look([("b", 2)], 0)
    assert (+tally.starts, +tally.stops) == ({UNSEEN: 1}, {UNSEEN: 1})


def test_another_run_of_the_same_guest_is_a_start_and_an_end() -> None:
    tally = looked(("a", 1))
    for _ in range(3):
        tally.look([("a", 2)], 0)
    assert (tally.starts[UNSEEN], tally.stops[UNSEEN]) == (1, 1)


def test_a_guest_that_came_and_went_between_two_looks() -> None:
    tally = looked()
    tally.event(started("a"))
    tally.event(stopped("a", "crashed"))
    for _ in range(3):
        tally.look([], 0)
    assert (+tally.starts, +tally.stops) == ({"booted": 1}, {"crashed": 1})


def test_other_events_are_not_counted() -> None:
    tally = looked()
    tally.event(Event(what=What.MEMORY, guest="a", uuid="a"))
    assert (+tally.starts, +tally.stops) == ({}, {})


def test_what_was_written_meanwhile_counts_to_the_ends() -> None:
    tally = looked(("a", 1), ("b", 2), written=100)
    tally.look([("a", 1), ("b", 2)], 150)
    assert tally.stop_written == 0
    tally.look([("b", 2)], 170)
    tally.look([("b", 2)], 500)
    assert tally.stop_written == 20
    tally.look([], 3)  # another device: its count began anew
    assert tally.stop_written == 20


def test_the_hooks_log_tells_refusals_and_what_starts_wrote() -> None:
    tally = Tally()
    tally.record({"event": "refused", "code": "capacity.exceeded"})
    tally.record({"event": "undecided", "code": "hook.time-out", "vetoed": True})
    tally.record({"event": "undecided", "code": "hook.time-out", "vetoed": False})
    tally.record({"event": "broken", "status": 127, "vetoed": 1})
    tally.record({"event": "broken", "status": 127, "vetoed": 0})
    tally.record({"event": "started", "written_mib": 1.5})
    tally.record({"event": "started"})
    tally.record({"event": "reserved"})
    assert tally.refusals == {"capacity.exceeded": 1, "hook.time-out": 1, "hook.broken": 1}
    assert tally.start_written == 1.5 * MIB


def test_a_copy_does_not_change_with_the_original() -> None:
    tally = looked()
    copy = tally.copy()
    tally.event(started("a"))
    tally.record({"event": "refused", "code": "c"})
    assert (+copy.starts, +copy.refusals) == ({}, {})
