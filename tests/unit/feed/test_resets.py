"""A source that is another one again and again is asked less and less."""

from __future__ import annotations

from bridge.feed.polling import CALM_S, PAUSE_LONGEST_S, Resets


def test_the_first_costs_no_time_and_the_next_ones_more_and_more() -> None:
    resets, now_s, pauses_s = Resets(), 1000.0, []
    for _ in range(10):
        pauses_s.append(resets.note(now_s, chance=1.0))
        now_s += pauses_s[-1] + 0.01
    assert pauses_s[:5] == [0.0, 1.0, 2.0, 4.0, 8.0]
    assert pauses_s[-1] == PAUSE_LONGEST_S
    assert resets.lasted_s(now_s) > sum(pauses_s)


def test_a_feed_that_was_followed_for_long_is_a_new_beginning() -> None:
    resets = Resets()
    assert resets.note(0.0, chance=1.0) == 0.0
    assert resets.note(CALM_S, chance=1.0) == 1.0, "no longer than that is not calm yet"
    later_s = 2 * CALM_S + 2
    assert resets.note(later_s, chance=1.0) == 0.0
    assert resets.lasted_s(later_s + 5) == 5.0


def test_a_long_pause_is_no_calm() -> None:
    resets, now_s = Resets(), 0.0
    for _ in range(50):
        now_s += resets.note(now_s, chance=1.0) + CALM_S - 1
    assert resets.note(now_s, chance=0.0) == PAUSE_LONGEST_S / 2
