"""How many instances are to be under way, by what is seen of those that were."""

from __future__ import annotations

import pytest

from bridge.worker.transfers_policy import (
    PAUSE_FIRST_S,
    PAUSE_LONGEST_S,
    SLACK_S,
    Bounds,
    Found,
    TransfersSeen,
    enough,
    next_found,
)

BOUNDS = Bounds(4, 32)


def seen(
    rate: float,
    size: int,
    *,
    waits: float = 0.9,
    used: float = 1.0,
    slack_s: float = 0.0,
    failed: bool = False,
) -> TransfersSeen:
    """Over a second. ``used``: of the time of all of them."""
    return TransfersSeen(1.0, round(rate), used * size, waits, slack_s, failed)


@pytest.mark.parametrize(
    ("found", "seen_of_it", "after"),
    [
        # They wait for servers: one step more, on trial.
        (Found(4), seen(29, 4), Found(6, before=4, rate_before=29.0)),
        (Found(9), seen(29, 9), Found(14, before=9, rate_before=29.0)),
        # The rate grew with it: another step.
        (Found(6, 4, 29.0), seen(43, 6), Found(9, before=6, rate_before=43.0)),
        # And it forgets that steps once brought nothing.
        (Found(6, 4, 29.0, vain=3), seen(43, 6), Found(9, before=6, rate_before=43.0)),
        # It did not: back, and a pause that is longer each time.
        (Found(6, 4, 29.0), seen(29, 6), Found(4, pause_s=PAUSE_FIRST_S, vain=1)),
        (Found(6, 4, 29.0, vain=1), seen(30, 6), Found(4, pause_s=2 * PAUSE_FIRST_S, vain=2)),
        (Found(6, 4, 29.0, vain=50), seen(20, 6), Found(4, pause_s=PAUSE_LONGEST_S, vain=51)),
        # During the pause nothing is tried.
        (Found(4, pause_s=10.0), seen(29, 4), Found(4, pause_s=9.0)),
        (Found(4, pause_s=0.5, vain=1), seen(29, 4), Found(6, 4, 29.0, vain=1)),
        # Never above what the servers admit.
        (Found(28, 19, 300.0), seen(400, 28), Found(32, before=28, rate_before=400.0)),
        (Found(32, 28, 400.0), seen(450, 32), Found(32)),
        (Found(32), seen(450, 32), Found(32)),
        # Processors are the limit: fewer, and not fewer than the least.
        (Found(9), seen(60, 9, waits=0.1), Found(6)),
        (Found(4), seen(60, 4, waits=0.1), Found(4)),
        # A trial whose rate grew may still show that processors are busy now.
        (Found(9, 6, 40.0), seen(60, 9, waits=0.1), Found(6)),
        # Between the two it stays.
        (Found(9), seen(60, 9, waits=0.3), Found(9)),
        (Found(9, 6, 50.0), seen(60, 9, waits=0.3), Found(9)),
        # There is not enough to do: nothing can be tried, and fewer will do.
        (Found(9), seen(5, 9, used=0.5, slack_s=SLACK_S), Found(7)),
        (Found(32), seen(1, 32, used=0.05, slack_s=SLACK_S), Found(4)),
        (Found(32), seen(0, 32, used=0.0, waits=0.0, slack_s=SLACK_S), Found(4)),
        # A pause in the feed is nothing.
        (Found(32), seen(0, 32, used=0.0, slack_s=SLACK_S - 0.1), Found(32)),
        (Found(6, 4, 29.0), seen(5, 6, used=0.7), Found(6)),
        # A server failed: what was on trial is taken back.
        (Found(9, 6, 40.0), seen(60, 9, failed=True), Found(6, pause_s=PAUSE_FIRST_S, vain=1)),
        (Found(9), seen(60, 9, failed=True), Found(9, pause_s=PAUSE_FIRST_S, vain=1)),
    ],
)
def test_what_is_found_next(found: Found, seen_of_it: TransfersSeen, after: Found) -> None:
    assert next_found(found, seen_of_it, BOUNDS) == after


@pytest.mark.parametrize(
    ("span_s", "ended", "size", "used", "told"),
    [
        (0.4, 100, 4, 4.0, False),
        (0.5, 8, 4, 4.0, True),
        (0.5, 7, 4, 4.0, False),
        (5.0, 63, 32, 32.0, False),
        (5.0, 64, 32, 32.0, True),
        # Few have ended because few are there.
        (0.5, 0, 32, 0.0, True),
        (0.5, 1, 32, 23.0, True),
        (0.5, 1, 32, 24.0, False),
    ],
)
def test_when_enough_was_seen(
    span_s: float, ended: int, size: int, used: float, told: bool
) -> None:
    assert enough(TransfersSeen(span_s, ended, used, 1.0), size) is told


def _settles(trip_s: float, work_s: float, cores: float, most: int) -> tuple[int, float]:
    """Simulate: each instance waits ``trip_s`` and works ``work_s`` on one of the cores."""
    found, bounds = Found(4), Bounds(4, most)
    rate = 0.0
    for _ in range(200):
        size = found.size
        rate = min(size / (trip_s + work_s), cores / work_s)
        cycle_s = size / rate
        waits = trip_s / cycle_s
        found = next_found(found, seen(rate, size, waits=waits), bounds)
        assert bounds.least <= found.size <= bounds.most
    return found.size, rate


@pytest.mark.parametrize(
    ("trip_s", "work_s"),
    [(0.1, 0.03), (0.05, 0.008), (0.05, 0.002), (0.001, 0.03), (0.2, 0.02), (0.0, 0.001)],
)
def test_it_comes_near_to_what_the_processors_can_do(trip_s: float, work_s: float) -> None:
    """Two cores, servers near and far: 0.9 of the limit, which may be the number of transfers."""
    _, rate = _settles(trip_s, work_s, 2.0, 32)
    best = min(32 / (trip_s + work_s), 2.0 / work_s)
    assert rate >= 0.85 * best


def test_next_door_it_stays_with_the_least() -> None:
    assert _settles(0.001, 0.03, 2.0, 32)[0] == 4
