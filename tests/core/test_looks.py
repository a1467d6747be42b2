"""When the feed is looked at: polls and pokes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.looks import POKE_GOOD_S, POKED_LOOK_GAP_S, Looks

POLL_S = 30.0


def looked_at(now_s: float) -> Looks:
    """Return looks of which the last began and ended then, with nothing new."""
    looks = Looks(POLL_S)
    looks.begin(now_s)
    looks.end(now_s, idle=True)
    return looks


def test_the_first_look_is_due_at_once() -> None:
    assert Looks(POLL_S).due_s == 0.0


def test_an_idle_feed_is_polled_and_a_full_one_read_on() -> None:
    looks = looked_at(100.0)
    assert looks.due_s == 130.0
    looks.begin(130.0)
    looks.end(130.5, idle=False)
    assert looks.due_s == 130.5


@pytest.mark.parametrize(
    ("took_s", "due_after_s"), [(0.5, 30.0), (15.0, 30.0), (20.0, 40.0), (100.0, 130.0)]
)
def test_the_interval_counts_from_the_beginning_and_a_slow_source_has_its_rest(
    took_s: float, due_after_s: float
) -> None:
    looks = Looks(POLL_S)
    looks.begin(100.0)
    looks.end(100.0 + took_s, idle=True)
    assert looks.due_s == pytest.approx(100.0 + due_after_s)


def test_a_poke_brings_the_look_forward() -> None:
    looks = looked_at(100.0)
    looks.poke()
    assert looks.due_s == pytest.approx(100.0 + POKED_LOOK_GAP_S)


def test_a_poke_during_a_look_asks_for_another() -> None:
    looks = Looks(POLL_S)
    looks.begin(100.0)
    looks.poke()
    looks.end(105.0, idle=True)
    assert looks.due_s < 105.0, "at once: it may have come too late for that look"


def test_a_poke_is_good_for_a_second_of_looks_and_then_it_is_polled_again() -> None:
    looks = looked_at(100.0)
    looks.poke()
    began = [110.0]
    while began[-1] < 120.0:
        looks.begin(began[-1])
        looks.end(began[-1], idle=True)
        began.append(looks.due_s)
    assert began == pytest.approx([110.0, 110.2, 110.4, 110.6, 110.8, 111.0, 141.0])


def test_a_poke_never_puts_a_look_off() -> None:
    looks = Looks(0.05)
    looks.begin(100.0)
    looks.end(100.0, idle=True)
    looks.poke()
    assert looks.due_s == pytest.approx(100.05)


@given(
    pokes=st.lists(st.floats(0.0, 20.0), max_size=300),
    takes_s=st.floats(0.0, 1.0),
    poll_s=st.floats(1.0, 60.0),
)
def test_however_many_pokes_looks_are_bounded_and_none_is_forgotten(
    pokes: list[float], takes_s: float, poll_s: float
) -> None:
    looks, began, now_s = Looks(poll_s), list[float](), 0.0
    waiting = sorted(pokes)
    while now_s < 30.0:
        if looks.due_s <= now_s:
            looks.begin(now_s)
            began.append(now_s)
            now_s += takes_s
            while waiting and waiting[0] <= now_s:
                waiting.pop(0)
                looks.poke()
            looks.end(now_s, idle=True)
        until_s = min([looks.due_s, 30.0, *waiting[:1]])
        now_s = max(now_s, until_s)
        while waiting and waiting[0] <= now_s:
            waiting.pop(0)
            looks.poke()
    gaps = [after - before for before, after in itertools.pairwise(began)]
    assert all(gap >= POKED_LOOK_GAP_S - 1e-9 for gap in gaps)
    for poked_s in pokes:
        for arrived_s in (poked_s, poked_s + POKE_GOOD_S / 2, poked_s + POKE_GOOD_S - 1e-6):
            later = [look_s for look_s in began if look_s >= arrived_s]
            assert later, "a look begins after each arrival"
            assert later[0] - arrived_s <= POKED_LOOK_GAP_S + takes_s + 1e-9
