"""What /health and the page say of verifications: three of everything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.monitoring.health import (
    VERIFY_FAILING_S,
    VERIFY_GRACE_S,
    MirrorView,
    mirror_problems,
    verification_in_words,
)

EVERY_S = 7 * 86_400.0
NOW = 1e9
WELL = MirrorView(begun_at=NOW - 100.0, ended_at=NOW - 50.0, instances=1_234)


def codes(
    view: MirrorView, *, every_s: float | None = EVERY_S, started_at: float = NOW
) -> set[str]:
    found = mirror_problems(view, every_s, started_at=started_at, now=NOW)
    assert all(problem.message and problem.advice for problem in found)
    return {problem.code for problem in found}


@pytest.mark.parametrize(
    ("view", "found"),
    [
        (WELL, set()),
        (MirrorView(), set()),
        (replace(WELL, unresolved=3), {"copies_differ"}),
        (replace(WELL, held=3), {"repairs_held"}),
        (replace(WELL, begun_at=NOW - 2 * EVERY_S), set()),
        (replace(WELL, begun_at=NOW - 2 * EVERY_S - 1.0), {"verification_late"}),
        (replace(WELL, failing_since=NOW - VERIFY_FAILING_S + 1.0, failure="No."), set()),
        (
            replace(WELL, failing_since=NOW - VERIFY_FAILING_S, failure="No."),
            {"verification_failing"},
        ),
        (
            replace(WELL, unresolved=1, held=2, begun_at=0.0, failing_since=0.0, failure="No."),
            {"copies_differ", "repairs_held", "verification_late", "verification_failing"},
        ),
    ],
)
def test_table(view: MirrorView, found: set[str]) -> None:
    assert codes(view) == found
    assert codes(view, every_s=None) == set(), "no verifications are wanted"


def test_the_first_one_is_awaited_from_the_start_of_the_bridge() -> None:
    assert codes(MirrorView(), started_at=NOW - 2 * EVERY_S) == set()
    assert codes(MirrorView(), started_at=NOW - 2 * EVERY_S - 1.0) == {"verification_late"}


def test_one_that_is_due_often_has_a_day_of_grace() -> None:
    view = replace(WELL, begun_at=NOW - 60.0 - VERIFY_GRACE_S)
    assert codes(view, every_s=60.0) == set()
    assert codes(replace(view, begun_at=NOW - 61.0 - VERIFY_GRACE_S), every_s=60.0) == {
        "verification_late"
    }


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (MirrorView(), "no verification has come to its end yet"),
        (
            MirrorView(done=12_345),
            "no verification has come to its end yet; under way, 12,345 done",
        ),
        (WELL, "last complete verification: 50 s ago, 1,234 instances, 0 differences"),
        (
            replace(WELL, unresolved=1, repaired=2, deleted=3, done=4),
            "last complete verification: 50 s ago, 1,234 instances, 1 difference, 2 repaired, "
            "3 deleted at the target; under way, 4 done",
        ),
    ],
)
def test_in_words(view: MirrorView, said: str) -> None:
    assert verification_in_words(view, now=NOW) == said
