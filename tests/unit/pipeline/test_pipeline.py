"""The loop among fakes: window, pace, patience, outages, poison."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from bridge.errors import SourceError, TargetError
from bridge.events import InstanceRetried, SideDown, SideUp, WorkerLost
from bridge.feed.pages import MovePage
from bridge.feed.sources import FixedMoves
from bridge.model import (
    ExecutorFailed,
    InstanceFailed,
    Move,
    Outcome,
    Reason,
    SideName,
    SideProblem,
    Skipped,
)
from bridge.monitoring.health import HealthLimits, judge
from bridge.pipeline.failure_policy import Limits
from bridge.pipeline.window import Window, WorkItem
from tests.pipeline_bench import DELIVERED, Bench, Stuck, down

MANY = [f"i{number:02}" for number in range(20)]


class Rows(FixedMoves):
    """Pages as a feed gives them: so many with more to come, then idle for ever."""

    def __init__(self, pages: int) -> None:
        self.left = pages
        self.given = 0

    def next_page(self) -> MovePage:
        if not self.left:
            return MovePage((), done=True)
        self.left -= 1
        self.given += 1
        return MovePage((Move(f"m{self.given}"),), done=not self.left)


def test_everything_is_done_and_written() -> None:
    bench = Bench()
    summary = bench.run(MANY)
    assert summary.delivered == summary.settled == 20
    assert bench.ledger.settled == set(MANY)


def test_it_wakes_for_half_of_what_no_worker_has_begun_and_for_each_when_workers_may_idle() -> None:
    bench = Bench(window=8)
    bench.run(MANY)
    assert max(bench.time.enough) == (8 - bench.workers.threads) // 2
    assert bench.time.enough[-1] == 1
    narrow = Bench(window=3)
    narrow.run(MANY)
    assert set(narrow.time.enough) == {1}


def test_the_versions_of_both_servers_are_reported() -> None:
    bench = Bench()
    bench.run(MANY)
    last = bench.progress[-1]
    assert (last.source.version, last.target.version) == ("1.0-source", "1.0-target")


@pytest.mark.parametrize("window", [1, 3, 7])
def test_the_window_is_never_exceeded_and_is_used(window: int) -> None:
    bench = Bench(window=window)
    bench.run(MANY)
    assert bench.most_running == window
    assert all(len(progress.in_flight) <= window for progress in bench.progress)


def test_outcomes_are_counted_apart() -> None:
    bench = Bench()
    bench.script = {
        "i00": [replace(DELIVERED, status="AlreadyStored")],
        "i01": [Skipped(Reason.GONE)],
        "i02": [InstanceFailed(Reason.UNDECODABLE, "bad", final=True)],
    }
    summary = bench.run(MANY)
    assert (summary.delivered, summary.already_there) == (17, 1)
    assert summary.skipped == {"gone": 1}
    assert summary.parked == {"undecodable": 1}
    assert bench.ledger.parked.keys() == {"i02"}
    assert "i02" not in bench.ledger.settled


def test_it_polls_at_leisure_when_idle_and_without_waiting_when_there_is_more() -> None:
    bench = Bench(poll_interval_s=5.0)
    pipeline = bench.pipeline(Rows(10))
    bench.time.at(33.0, pipeline.stop)
    pipeline.run()
    catching_up, idle = bench.pages_at[:10], bench.pages_at[9:]
    assert catching_up[-1] - catching_up[0] < 2.0
    gaps = [later - earlier for earlier, later in itertools.pairwise(idle)]
    assert gaps
    assert gaps == pytest.approx([5.0] * len(gaps), abs=0.2), "from beginning to beginning"


class Seldom(FixedMoves):
    """Nothing for an hour, then one instance."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def next_page(self) -> MovePage:
        if self._bench.time.s < 3600.0:
            return MovePage((), done=True)
        return MovePage((Move("late"),), done=True, ended=True)


def stalls(bench: Bench) -> list[float]:
    """At which moments /health would have said that it stalls."""
    return [
        at - bench.reported_at[0]
        for at, progress in zip(bench.reported_at, bench.progress, strict=True)
        if any(found.code == "stalled" for found in judge(progress, {}, HealthLimits(), now=at))
    ]


def test_an_idle_hour_before_an_instance_is_no_stall() -> None:
    bench = Bench(work_s=100.0, poll_interval_s=5.0)
    assert bench.run(Seldom(bench)).delivered == 1
    assert stalls(bench) == []


def test_an_outage_before_an_instance_is_no_stall() -> None:
    bench = Bench(work_s=100.0)
    bench.bring_down(SideName.TARGET)
    bench.time.at(3600.0, bench.probe_errors.clear)
    assert bench.run(MANY[:1]).delivered == 1
    assert stalls(bench) == []


def test_a_worker_that_comes_to_no_end_is_a_stall_in_the_end() -> None:
    bench = Bench(work_s=900.0, poll_interval_s=5.0)
    assert bench.run(Seldom(bench)).delivered == 1
    assert 4200.0 < stalls(bench)[0] < 4210.0


def test_an_instance_gets_its_attempts_with_growing_pauses_and_is_parked() -> None:
    bench = Bench(limits=Limits(attempts_max=4, retry_first_s=1.0))
    bench.script = {"i03": [InstanceFailed(Reason.WORKER_DIED, "it crashed")]}
    summary = bench.run(MANY)
    assert bench.started.count("i03") == 4
    assert summary.parked == {"worker_died": 1}
    parked = bench.ledger.parked["i03"]
    assert parked.attempts == 4
    assert parked.first_failed_at < parked.parked_at
    pauses = [event.after_s for event in bench.happened(InstanceRetried)]
    assert pauses == [1.0, 2.0, 4.0]
    assert len(bench.happened(WorkerLost)) == 4


def test_a_poison_costs_the_others_no_attempt() -> None:
    bench = Bench()
    bench.script = {"i05": [InstanceFailed(Reason.WORKER_DIED, "it crashed")]}
    bench.run(MANY)
    assert {e.move.instance_id for e in bench.happened(InstanceRetried)} == {"i05"}
    assert sorted(set(bench.started)) == MANY
    assert all(bench.started.count(name) == 1 for name in MANY if name != "i05")


def test_bad_luck_that_passes_parks_nothing() -> None:
    bench = Bench()
    bench.script = {"i05": [InstanceFailed(Reason.TIMED_OUT, "slow"), DELIVERED]}
    assert bench.run(MANY).delivered == 20
    assert not bench.ledger.parked


def test_a_lost_pool_costs_no_attempt() -> None:
    bench = Bench(limits=Limits(attempts_max=1))
    lost: list[Outcome] = [ExecutorFailed("lost")] * 5
    bench.script = {"i05": [*lost, DELIVERED]}
    assert bench.run(MANY).delivered == 20
    assert bench.started.count("i05") == 6


def test_a_disk_without_room_for_one_instance_is_asked_more_and_more_seldom() -> None:
    """Each time the source has to send all of it."""
    bench = Bench(limits=Limits(attempts_max=1))
    no_room = ExecutorFailed("No room.", advice="Free space.", specific=True)
    full: list[Outcome] = [no_room] * 12
    bench.script = {"i05": [*full, DELIVERED]}
    assert bench.run(MANY).delivered == 20
    assert not bench.ledger.parked
    pauses_s = [event.after_s for event in bench.happened(InstanceRetried)]
    assert len(pauses_s) == 12
    assert sum(pauses_s) > 200
    (said,) = {
        (refused.instance_id, refused.message, refused.advice)
        for progress in bench.progress
        for refused in progress.refused
    }
    assert said == ("i05", "No room.", "Free space.")
    assert {progress.refused_count for progress in bench.progress} == {0, 1}


@pytest.mark.parametrize("side", SideName)
@pytest.mark.parametrize("problem", [p for p in SideProblem if p is not SideProblem.SERVER_ERROR])
def test_an_outage_of_any_kind_parks_nothing_and_spends_nothing(
    side: SideName, problem: SideProblem
) -> None:
    bench = Bench(limits=Limits(attempts_max=1))
    failures: list[Outcome] = [down(side, problem)]
    bench.script = dict.fromkeys(MANY, failures)
    bench.bring_down(side, problem)

    def heal() -> None:
        bench.script = {}
        bench.probe_errors = {}

    bench.time.at(300.0, heal)
    summary = bench.run(MANY)
    assert summary.delivered == 20
    assert not bench.ledger.parked
    assert bench.happened(InstanceRetried) == []
    assert len(bench.happened(SideDown)) == 1
    assert [up.side for up in bench.happened(SideUp)] == [side]
    assert len(bench.started) < 20 + 2 * bench.pace.window, "a server that is down is left alone"


@pytest.mark.parametrize(
    ("side", "then"),
    [
        (SideName.TARGET, InstanceFailed(Reason.UNDECODABLE, "bad", final=True)),
        (SideName.TARGET, Skipped(Reason.GONE)),
        (SideName.SOURCE, InstanceFailed(Reason.WORKER_DIED, "crash", final=True)),
    ],
)
def test_a_server_is_not_told_as_down_for_want_of_something_to_try_it_with(
    side: SideName, then: Outcome
) -> None:
    """It failed once, and what it failed at needs it no more: a night follows without arrivals."""

    class One(Rows):
        def next_page(self) -> MovePage:
            return replace(super().next_page(), done=True)

    bench = Bench(poll_interval_s=5.0)
    bench.script = {"m1": [down(side, SideProblem.TIMED_OUT), then, then]}
    pipeline = bench.pipeline(One(1))
    bench.time.at(3600.0, pipeline.stop)
    pipeline.run()
    last = bench.progress[-2]
    assert last.source.up
    assert last.target.up
    assert not bench.summary.delivered


def test_an_outage_is_told_while_it_lasts() -> None:
    bench = Bench()
    bench.bring_down(SideName.TARGET, SideProblem.LOGIN_REFUSED)
    bench.time.at(60.0, bench.probe_errors.clear)
    bench.run(MANY)
    during = [p for p in bench.progress if not p.target.up]
    assert during
    assert during[-1].target.problem == SideProblem.LOGIN_REFUSED
    assert during[-1].source.up
    assert bench.progress[-1].target.up


def test_patience_ends_a_job_with_the_error_of_the_side() -> None:
    for side, error in ((SideName.SOURCE, SourceError), (SideName.TARGET, TargetError)):
        bench = Bench(patience_s=30.0)
        bench.bring_down(side)
        with pytest.raises(error, match=r"It is down\."):
            bench.run(MANY)
        assert 30.0 <= bench.time.s < 40.0
        assert not bench.started


@pytest.mark.slow
def test_without_patience_it_waits_for_ever() -> None:
    bench = Bench(patience_s=None)
    bench.bring_down(SideName.TARGET)
    with pytest.raises(Stuck):
        bench.run(MANY)
    assert bench.time.s > 1000.0


def test_patience_begins_anew_with_every_outage() -> None:
    bench = Bench(patience_s=30.0, work_s=1.0, window=1)
    for start in (1.0, 25.0, 50.0):
        bench.time.at(start, lambda: bench.bring_down(SideName.TARGET))
        bench.time.at(start + 20.0, bench.probe_errors.clear)
    assert bench.run(MANY).delivered == 20


def test_a_500_for_one_while_others_are_served_is_held_against_that_one() -> None:
    class Trickle(FixedMoves):
        """One instance a second, so that others are served between the attempts at the first."""

        given = 0

        def next_page(self) -> MovePage:
            self.given += 1
            return MovePage((Move(f"t{self.given}"),), done=True, ended=self.given == 60)

    bench = Bench()
    bench.script = {"t1": [down(problem=SideProblem.SERVER_ERROR, specific=True)]}
    summary = bench.run(Trickle())
    assert summary.delivered == 59
    assert summary.parked == {"server_refuses_instance": 1}
    assert bench.ledger.parked["t1"].attempts == 3
    assert "serves other instances, but not this one" in bench.ledger.parked["t1"].message
    assert not any(name != "t1" and bench.started.count(name) > 1 for name in bench.started)


@pytest.mark.parametrize(
    "problem", [SideProblem.BODY_LIMIT, SideProblem.FORBIDDEN, SideProblem.SERVER_ERROR]
)
def test_what_a_limit_on_the_way_refuses_waits_and_stops_nobody(problem: SideProblem) -> None:
    """A proxy with a body limit, in front of the target: neither an outage nor parked."""
    names = [f"i{number:03}" for number in range(100)]
    large = names[5::10]
    bench = Bench()
    bench.script = {name: [down(problem=problem)] for name in large}
    seen: list[object] = []

    def others_done() -> None:
        # With nobody else left to serve, it is the server's trouble again, and shown as that.
        seen.extend([bench.summary.delivered, bench.progress[-1].target.problem])
        bench.script.clear()

    bench.time.at(60.0, others_done)
    summary = bench.run(names)
    assert seen == [90, problem]
    assert any(progress.refused for progress in bench.progress)
    assert summary.delivered == 100
    assert not bench.ledger.parked
    retried = [event for event in bench.events if isinstance(event, InstanceRetried)]
    assert retried
    assert not any(event.attempts for event in retried)


def test_a_500_for_everybody_parks_nobody() -> None:
    bench = Bench(limits=Limits(attempts_max=1))
    sick: list[Outcome] = [down(problem=SideProblem.SERVER_ERROR, specific=True)]
    bench.script = dict.fromkeys(MANY, sick)
    bench.time.at(200.0, bench.script.clear)
    assert bench.run(MANY).delivered == 20
    assert not bench.ledger.parked


def test_a_500_for_the_only_instance_parks_it_not() -> None:
    bench = Bench(limits=Limits(attempts_max=1))
    bench.script = {"only": [down(problem=SideProblem.SERVER_ERROR, specific=True)]}
    bench.time.at(200.0, bench.script.clear)
    assert bench.run(["only"]).delivered == 1
    assert not bench.ledger.parked


def test_two_moves_of_one_instance_are_never_under_way_together() -> None:
    """It was sent anew: side by side, the older file could be the last to arrive."""
    window = Window(4)
    window.add([WorkItem(1, Move("a", 1)), WorkItem(2, Move("a", 2)), WorkItem(3, Move("b", 3))])

    def start() -> list[int]:
        started = []
        while window.can_start():
            item = window.start_next()
            window.begin(item)
            started.append(item.number)
        return started

    assert start() == [1, 3]
    assert (window.waiting, window.under_way) == (1, 2)
    ended = window.end(1)
    assert start() == [], "it may be tried again"
    assert ended is not None
    window.finish(ended.item)
    assert start() == [2]
    assert not window.empty
    window.end(2)
    window.end(3)
    assert window.empty
