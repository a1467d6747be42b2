"""What /health and the page say of verifications: three of everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bridge.errors import StateError
from bridge.ledger.store import Ledger
from bridge.ledger.verifications import (
    INTENT_KEY,
    SOURCE_DAMAGED_KEY,
    SOURCE_DAMAGED_MAX,
    RepairIntent,
    VerificationProgress,
    answer_lost,
    damaged_at_source,
    end_verification,
    intent_text,
    last_verification,
    note_damaged_at_source,
)
from bridge.mirror.judge_copy import DIFFERENCES, REPAIRED, CopyState
from bridge.model import SourceDoubt
from bridge.monitoring.board import Board
from bridge.monitoring.health import (
    NEVER_REPAIRED,
    VERIFY_FAILING_S,
    VERIFY_GRACE_S,
    HealthLimits,
    MirrorView,
    mirror_problems,
    verification_in_words,
)

AN_ID = "01234567-01234567-01234567-01234567-01234567"
EVERY_S = 7 * 86_400.0
NOW = 1e9
WELL = MirrorView(begun_at=NOW - 100.0, ended_at=NOW - 50.0, instances=1_234)


def codes(
    view: MirrorView, *, every_s: float | None = EVERY_S, started_at: float = NOW
) -> set[str]:
    found = mirror_problems(view, every_s, started_at=started_at, now=NOW)
    assert all(problem.message and problem.advice for problem in found)
    return {problem.code for problem in found}


def test_what_no_repair_touches_is_named_and_no_repair_is_advised() -> None:
    def told(**counts: int) -> tuple[str, str]:
        view = replace(WELL, unresolved=sum(counts.values()), counts=counts | {"equal": 90})
        (problem,) = mirror_problems(view, EVERY_S, started_at=NOW, now=NOW)
        return problem.message, problem.advice

    message, advice = told(undecided=1, lost=2)
    assert message == "The last verification found 3 differences, of these 2 lost, 1 undecided."
    assert "--repair" not in advice
    assert "The log names the instances (copy_found)." in advice
    assert "from a backup" in advice
    assert "check --forget-lost" in advice
    message, advice = told(missing=3)
    assert "lost" not in advice
    assert message == "The last verification found 3 differences."
    assert advice.startswith("To repair them: orthanc-bridge check --repair. What each state")
    message, advice = told(missing=3, unverifiable=1)
    assert "of these 1 unverifiable" in message
    assert "check --repair" in advice
    assert "No repair changes" in advice
    told_apart = {CopyState.SOURCE_DAMAGED}
    assert set(NEVER_REPAIRED) == DIFFERENCES - REPAIRED - told_apart


def test_what_a_person_has_acknowledged_as_lost_is_told_no_more(tmp_path: Path) -> None:
    with Ledger(tmp_path / "state") as ledger:
        answer_lost(ledger)
        assert last_verification(ledger) is None
        counts = {"equal": 90, "lost": 5, "damaged": 1}
        progress = VerificationProgress(1.0, 1.0, "", 96, counts, 6, nowhere=4)
        end_verification(ledger, progress, ended_at=2.0)
        for _ in range(2):
            answer_lost(ledger)
            last = last_verification(ledger)
            assert last is not None
            assert (dict(last.counts), last.differences, last.nowhere) == (
                {"equal": 90, "lost": 1, "damaged": 1},
                2,
                0,
            )


@pytest.mark.parametrize(
    ("view", "found"),
    [
        (WELL, set()),
        (MirrorView(), set()),
        (replace(WELL, unresolved=3), {"copies_differ"}),
        (replace(WELL, source_damaged=1), {"damaged_at_source"}),
        (
            replace(WELL, source_damaged=2, unresolved=2, counts={"source_damaged": 2}),
            {"damaged_at_source"},
        ),
        (
            replace(WELL, source_damaged=2, unresolved=3, counts={"source_damaged": 2}),
            {"damaged_at_source", "copies_differ"},
        ),
        (replace(WELL, held=3), {"repairs_held"}),
        *((replace(WELL, doubt=doubt), {"deletions_refused"}) for doubt in SourceDoubt),
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


def test_a_repair_that_a_command_has_left_is_told_where_nothing_is_verified() -> None:
    left = replace(WELL, unfinished=True, failing_since=NOW, failure="It is down.")
    (problem,) = mirror_problems(left, None, started_at=NOW, now=NOW)
    assert problem.code == "verification_failing"
    assert "It is down." in problem.message
    assert "check --repair" in problem.advice
    assert codes(left) == set(), "one is under way again and again"
    assert "a repair is unfinished" in verification_in_words(left, now=NOW)


def test_the_board_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "bridge.sqlite3"
    boards = [Board(path, HealthLimits()) for _ in range(2)]
    with Ledger(path) as ledger:
        assert boards[0].mirror() is None
        intent = RepairIntent(AN_ID, "damaged", "s", "t")
        ledger.set_meta(INTENT_KEY, intent_text(intent))
        shown = boards[1].mirror()
    assert shown is not None
    assert shown.unfinished
    assert "verification_failing" in {problem.code for problem in boards[1].problems()}


@pytest.mark.parametrize("ended", [False, True])
def test_the_board_knows_what_is_damaged_at_the_source(tmp_path: Path, ended: bool) -> None:
    """It stays told when a later verification has drawn others."""
    path = tmp_path / "bridge.sqlite3"
    with Ledger(path) as ledger:
        if ended:
            progress = VerificationProgress(NOW - 100.0, instances=5, counts={"equal": 5})
            end_verification(ledger, progress, ended_at=NOW)
        board = Board(path, HealthLimits(verify_every_s=EVERY_S))
        assert "damaged_at_source" not in {problem.code for problem in board.problems()}
        note_damaged_at_source(ledger, [AN_ID])
        board = Board(path, HealthLimits(verify_every_s=EVERY_S))
        assert "damaged_at_source" in {problem.code for problem in board.problems()}
        note_damaged_at_source(ledger, [])
        assert ledger.meta(SOURCE_DAMAGED_KEY) is None
        for text in ('["x"]', "{}", "[1]", "no JSON"):
            ledger.set_meta(SOURCE_DAMAGED_KEY, text)
            with pytest.raises(StateError):
                damaged_at_source(ledger)
        note_damaged_at_source(ledger, [named(number) for number in range(1005)])
        assert len(damaged_at_source(ledger)) == SOURCE_DAMAGED_MAX


def named(number: int) -> str:
    return "-".join([f"{number:08x}"] * 5)


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
        (MirrorView(), "no verification completed yet"),
        (
            MirrorView(done=12_345),
            "no verification completed yet; one is running, 12,345 done",
        ),
        (WELL, "last complete verification: 50 s ago, 1,234 instances, 0 differences"),
        (
            replace(WELL, unresolved=1, repaired=2, deleted=3, done=4),
            "last complete verification: 50 s ago, 1,234 instances, 1 difference, 2 repaired, "
            "3 deleted at the target; one is running, 4 done",
        ),
    ],
)
def test_in_words(view: MirrorView, said: str) -> None:
    assert verification_in_words(view, now=NOW) == said
