"""When the feed is looked at: polls and pokes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.feed.polling import POKE_GOOD_S, POKED_LOOK_GAP_S, PollTimer, backoff_s

POLL_S = 30.0


def looked_at(now_s: float) -> PollTimer:
    """Return a timer whose last look began and ended then, with nothing new."""
    timer = PollTimer(POLL_S)
    timer.begin(now_s)
    timer.end(now_s, idle=True)
    return timer


def test_the_first_look_is_due_at_once() -> None:
    timer = PollTimer(POLL_S)
    assert timer.due_s == 0.0
    timer.poke()
    assert timer.due_s <= 0.0


def test_an_idle_feed_is_polled_and_a_full_one_read_on() -> None:
    timer = looked_at(100.0)
    assert timer.due_s == 130.0
    timer.begin(130.0)
    timer.end(130.5, idle=False)
    assert timer.due_s == 130.5


@pytest.mark.parametrize(
    ("took_s", "due_after_s"), [(0.5, 30.0), (15.0, 30.0), (20.0, 40.0), (100.0, 130.0)]
)
def test_the_interval_counts_from_the_beginning_and_a_slow_source_has_its_rest(
    took_s: float, due_after_s: float
) -> None:
    timer = PollTimer(POLL_S)
    timer.begin(100.0)
    timer.end(100.0 + took_s, idle=True)
    assert timer.due_s == pytest.approx(100.0 + due_after_s)


def test_a_poke_brings_the_look_forward() -> None:
    timer = looked_at(100.0)
    timer.poke()
    assert timer.due_s == pytest.approx(100.0 + POKED_LOOK_GAP_S)


def test_a_poke_during_a_look_asks_for_another() -> None:
    timer = PollTimer(POLL_S)
    timer.begin(100.0)
    timer.poke()
    timer.end(105.0, idle=True)
    assert timer.due_s < 105.0, "at once: it may have come too late for that look"


def test_a_poke_is_good_for_a_second_of_looks_and_then_it_is_polled_again() -> None:
    timer = looked_at(100.0)
    timer.poke()
    began = [110.0]
    while began[-1] < 120.0:
        timer.begin(began[-1])
        timer.end(began[-1], idle=True)
        began.append(timer.due_s)
    assert began == pytest.approx([110.0, 110.2, 110.4, 110.6, 110.8, 111.0, 141.0])


def test_a_look_that_begins_when_a_poke_is_good_no_more_asks_for_none() -> None:
    timer = looked_at(90.0)
    timer.poke()
    for began_s in (100.0, 100.0 + POKE_GOOD_S):
        timer.begin(began_s)
        timer.end(began_s, idle=True)
    assert timer.due_s == 100.0 + POKE_GOOD_S + POLL_S


@pytest.mark.parametrize(
    ("count", "chance", "pause_s"),
    [
        (1, 1.0, 1.0),
        (2, 1.0, 2.0),
        (5, 1.0, 16.0),
        (2, 0.0, 1.0),
        (2, 0.5, 1.5),
        (40, 1.0, 2.0**32),
    ],
)
def test_pauses_double_and_end_somewhere(count: int, chance: float, pause_s: float) -> None:
    assert backoff_s(count, first_s=1.0, longest_s=1e12, chance=chance) == pause_s
    assert backoff_s(count, first_s=1.0, longest_s=0.5, chance=1.0) == 0.5
    assert backoff_s(10**6, first_s=1.0, longest_s=60.0, chance=0.0, spread=0.25) == 45.0


def test_a_poke_never_puts_a_look_off() -> None:
    timer = PollTimer(0.05)
    timer.begin(100.0)
    timer.end(100.0, idle=True)
    timer.poke()
    assert timer.due_s == pytest.approx(100.05)


@given(
    pokes=st.lists(st.floats(0.0, 20.0), max_size=300),
    takes_s=st.floats(0.0, 1.0),
    poll_s=st.floats(1.0, 60.0),
)
def test_however_many_pokes_looks_are_bounded_and_none_is_forgotten(
    pokes: list[float], takes_s: float, poll_s: float
) -> None:
    timer, began, now_s = PollTimer(poll_s), list[float](), 0.0
    waiting = sorted(pokes)
    while now_s < 30.0:
        if timer.due_s <= now_s:
            timer.begin(now_s)
            began.append(now_s)
            now_s += takes_s
            while waiting and waiting[0] <= now_s:
                waiting.pop(0)
                timer.poke()
            timer.end(now_s, idle=True)
        until_s = min([timer.due_s, 30.0, *waiting[:1]])
        now_s = max(now_s, until_s)
        while waiting and waiting[0] <= now_s:
            waiting.pop(0)
            timer.poke()
    gaps = [after - before for before, after in itertools.pairwise(began)]
    assert all(gap >= POKED_LOOK_GAP_S - 1e-9 for gap in gaps)
    for poked_s in pokes:
        for arrived_s in (poked_s, poked_s + POKE_GOOD_S / 2, poked_s + POKE_GOOD_S - 1e-6):
            later = [look_s for look_s in began if look_s >= arrived_s]
            assert later, "a look begins after each arrival"
            assert later[0] - arrived_s <= POKED_LOOK_GAP_S + takes_s + 1e-9
