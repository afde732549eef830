"""core/guest/hold: what becomes of a guest that was left paused."""

import pytest

from ramshelf.core.guest.hold import Left, left


def test_one_that_is_paused_as_it_was_left_is_resumed() -> None:
    assert left("paused", requested=True, busy=False) is Left.RESUME


def test_one_that_an_error_or_a_migration_has_paused_since_is_not() -> None:
    assert left("paused", requested=False, busy=False) is Left.FORGET


@pytest.mark.parametrize("state", ["running", "idle"])
def test_one_that_runs_is_to_be_resumed_in_case_a_pause_is_under_way(state: str) -> None:
    assert left(state, requested=False, busy=False) is Left.RESUME


@pytest.mark.parametrize("state", ["running", "paused"])
@pytest.mark.parametrize("requested", [False, True])
def test_one_that_is_dumped_or_migrated_is_seen_to_later(state: str, requested: bool) -> None:  # noqa: FBT001
    assert left(state, requested=requested, busy=True) is Left.LATER


@pytest.mark.parametrize("state", ["crashed", "in shutdown", "shut off", "pmsuspended", "no state"])
@pytest.mark.parametrize("busy", [False, True])
def test_one_in_any_other_state_is_left_as_it_is(state: str, busy: bool) -> None:  # noqa: FBT001
    assert left(state, requested=False, busy=busy) is Left.FORGET
