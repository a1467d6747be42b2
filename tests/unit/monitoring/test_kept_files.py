"""What /health says of instances of which the target kept another file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bridge.events import CopyRepaired, Event, Settled
from bridge.ledger.outbox import EventLedger
from bridge.model import Action, Delivered, Move, Reason, Skipped, StageTimes
from bridge.monitoring.board import Board
from bridge.monitoring.headline import next_command
from bridge.monitoring.health import HealthLimits, Problem
from bridge.monitoring.kept_files import KNOWN_MAX, TOLD_S, KeptFiles, KeptView

SAME = Delivered("Success", Action.UNCHANGED, "1.2", "1.2", "1.2.3", 1, 1, StageTimes())
OTHER = replace(SAME, status="AlreadyStored", differing=True)


class Clock:
    def __init__(self) -> None:
        self.at_s = 1000.0

    def __call__(self) -> float:
        return self.at_s


def _settled(instance_id: str, outcome: Delivered | Skipped) -> Settled:
    return Settled(Move(instance_id, 1), outcome, 1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(tmp_path: Path, clock: Clock) -> Board:
    path = tmp_path / "state.sqlite3"
    EventLedger(path).close()
    return Board(path, HealthLimits(), steady_s=clock)


def _told(board: Board) -> list[Problem]:
    return [problem for problem in board.problems() if problem.code == "other_bytes_kept"]


def test_the_last_one_and_the_number_are_told(board: Board) -> None:
    board.on_event(_settled("a", SAME))
    assert _told(board) == []
    board.on_event(_settled("b", OTHER))
    (problem,) = _told(board)
    assert problem.message == (
        "The target already had 1 instance with other bytes than the bridge sent, and kept its own "
        "file; the last one is b."
    )
    assert "OverwriteInstances" in problem.advice
    assert next_command(board.progress, (problem,)) == "orthanc-bridge check --deep"
    for instance_id in "cdb":
        board.on_event(_settled(instance_id, OTHER))
    (problem,) = _told(board)
    assert "had 3 instances with" in problem.message
    assert "the last one is b." in problem.message, "each counts once, the newest is named"
    reasons = board.health()["reasons"]
    assert isinstance(reasons, list)
    assert "other_bytes_kept" in [reason["code"] for reason in reasons]


@pytest.mark.parametrize(
    "event",
    [
        _settled("a", SAME),
        _settled("a", replace(SAME, status="AlreadyStored")),
        _settled("a", Skipped(Reason.GONE)),
        _settled("a", Skipped(Reason.CAME_BACK)),
        CopyRepaired("a", "differs"),
    ],
)
def test_an_instance_stops_counting_when_it_is_right(board: Board, event: Event) -> None:
    board.on_event(_settled("a", OTHER))
    board.on_event(_settled("b", OTHER))
    board.on_event(event)
    (problem,) = _told(board)
    assert "had 1 instance with" in problem.message
    assert "the last one is b." in problem.message
    board.on_event(_settled("b", SAME))
    assert _told(board) == []


def test_the_reason_ends_a_day_after_the_last_one(board: Board, clock: Clock) -> None:
    board.on_event(_settled("a", OTHER))
    clock.at_s += TOLD_S - 1.0
    board.on_event(_settled("b", OTHER))
    clock.at_s += TOLD_S - 1.0
    assert "had 2 instances" in _told(board)[0].message
    clock.at_s += 1.0
    assert _told(board) == []
    board.on_event(_settled("c", OTHER))
    assert "had 1 instance " in _told(board)[0].message, "those of days ago do not count again"


def test_memory_is_bounded() -> None:
    kept = KeptFiles()
    for number in range(KNOWN_MAX):
        kept.note(str(number), 0.0)
    assert kept.view(0.0) == KeptView(KNOWN_MAX, str(KNOWN_MAX - 1))
    kept.note("x", 0.0)
    assert kept.view(0.0) == KeptView(KNOWN_MAX, "x", full=True)
    kept.forget("0")
    kept.forget("1")
    assert kept.view(0.0) == KeptView(KNOWN_MAX - 1, "x", full=True)
    for number in range(KNOWN_MAX):
        kept.forget(str(number))
    assert kept.view(0.0) == KeptView(1, "x", full=True)
    kept.forget("x")
    kept.note("y", 0.0)
    assert kept.view(0.0) == KeptView(1, "y")
