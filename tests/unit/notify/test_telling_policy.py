"""When what is told: the policy as tables."""

from __future__ import annotations

from datetime import datetime, time

import pytest

from bridge.ledger.records import StudyRecord, StudyTold
from bridge.model import Study, StudyState
from bridge.notify.telling_policy import (
    DIGEST_DAYS_KEPT,
    HEALTH_CALM_S,
    Asked,
    HealthFold,
    ParkedFold,
    StudyVerdict,
    asked_again,
    digest_day,
    judge_gone,
    judge_study,
    told_after,
)

STABLE = StudyState(stable=True, last_update="20261130T220000")
LATER = StudyState(stable=True, last_update="20261130T220500")
MOVING = StudyState(stable=False, last_update="20261130T220000")
NONE = StudyTold()


def record(delivered: int, parked: int = 0, skipped: int = 0) -> StudyRecord:
    return StudyRecord(Study("1.2", "x"), 1.0, 2.0, delivered, parked, skipped)


@pytest.mark.parametrize(
    ("seen", "told", "verdict"),
    [
        (record(3), NONE, "nothing"),
        (record(3), StudyTold(3, 0, True), "nothing"),
        (record(2, 1), NONE, "nothing"),
        (record(2, 1), StudyTold(3, 1), "nothing"),
        (record(2, 0, 1), StudyTold(3, 1), "complete"),
        (record(0, 0, 1), StudyTold(1, 1), "complete"),
    ],
)
def test_what_is_told_of_one_that_is_gone(seen: StudyRecord, told: StudyTold, verdict: str) -> None:
    assert judge_gone(seen, told) == verdict


@pytest.mark.parametrize(
    ("seen", "told", "asked", "checkpoint", "gaps", "held", "verdict"),
    [
        # Not stable, not followed, not settled yet.
        (record(3), NONE, None, 90, 0, None, "wait"),
        (record(3), NONE, Asked(STABLE, 90), None, 0, None, "wait"),
        (record(3), NONE, Asked(STABLE, 90), 89, 0, None, "wait"),
        (record(3), NONE, Asked(STABLE, 90), 90, 0, None, "complete"),
        (record(3), NONE, Asked(STABLE, 90), 91, 0, None, "complete"),
        # One of its instances may be in a gap.
        (record(3), NONE, Asked(STABLE, 90), 90, 1, None, "wait"),
        (record(3), NONE, Asked(STABLE, 90), 90, 1, 4, "wait"),
        (record(3), NONE, Asked(STABLE, 90), 90, 1, 3, "complete"),
        (record(3), NONE, Asked(STABLE, 90), 90, 1, 2, "complete"),
        (record(3), NONE, Asked(STABLE, 90), 90, 0, 4, "complete"),
        # Once each.
        (record(3), StudyTold(3, 0, True), Asked(STABLE, 90), 90, 0, None, "nothing"),
        (record(4), StudyTold(3, 0, True), Asked(STABLE, 90), 90, 0, None, "complete"),
        (record(3), StudyTold(4, 0, True), Asked(STABLE, 90), 90, 0, None, "nothing"),
        # Parked ones; and what comes after them.
        (record(2, 1), NONE, Asked(STABLE, 90), 90, 0, None, "incomplete"),
        (record(2, 1), StudyTold(3, 0, True), Asked(STABLE, 90), 90, 0, None, "incomplete"),
        (record(2, 1), StudyTold(3, 1), Asked(STABLE, 90), 90, 0, None, "nothing"),
        (record(1, 2), StudyTold(3, 1), Asked(STABLE, 90), 90, 0, None, "incomplete"),
        (record(3, 1), StudyTold(3, 1), Asked(STABLE, 90), 90, 0, None, "incomplete"),
        (record(2, 1), StudyTold(3, 2), Asked(STABLE, 90), 90, 0, None, "nothing"),
        (record(3), StudyTold(3, 1), Asked(STABLE, 90), 90, 0, None, "complete"),
        # Skipped ones have ended; where all are, nothing has arrived.
        (record(2, 0, 1), NONE, Asked(STABLE, 90), 90, 0, None, "complete"),
        (record(0, 0, 3), NONE, Asked(STABLE, 90), 90, 0, None, "nothing"),
        (record(0, 3, 0), NONE, Asked(STABLE, 90), 90, 0, None, "incomplete"),
        # But what was told as incomplete ends.
        (record(0, 0, 3), StudyTold(3, 3), Asked(STABLE, 90), 90, 0, None, "complete"),
    ],
)
def test_what_is_told_of_a_study(  # noqa: PLR0917
    seen: StudyRecord,
    told: StudyTold,
    asked: Asked | None,
    checkpoint: int | None,
    gaps: int,
    held: int | None,
    verdict: str,
) -> None:
    got = judge_study(seen, told, asked, checkpoint=checkpoint, gaps=gaps, held=held)
    assert got == verdict


def test_what_was_told_is_what_was_seen() -> None:
    before = StudyTold(1, 1)
    assert told_after(StudyVerdict.COMPLETE, record(3), before) == StudyTold(3, 0, True)
    assert told_after(StudyVerdict.INCOMPLETE, record(2, 1), before) == StudyTold(3, 1)
    for verdict in (StudyVerdict.NOTHING, StudyVerdict.WAIT):
        assert told_after(verdict, record(3), before) == before


@pytest.mark.parametrize(
    ("before", "state", "feed_end", "asked"),
    [
        (None, MOVING, 50, None),
        (Asked(STABLE, 40), MOVING, 50, None),
        (None, STABLE, 50, Asked(STABLE, 50)),
        # The feed goes on while the checkpoint follows: the place is kept.
        (Asked(STABLE, 40), STABLE, 50, Asked(STABLE, 40)),
        # Its last rows went with their instances.
        (Asked(STABLE, 40), STABLE, 30, Asked(STABLE, 30)),
        # It has grown meanwhile: what came is in the feed up to its present end.
        (Asked(STABLE, 40), LATER, 50, Asked(LATER, 50)),
        # Nobody knows whether it has grown.
        (Asked(StudyState(True), 40), StudyState(True), 50, Asked(StudyState(True), 50)),
    ],
)
def test_where_the_feed_ended_after_a_study_was_stable(
    before: Asked | None, state: StudyState, feed_end: int, asked: Asked | None
) -> None:
    assert asked_again(before, state, feed_end) == asked


def test_500_parked_in_a_minute_are_one_event() -> None:
    fold = ParkedFold(60.0)
    assert not fold.is_due(False, 0.0)
    due = [second for second in range(61) if fold.is_due(True, float(second))]
    assert due == [60], "it begins with the first one"
    assert not fold.is_due(False, 61.0)
    assert not fold.is_due(True, 100.0), "the next ones are gathered anew"
    assert not fold.is_due(True, 159.0)
    assert fold.is_due(True, 160.0)


def test_nothing_is_gathered_where_that_is_not_wanted() -> None:
    assert ParkedFold(0.0).is_due(True, 5.0)


def changes(fold: HealthFold, codes_at: dict[int, set[str]], end: int) -> dict[int, set[str]]:
    """What is told, and when, where /health says this from these seconds on."""
    told: dict[int, set[str]] = {}
    codes: set[str] = set()
    for second in range(end):
        codes = codes_at.get(second, codes)
        found = fold.change(codes, float(second))
        if found is not None:
            told[second] = set(found)
            fold.told_now(found, float(second))
    return told


HEALTH: dict[str, tuple[dict[int, set[str]], dict[int, set[str]]]] = {
    "nothing happens": ({}, {}),
    "an outage and its end": ({100: {"a"}, 600: set()}, {160: {"a"}, 720: set()}),
    "a moment is nothing": ({100: {"a"}, 130: set()}, {}),
    "it goes and comes in the minute": ({100: {"a"}, 150: set(), 170: {"a"}}, {230: {"a"}}),
    "one more reason": ({100: {"a"}, 300: {"a", "b"}}, {160: {"a"}, 420: {"a", "b"}}),
    "two at once": ({100: {"b", "a"}}, {160: {"a", "b"}}),
    "a server was not asked yet": ({100: {"source_not_contacted", "a"}}, {}),
    "its own trouble": ({100: {"events_failing"}}, {}),
}


@pytest.mark.parametrize("name", HEALTH)
def test_a_change_of_health_is_told_once_it_has_lasted(name: str) -> None:
    codes_at, expected = HEALTH[name]
    assert changes(HealthFold((), 60.0), codes_at, 1000) == expected


def test_a_server_that_comes_and_goes_is_told_ever_less_often() -> None:
    """Up and down every two minutes for a day: 720 changes."""
    codes_at = {
        at: {"target_unreachable"} if at % 240 == 0 else set[str]() for at in range(0, 86_400, 120)
    }
    told = changes(HealthFold((), 60.0), codes_at, 86_400)
    assert 20 < len(told) < 30, "about once an hour"
    # One that lasts is told, however many came before it.
    lasting = {at: codes for at, codes in codes_at.items() if at <= 3_000} | {3_120: {"a"}}
    told = changes(HealthFold((), 60.0), lasting, 4_000)
    assert list(told.values())[-1] == {"a"}
    assert list(told)[-1] - 3_120 <= 8 * 60
    # After a calm hour the next one is told without delay again.
    fold = HealthFold((), 60.0)
    for number in range(5):
        fold.told_now(("a",) if number % 2 == 0 else (), 0.0)
    assert fold.change({"a"}, 1.0) is None
    at_s = HEALTH_CALM_S + 1
    assert fold.change(set(), at_s) is None
    assert fold.change(set(), at_s + 59) is None
    assert fold.change(set(), at_s + 60) == ()


def test_what_was_told_before_a_restart_is_not_told_again() -> None:
    fold = HealthFold(["b", "a"], 60.0)
    assert fold.change({"a", "b"}, 1000.0) is None
    assert fold.change({"a"}, 1000.0) is None
    assert fold.change({"a"}, 1060.0) == ("a",)


@pytest.mark.parametrize(
    ("told", "now", "day", "due"),
    [
        (None, "2026-11-30 06:59", "2026-11-29", False),
        (None, "2026-11-30 07:00", "2026-11-30", False),
        ("2026-11-29", "2026-11-30 06:59", "2026-11-29", False),
        ("2026-11-29", "2026-11-30 07:00", "2026-11-30", True),
        ("2026-11-30", "2026-11-30 23:00", "2026-11-30", False),
        ("2026-11-30", "2026-12-01 07:00", "2026-12-01", True),
        ("2026-11-01", "2026-11-30 08:00", "2026-11-30", True),
        # The clock was set back, and before that ahead.
        ("2026-12-24", "2026-11-30 08:00", "2026-11-30", False),
        ("2026-12-24 2026-11-30 2026-11-29", "2026-11-30 08:00", "2026-11-30", False),
        ("2026-12-24 2026-11-29", "2026-11-30 08:00", "2026-11-30", True),
        ("2026-12-24 2026-11-30", "2026-12-01 06:59", "2026-11-30", False),
        ("2026-12-24 2026-11-30", "2026-12-01 08:00", "2026-12-01", True),
        ("1970-01-01 2026-11-30", "2026-11-30 08:00", "2026-11-30", False),
    ],
)
def test_the_digest_comes_once_a_day(told: str | None, now: str, day: str, due: bool) -> None:
    found = digest_day(told, datetime.fromisoformat(now), time(7))
    assert (found.day, found.due) == (day, due)
    assert day in found.told.split()
    assert not digest_day(found.told, datetime.fromisoformat(now), time(7)).due


def test_few_days_are_remembered_and_the_last_one_stands_first() -> None:
    """A bridge from before compares the whole text with a day: it tells none twice."""
    told: str | None = None
    for number in range(1, 29):
        found = digest_day(told, datetime(2026, 11, number, 8), time(7))
        assert found.due is (number > 1)
        told = found.told
        assert told.startswith(found.day)
        assert not told < found.day
    assert told is not None
    assert len(told.split()) == DIGEST_DAYS_KEPT
