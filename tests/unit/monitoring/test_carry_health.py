"""What /health and the page say of what lies beside the files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bridge.events import CarryStopped, CarryWorks, Progress, SignStopped, SignWorks
from bridge.ledger.records import DeliveryRecord, Entry
from bridge.ledger.store import CARRY_CAUGHT_UP_KEY, CARRY_LAST_KEY, Ledger
from bridge.monitoring.board import Board, carry_view, sign_view
from bridge.monitoring.health import (
    CARRY_GRACE_S,
    CarryView,
    HealthLimits,
    SignView,
    carry_in_words,
    carry_problems,
    sign_in_words,
    sign_problems,
)

NOW = 1e9
WELL = CarryView(caught_up_at=NOW - 10.0, compared_at=NOW - 50.0, resources=1_234)


@pytest.mark.parametrize(
    ("view", "told"),
    [
        (WELL, ""),
        (CarryView(), ""),
        (replace(WELL, waiting=3, waiting_since=NOW - CARRY_GRACE_S + 1), ""),
        (replace(WELL, waiting=3, waiting_since=NOW - CARRY_GRACE_S), "of 3 resources"),
        (replace(WELL, stopped_since=NOW - CARRY_GRACE_S + 1, stopped="Down."), ""),
        (replace(WELL, stopped_since=NOW - CARRY_GRACE_S, stopped="Down."), "Down."),
        (replace(WELL, caught_up_at=NOW - CARRY_GRACE_S), "have been behind for 1 h 0 min"),
        (replace(WELL, left=5), ""),
    ],
)
def test_it_is_told_after_a_grace(view: CarryView, told: str) -> None:
    found = carry_problems(view, idle_at=NOW - 2 * CARRY_GRACE_S, held=False, now=NOW)
    if view == CarryView():  # a bridge that has just begun
        found = carry_problems(view, idle_at=NOW - 5.0, held=False, now=NOW)
    assert [problem.code for problem in found] == (["carry_late"] if told else [])
    assert all(told in problem.message and problem.advice for problem in found)


def test_a_pause_and_an_outage_are_no_lag() -> None:
    view = replace(WELL, caught_up_at=NOW - 3 * CARRY_GRACE_S)
    assert carry_problems(view, idle_at=0.0, held=False, now=NOW)
    assert not carry_problems(view, idle_at=0.0, held=True, now=NOW)
    assert not carry_problems(view, idle_at=NOW - 5.0, held=False, now=NOW)


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (CarryView(), "not everything has been compared yet"),
        (WELL, "all compared 50 s ago, 1,234 resources"),
        (
            replace(WELL, left=2, waiting=1),
            "all compared 50 s ago, 1,234 resources, 2 left because others wrote them; "
            "1 resource waits",
        ),
    ],
)
def test_in_words(view: CarryView, said: str) -> None:
    assert carry_in_words(view, now=NOW).startswith(said)


def test_the_board_reads_the_state_file_and_hears_of_failures(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    board = Board(path, HealthLimits(carries=True))
    with Ledger(path) as ledger:
        ledger.set_meta(CARRY_CAUGHT_UP_KEY, "123.0")
        told = '{"begun_at": 1, "ended_at": 2.0, "resources": 3, "left": 4, "failed": 5}'
        ledger.set_meta(CARRY_LAST_KEY, told)
        ledger.set_carry_waiting("a", now=7.0, next_at=8.0)
        known = carry_view(ledger)
    assert known == CarryView(123.0, 1, 7.0, 2.0, 3, 4)
    assert board.carry() == known
    board.on_event(CarryStopped("Down."))
    board.on_event(CarryStopped("Still."))
    stopped = board.carry()
    assert stopped is not None
    assert stopped.stopped == "Still."
    assert stopped.stopped_since is not None
    board.on_progress(Progress())
    assert "carry_late" in {problem.code for problem in board.problems()}, "one waits since 1970"
    board.on_event(CarryWorks())
    assert board.carry() == known
    assert Board(path, HealthLimits()).carry() is None, "nothing is brought"


SINCE = NOW - CARRY_GRACE_S
LATE = SignView(waiting=3, waiting_since=SINCE, refused_since=SINCE)
STOPPED = SignView(stopped_since=NOW - CARRY_GRACE_S, stopped="Down.")


@pytest.mark.parametrize(
    ("view", "told"),
    [
        (SignView(), ""),
        (replace(LATE, refused_since=NOW - CARRY_GRACE_S + 1), ""),
        (replace(LATE, refused_since=None), ""),  # it waits for its turn
        (
            LATE,
            "Delivered instances could not be signed at the source for 1 h 0 min.",
        ),
        (replace(STOPPED, stopped_since=NOW - CARRY_GRACE_S + 1), ""),
        (STOPPED, "Nothing was signed at the source for 1 h 0 min: Down."),
    ],
)
def test_signs_are_told_after_a_grace(view: SignView, told: str) -> None:
    found = sign_problems(view, idle_at=NOW - 2 * CARRY_GRACE_S, held=False, now=NOW)
    assert [problem.code for problem in found] == (["sign_late"] if told else [])
    assert all(told in problem.message and problem.advice for problem in found)


def test_signs_do_not_lag_for_a_pause_or_an_outage() -> None:
    assert not sign_problems(LATE, idle_at=0.0, held=True, now=NOW)
    assert not sign_problems(LATE, idle_at=NOW - 5.0, held=False, now=NOW)


def test_signs_in_words() -> None:
    assert sign_in_words(SignView(), now=NOW) == "all that was delivered is signed"
    said = "3 delivered instances to be signed, the first since 1 h 0 min"
    assert sign_in_words(LATE, now=NOW) == said


def test_the_board_hears_of_signs(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    board = Board(path, HealthLimits(signs=True))
    with Ledger(path) as ledger:
        ledger.commit(Entry(delivered=(DeliveryRecord("a", "s", "t", 7.0, to_sign=True),)))
        assert sign_view(ledger) == SignView(1, 7.0)
    assert board.signs() == SignView(1, 7.0)
    board.on_event(SignStopped("Down."))
    board.on_event(SignStopped("Still."))
    stopped = board.signs()
    assert stopped is not None
    assert stopped.stopped == "Still."
    board.on_event(CarryWorks())
    assert board.signs() == stopped, "that is another thread"
    board.on_event(SignWorks())
    assert board.signs() == SignView(1, 7.0)
    assert Board(path, HealthLimits()).signs() is None
