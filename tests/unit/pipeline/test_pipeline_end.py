"""The loop among fakes: drain, a state that fails, what is left of an earlier loop."""

from __future__ import annotations

import pytest

from bridge.errors import SourceError, StateError
from bridge.events import Abandoned, Draining, StateFailed, StateRecovered
from bridge.feed.pages import MovePage
from bridge.feed.sources import GivenMoves
from bridge.model import Move, SideName, SideProblem
from tests.pipeline_bench import JOB, Bench

MANY = [f"i{number:02}" for number in range(20)]


def test_a_stop_lets_running_instances_finish_and_starts_none() -> None:
    bench = Bench(work_s=5.0, shutdown_timeout_s=30.0)
    pipeline = bench.pipeline(MANY)
    bench.time.at(7.0, pipeline.stop)
    pipeline.run()
    assert bench.summary.stopped
    assert bench.summary.delivered == len(bench.started) == 8
    assert bench.ledger.settled == set(bench.started)
    assert bench.summary.abandoned == 0
    assert bench.happened(Draining)[0].in_flight == 4
    assert bench.progress[-1].phase == "draining"


def test_a_drain_ends_in_time_and_says_what_it_leaves() -> None:
    bench = Bench(work_s=5.0, shutdown_timeout_s=30.0)
    bench.holding = {"i02"}
    pipeline = bench.pipeline(MANY)
    bench.time.at(7.0, pipeline.stop)
    pipeline.run()
    assert 37.0 <= bench.time.s < 39.0
    assert bench.summary.abandoned == 1
    assert bench.happened(Abandoned)[0].in_flight == 1
    assert "i02" not in bench.ledger.settled


def test_a_stop_before_the_start_does_nothing() -> None:
    bench = Bench()
    pipeline = bench.pipeline(MANY)
    pipeline.stop()
    pipeline.run()
    assert bench.summary.stopped
    assert len(bench.started) == 0


def test_a_stop_while_a_server_is_down_ends_at_once() -> None:
    bench = Bench()
    bench.bring_down(SideName.SOURCE)
    pipeline = bench.pipeline(MANY)
    bench.time.at(50.0, pipeline.stop)
    pipeline.run()
    assert bench.time.s < 51.0


def test_while_the_state_cannot_be_written_nothing_is_started_and_nothing_is_lost() -> None:
    bench = Bench(work_s=1.0)
    started_before: list[int] = []

    def break_it() -> None:
        bench.ledger.error = StateError("The disk is full.")

    def mend_it() -> None:
        started_before.append(len(bench.started))
        bench.ledger.error = None

    bench.time.at(1.5, break_it)
    bench.time.at(100.0, mend_it)
    assert bench.run(MANY).delivered == 20
    assert bench.ledger.settled == set(MANY)
    assert started_before == [8], "two windows: the second had begun when it broke"
    assert len(bench.happened(StateFailed)) == len(bench.happened(StateRecovered)) == 1
    assert any(progress.state_error for progress in bench.progress)
    assert not bench.progress[-1].state_error
    assert all(bench.started.count(name) == 1 for name in MANY)


def test_a_job_does_not_wait_for_a_state_that_cannot_be_written() -> None:
    bench = Bench(patience_s=60.0)
    bench.ledger.error = StateError("The disk is full.")
    with pytest.raises(StateError, match="full"):
        bench.run(MANY)
    assert bench.time.s < 10.0


def test_an_error_of_the_source_repeats_the_same_page() -> None:
    class Shaky(GivenMoves):
        failures = 3

        def next_page(self) -> MovePage:
            if self.failures:
                self.failures -= 1
                raise SourceError(SideProblem.TIMED_OUT, "slow today")
            return super().next_page()

    bench = Bench()
    assert bench.run(Shaky([Move(name) for name in MANY], page_size=7)).delivered == 20


def test_a_late_result_of_another_pipeline_is_not_taken_for_one_of_this_one() -> None:
    """After a feed reset the next phase has the same workers; what was abandoned still ends."""
    bench = Bench(work_s=5.0, shutdown_timeout_s=1.0)
    bench.holding = {"abandoned"}
    first = bench.pipeline(["abandoned"])
    bench.time.at(1.0, first.stop)
    first.run()
    assert bench.summary.abandoned == 1
    (late,) = bench.running.values()
    bench.holding = {"other"}
    second = bench.pipeline(["other"])
    bench.time.at(1.0, lambda: bench.finish(late))
    bench.time.at(9.0, second.stop)
    second.run()
    assert "other" in bench.started
    assert bench.summary.delivered == 0, "the other instance has not arrived"
    assert "other" not in bench.ledger.settled


def test_the_job_goes_to_the_workers_as_it_is() -> None:
    bench = Bench()
    bench.holding = {"one"}
    pipeline = bench.pipeline(["one"])
    bench.time.at(1.0, pipeline.stop)
    pipeline.run()
    (task,) = bench.running.values()
    assert task.job is JOB
    assert task.move == Move("one")
