"""When the agent does what."""

from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.agent.schedule import Pace, retry_pause

TIMES = st.floats(min_value=0, max_value=100)


def pace() -> Pace:
    return Pace(interval=10, pause=0.5, share=10)


def test_it_is_due_at_once_and_then_after_its_interval() -> None:
    looks = pace()
    assert looks.due == 0
    looks.done(ended=100.02, took=0.02)
    assert looks.due == 110.02


def test_what_is_asked_for_comes_sooner_but_not_at_once() -> None:
    looks = pace()
    looks.done(ended=100.02, took=0.02)
    looks.ask()
    assert looks.due == 100.52


def test_what_takes_long_is_not_done_all_the_time() -> None:
    looks = pace()
    looks.done(ended=102, took=2)
    assert looks.due == 122
    looks.ask()
    assert looks.due == 122


def test_being_asked_does_not_put_off_what_is_due() -> None:
    looks = pace()
    looks.ask()
    assert looks.due == 0


@given(ended=TIMES, took=TIMES, asked=st.integers(min_value=0, max_value=3))
def test_it_never_takes_more_than_its_share(ended: float, took: float, asked: int) -> None:
    looks = pace()
    looks.done(ended=ended, took=took)
    for _ in range(asked):
        looks.ask()
    assert looks.due - ended >= 10 * took * 0.999


def test_tries_come_less_and_less_often_and_go_on() -> None:
    pauses = [retry_pause(failures) for failures in range(1, 40)]
    assert pauses[0] == 0.5
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30
