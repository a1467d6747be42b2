"""Who can work, and since when nobody could: what makes it hopeless to wait longer."""

from __future__ import annotations

import pytest

from bridge.errors import ConfigurationError
from bridge.events import Workforce
from bridge.model import ExecutorFailed, InstanceFailed, Outcome, Reason, Skipped
from bridge.pipeline.available_workers import EXECUTOR_ADVICE, AvailableWorkers
from tests.pipeline_bench import DELIVERED, Bench

WELL = Workforce(threads=2, workers=2)
AWAY = Workforce(threads=0, workers=0, problem="away", message="It is away.", advice="Start it.")
LOST = ExecutorFailed("The pool lost it.", advice="Look there.")
PATIENCE_S = 10.0


@pytest.fixture
def bench() -> Bench:
    return Bench()


def at(
    bench: Bench, workers: AvailableWorkers, s: float, workforce: Workforce | None = None
) -> AvailableWorkers:
    """Let it be ``s`` and look."""
    bench.time.s = s
    if workforce is not None:
        bench.workers = workforce
    workers.refresh()
    return workers


def told(workers: AvailableWorkers, *, needed: bool = True) -> ConfigurationError | None:
    return workers.trouble(PATIENCE_S, needed=needed)


def test_nobody_at_work_for_as_long_as_patience_is_hopeless_and_says_why(bench: Bench) -> None:
    workers = AvailableWorkers(bench, bench.time)
    assert told(at(bench, workers, 1.0, AWAY)) is None
    assert told(at(bench, workers, 10.9)) is None
    trouble = told(at(bench, workers, 11.0))
    assert trouble is not None
    assert (trouble.message, trouble.advice) == ("It is away.", "Start it.")


def test_who_came_back_in_between_is_waited_for_anew(bench: Bench) -> None:
    workers = AvailableWorkers(bench, bench.time)
    at(bench, workers, 0.0, AWAY)
    assert at(bench, workers, 9.0, WELL).workforce == WELL
    assert told(at(bench, workers, 9.5, AWAY)) is None
    assert told(at(bench, workers, 19.0)) is None
    assert told(at(bench, workers, 19.5)) is not None


def test_nobody_is_needed_where_nothing_is_to_be_started(bench: Bench) -> None:
    workers = AvailableWorkers(bench, bench.time)
    at(bench, workers, 0.0, AWAY)
    at(bench, workers, 100.0)
    assert told(workers, needed=False) is None
    assert told(workers) is not None


def test_attempts_that_are_lost_for_as_long_as_patience_are_hopeless(bench: Bench) -> None:
    """From the first that was lost to the last one: what is under way may yet succeed."""
    workers = AvailableWorkers(bench, bench.time)
    for s in (5.0, 9.0, 14.9):
        bench.time.s = s
        workers.note(LOST)
        assert told(workers) is None
    bench.time.s = 100.0
    assert told(workers) is None, "the time since the last one does not count"
    bench.time.s = 15.0
    workers.note(ExecutorFailed("Another one."))
    trouble = told(workers)
    assert trouble is not None
    assert trouble.message == "The pool lost it. Look there.", "the first one says why"
    assert trouble.advice == EXECUTOR_ADVICE


def test_what_is_lost_while_nobody_is_there_counts_where_nobody_is_needed(bench: Bench) -> None:
    workers = AvailableWorkers(bench, bench.time)
    workers.note(LOST)
    at(bench, workers, 10.0, AWAY)
    workers.note(LOST)
    assert told(workers) is None, "that nobody is there comes first, and is not old yet"
    assert told(workers, needed=False) is not None


@pytest.mark.parametrize(
    "outcome",
    [DELIVERED, Skipped(Reason.RULE), InstanceFailed(Reason.UNDECODABLE, "bad")],
    ids=["delivered", "skipped", "failed"],
)
def test_any_attempt_that_comes_back_ends_it(bench: Bench, outcome: Outcome) -> None:
    workers = AvailableWorkers(bench, bench.time)
    workers.note(ExecutorFailed("No advice."))
    assert workers.error == "No advice."
    workers.note(outcome)
    assert workers.error == ""
    bench.time.s = 50.0
    workers.note(LOST)
    assert told(workers) is None, "it is counted from the first one since"
    bench.time.s = 60.0
    workers.note(LOST)
    assert told(workers) is not None
    workers.note(outcome)
    assert told(workers) is None
