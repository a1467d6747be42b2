"""What /health says of events that do not get out, from the outbox and from the thread."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bridge.events import TellingFailed, TellingWorks
from bridge.ledger.outbox import EventLedger
from bridge.ledger.records import Notice, OutboxView
from bridge.monitoring.board import Board
from bridge.monitoring.health import EVENTS_GRACE_S, HealthLimits, events_problems

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("outbox", "failing", "message"),
    [
        (OutboxView(), None, None),
        (OutboxView({"webhook": 1}, NOW - EVENTS_GRACE_S, "x"), None, None),
        (
            OutboxView({"webhook": 1}, NOW - EVENTS_GRACE_S - 1, ""),
            None,
            "1 event could not be sent, the oldest for 15 min 1 s.",
        ),
        (
            OutboxView({"notify-1": 2, "webhook": 3}, NOW - 7200, "it answered 500"),
            None,
            "5 events could not be sent, the oldest for 2 h 0 min: it answered 500.",
        ),
        (OutboxView(), (NOW - EVENTS_GRACE_S, "It refuses."), None),
        (
            OutboxView(),
            (NOW - EVENTS_GRACE_S - 1, "It refuses."),
            "Studies cannot be judged: It refuses.",
        ),
    ],
)
def test_what_waits_too_long_is_a_reason(
    outbox: OutboxView, failing: tuple[float, str] | None, message: str | None
) -> None:
    found = events_problems(outbox, failing, now=NOW)
    assert [problem.message for problem in found] == ([] if message is None else [message])
    assert {problem.code for problem in found} <= {"events_failing"}


def test_the_board_reads_the_outbox_and_hears_the_thread(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    with EventLedger(path) as ledger:
        old = Notice("e", "webhook", "parked", "{}", time.time() - 2 * EVENTS_GRACE_S)
        ledger.tell([old])
    board = Board(path, HealthLimits())
    assert "events_failing" in {problem.code for problem in board.problems()}
    assert board.outbox().waiting == {"webhook": 1}
    quiet = Board(tmp_path / "other.sqlite3", HealthLimits())
    EventLedger(tmp_path / "other.sqlite3").close()
    quiet.on_event(TellingFailed("It refuses."))
    assert "events_failing" not in {problem.code for problem in quiet.problems()}
    failed = quiet._telling_failed
    assert failed is not None
    quiet._telling_failed = (failed[0] - 2 * EVENTS_GRACE_S, failed[1])
    quiet.on_event(TellingFailed("It refuses again."))
    (problem,) = [one for one in quiet.problems() if one.code == "events_failing"]
    assert "It refuses again." in problem.message
    quiet.on_event(TellingWorks())
    assert "events_failing" not in {problem.code for problem in quiet.problems()}
