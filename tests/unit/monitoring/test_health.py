from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.events import InFlight, Progress, SideView
from bridge.model import LOG_STUCK_S, LogState, epoch_of
from bridge.monitoring.health import (
    HealthLimits,
    Lag,
    audit_problems,
    judge,
    lag_of,
    log_problems,
    unready,
)

NOW = 1_000_000.0
LIMITS = HealthLimits(stall_after_s=600.0)
WELL = Progress(
    checkpoint=10, last=10, caught_up=True, last_progress_at=NOW - 5, feed_read_at=NOW - 1
)
BUSY = replace(WELL, caught_up=False, in_flight=(InFlight("i", 11, NOW, 1),))
DOWN = SideView(up=False, problem="unreachable", message="refused", advice="start it")


@pytest.mark.parametrize(
    ("progress", "parked", "limits", "codes"),
    [
        (WELL, {}, LIMITS, []),
        (replace(WELL, target=DOWN), {}, LIMITS, ["target_unreachable"]),
        (replace(WELL, source=DOWN, target=DOWN), {}, LIMITS,
         ["source_unreachable", "target_unreachable"]),
        (replace(WELL, state_error="disk full"), {}, LIMITS, ["state_unwritable"]),
        (WELL, {"undecodable": 2}, LIMITS, ["parked"]),
        (WELL, {"undecodable": 2}, replace(LIMITS, parked_limit=2), []),
        # Work and no progress is a stall; no work and no progress is an idle evening.
        (replace(BUSY, last_progress_at=NOW - 601), {}, LIMITS, ["stalled"]),
        (replace(WELL, last_progress_at=NOW - 601), {}, LIMITS, []),
        # The night before the first instance of the day counts for nothing.
        (replace(BUSY, last_progress_at=NOW - 9_000, able_since=NOW - 1), {}, LIMITS, []),
        (replace(BUSY, last_progress_at=NOW - 9_000, able_since=NOW - 601), {}, LIMITS,
         ["stalled"]),
        (replace(WELL, feed_read_at=NOW - 601), {}, LIMITS, ["stalled"]),
        (replace(WELL, feed_read_at=NOW - 601), {}, replace(LIMITS, poll_interval_s=60.0), []),
        # An outage explains the standstill: one reason is enough.
        (replace(BUSY, last_progress_at=NOW - 601, target=DOWN), {}, LIMITS,
         ["target_unreachable"]),
        (replace(BUSY, oldest_changed_at="19700112T134000"), {}, replace(LIMITS, lag_limit_s=60),
         ["lag_above_limit"]),
    ],
)  # fmt: skip
def test_judge(
    progress: Progress, parked: dict[str, int], limits: HealthLimits, codes: list[str]
) -> None:
    assert [finding.code for finding in judge(progress, parked, limits, now=NOW)] == codes


def test_a_feed_in_doubt_comes_first() -> None:
    found = judge(replace(WELL, target=DOWN), {}, LIMITS, now=NOW, feed_doubt="ended at 5")
    assert [finding.code for finding in found] == ["feed_in_doubt", "target_unreachable"]
    assert found[0].message == "ended at 5"


def test_a_feed_reset_comes_first() -> None:
    found = judge(replace(WELL, target=DOWN), {}, LIMITS, now=NOW, feed_reset="ended at 5")
    assert [finding.code for finding in found] == ["feed_went_backwards", "target_unreachable"]


def test_gaps_that_were_given_up_are_told_until_they_are_answered_for() -> None:
    (found,) = judge(WELL, {}, LIMITS, now=NOW, gaps_given_up=7)
    assert found.code == "feed_gaps_given_up"
    assert "7 sequences" in found.message
    assert "check --fix" in found.advice
    assert judge(WELL, {}, LIMITS, now=NOW, gaps_given_up=0) == ()


def test_ready_needs_both_servers_and_the_state_file_but_not_a_clean_record() -> None:
    assert unready(WELL) == ()
    assert [f.code for f in unready(replace(WELL, state_error="full"))] == ["state_unwritable"]
    assert unready(replace(BUSY, last_progress_at=0.0)) == ()


def test_lag() -> None:
    assert lag_of(WELL, now=NOW) == Lag(0, 0.0)
    behind = replace(BUSY, last=25, oldest_changed_at="19700112T134000")
    assert lag_of(behind, now=NOW) == Lag(15, NOW - 999_600)
    # A source whose clock is ahead of ours must not make the lag negative.
    assert lag_of(replace(behind, oldest_changed_at="20990101T000000"), now=NOW).seconds == 0.0


@pytest.mark.parametrize(("date", "epoch_s"), [("19700101T000001", 1.0), ("", None), ("x", None)])
def test_epoch_of(date: str, epoch_s: float | None) -> None:
    assert epoch_of(date) == epoch_s


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (LogState(), ""),
        (LogState(stuck_s=LOG_STUCK_S - 0.1, problem="No space left", waiting=9), ""),
        (LogState(lost=7), ""),
        (LogState(stuck_s=LOG_STUCK_S), "Nobody reads the log, or too slowly."),
        (LogState(losing=True, lost=1), "Nobody reads the log, or too slowly. 1 line lost."),
        (
            LogState(stuck_s=60, problem="No space left", lost=2000, losing=True),
            "The log cannot be written: No space left. 2,000 lines lost.",
        ),
    ],
)
def test_a_log_that_cannot_be_written(log: LogState, said: str) -> None:
    expected = [("log_failing", said)] if said else []
    assert [(found.code, found.message) for found in log_problems(log)] == expected


def test_an_audit_file_that_cannot_be_written() -> None:
    assert audit_problems("") == ()
    (found,) = audit_problems("The disk is full.")
    assert (found.code, found.message) == ("audit_failing", "The disk is full.")
