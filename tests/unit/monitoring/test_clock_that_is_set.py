"""A clock that is set, forward or back, makes no absurd duration and hides no standstill."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bridge.events import CarryStopped, Progress, SideView, TellingFailed, VerificationFailed
from bridge.ledger.store import Ledger
from bridge.monitoring.board import Board
from bridge.monitoring.health import (
    CARRY_GRACE_S,
    VERIFY_GRACE_S,
    CarryView,
    HealthLimits,
    MirrorView,
    SignView,
    carry_in_words,
    carry_problems,
    judge,
    mirror_problems,
    sign_in_words,
    sign_problems,
    verification_in_words,
)

NOW = 1e9
YEARS_S = 10 * 365 * 86_400.0
UP = SideView(up=True)
WELL = Progress(
    checkpoint=10,
    last=10,
    caught_up=True,
    phase="following",
    source=UP,
    target=UP,
    last_progress_at=NOW,
    feed_read_at=NOW,
    able_since=NOW,
)
BUSY = replace(WELL, waiting=3, caught_up=False, last=13)
LIMITS = HealthLimits(stall_after_s=600.0, verify_every_s=3600.0, carries=True)


def test_what_was_noted_while_the_clock_was_ahead_is_not_a_moment_ago() -> None:
    later = NOW + 60.0
    verified = MirrorView(begun_at=NOW, ended_at=later, instances=7)
    compared = CarryView(compared_at=later, resources=7)
    waiting = SignView(waiting=7, waiting_since=later)
    told = [
        verification_in_words(verified, now=NOW),
        carry_in_words(compared, now=NOW),
        sign_in_words(waiting, now=NOW),
    ]
    assert told == [
        "last complete verification: at an unknown time (the clock was ahead then), 7 instances, "
        "0 differences",
        "all compared at an unknown time (the clock was ahead then), 7 resources",
        "7 delivered instances to be signed, the first since an unknown time (the clock was ahead "
        "then)",
    ]
    assert "0 s ago" in verification_in_words(verified, now=later)


@dataclass
class Clocks:
    wall: float = NOW
    steady: float = 50.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def board(tmp_path: Path, clocks: Clocks) -> Board:
    path = tmp_path / "state.sqlite3"
    Ledger(path).close()
    return Board(path, LIMITS, now_s=lambda: clocks.wall, steady_s=lambda: clocks.steady)


def codes(board: Board) -> list[str]:
    return [problem.code for problem in board.problems()]


@pytest.mark.parametrize("set_by_s", [YEARS_S, -YEARS_S, 3600.0, -3600.0])
@pytest.mark.parametrize("progress", [WELL, BUSY])
def test_no_standstill_is_told_for_it_and_a_real_one_is(
    board: Board, clocks: Clocks, progress: Progress, set_by_s: float
) -> None:
    board.on_progress(progress)
    assert codes(board) == []
    clocks.passes(100.0)
    clocks.wall += set_by_s
    assert codes(board) == []
    clocks.passes(550.0)
    assert codes(board) == []
    clocks.passes(100.0)
    (problem,) = board.problems()
    assert problem.code == "stalled"
    assert "650 s" in problem.message


@pytest.mark.parametrize("set_by_s", [YEARS_S, -YEARS_S])
def test_what_fails_is_told_after_as_long_as_ever(
    board: Board, clocks: Clocks, set_by_s: float
) -> None:
    board.on_event(VerificationFailed("No."))
    board.on_event(TellingFailed("No."))
    board.on_event(CarryStopped("No."))
    clocks.passes(100.0)
    clocks.wall += set_by_s
    at = replace(WELL, feed_read_at=clocks.wall, last_progress_at=clocks.wall)
    board.on_progress(at)
    assert codes(board) == []
    clocks.passes(3400.0)
    board.on_progress(replace(at, feed_read_at=clocks.wall))
    assert codes(board) == ["events_failing"]
    clocks.passes(200.0)
    board.on_progress(replace(at, feed_read_at=clocks.wall))
    found = {problem.code: problem for problem in board.problems()}
    assert set(found) == {"verification_failing", "carry_late", "events_failing"}
    assert "1 h 1 min" in found["carry_late"].message


def test_a_stored_time_after_now_hides_no_standstill() -> None:
    late = replace(WELL, feed_read_at=NOW + YEARS_S, able_since=NOW - 601.0)
    assert [p.code for p in judge(late, {}, LIMITS, now=NOW)] == ["stalled"]
    unfinished = replace(BUSY, last_progress_at=NOW + YEARS_S, able_since=NOW - 601.0)
    assert [p.code for p in judge(unfinished, {}, LIMITS, now=NOW)] == ["stalled"]


def test_a_stored_time_after_now_hides_nothing_that_waits() -> None:
    started = NOW - CARRY_GRACE_S
    waits = CarryView(caught_up_at=NOW, waiting=1, waiting_since=NOW + YEARS_S)
    assert carry_problems(waits, idle_at=started, held=False, now=NOW)
    assert not carry_problems(waits, idle_at=started + 1, held=False, now=NOW)
    behind = CarryView(caught_up_at=NOW + YEARS_S)
    assert carry_problems(behind, idle_at=started, held=False, now=NOW)
    signs = SignView(waiting=1, refused_since=NOW + YEARS_S)
    assert sign_problems(signs, idle_at=started, held=False, now=NOW)
    assert not sign_problems(signs, idle_at=started + 1, held=False, now=NOW)


def test_a_late_verification_after_a_clock_that_was_set_blames_no_rate(
    board: Board, clocks: Clocks
) -> None:
    board.on_progress(WELL)
    clocks.wall += YEARS_S
    assert codes(board) == [], "this process verified within its time"
    clocks.passes(VERIFY_GRACE_S + 3601.0)
    # The feed was not read meanwhile, and nothing carried: that is told for itself.
    (late,) = [p for p in board.problems() if p.code == "verification_late"]
    assert "1 d 1 h" in late.message
    assert "BRIDGE_VERIFY_RATE" in late.advice
    began = MirrorView(begun_at=NOW - YEARS_S)
    (late,) = mirror_problems(began, 3600.0, started_at=NOW - 60.0, now=NOW)
    assert "BRIDGE_VERIFY_RATE" not in late.advice
    ahead = MirrorView(begun_at=NOW + YEARS_S)
    (late,) = mirror_problems(ahead, 3600.0, started_at=NOW - 2 * VERIFY_GRACE_S, now=NOW)
    assert "BRIDGE_VERIFY_RATE" in late.advice
