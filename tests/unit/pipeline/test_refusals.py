"""Pauses of an instance that was parked because a server failed at it."""

from __future__ import annotations

import pytest

from bridge.pipeline.failure_policy import delay_s
from bridge.pipeline.refusals import REFUSALS_KEPT, Refusals


@pytest.fixture
def refusals() -> Refusals:
    return Refusals(kept_max=3)


def test_only_what_was_parked_waits_and_the_longer_the_oftener(refusals: Refusals) -> None:
    refusals.note("a", 100.0, chance=1.0)
    assert refusals.wait_s("a", 100.0) == 0.0, "its change has pauses of its own"
    refusals.park("a")
    assert refusals.wait_s("a", 100.0) == pytest.approx(delay_s(1, chance=1.0))
    for count in (2, 3, 4):
        refusals.note("a", 100.0, chance=1.0)
        assert refusals.wait_s("a", 100.0) == pytest.approx(delay_s(count, chance=1.0))
    assert refusals.wait_s("a", 100.0 + delay_s(4, chance=1.0)) == 0.0
    refusals.note("a", 160.0, chance=0.0)
    assert refusals.wait_s("a", 160.0) >= 60.0, "after a minute once a minute"


def test_what_is_served_or_unknown_does_not_wait(refusals: Refusals) -> None:
    refusals.park("a")
    assert refusals.wait_s("a", 0.0) == 0.0
    refusals.note("a", 0.0, chance=1.0)
    refusals.park("a")
    refusals.forget("a")
    refusals.forget("a")
    assert refusals.wait_s("a", 0.0) == 0.0
    refusals.note("a", 0.0, chance=1.0)
    assert refusals.wait_s("a", 0.0) == 0.0, "nothing is left of before"


def test_those_that_failed_longest_ago_are_forgotten(refusals: Refusals) -> None:
    for name in ("a", "b", "c"):
        refusals.note(name, 0.0, chance=1.0)
        refusals.park(name)
    refusals.note("a", 0.0, chance=1.0)
    refusals.note("d", 0.0, chance=1.0)
    waiting = [name for name in ("a", "b", "c", "d") if refusals.wait_s(name, 0.0)]
    assert waiting == ["a", "c"]
    assert REFUSALS_KEPT >= 1000
