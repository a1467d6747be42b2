"""What is read, how far, and which deletions are believed."""

from __future__ import annotations

import pytest

import bridge.pipeline.intake
from bridge.errors import StateError, TargetError
from bridge.feed.follow import FollowFeed
from bridge.feed.pages import MovePage
from bridge.feed.sources import FixedMoves, GivenMoves
from bridge.model import Move, Reason, SideName, SideProblem, Skipped, Task
from bridge.pipeline.journal import CommandJournal
from tests.feed_client import JudgedFeed
from tests.pipeline_bench import Bench, Recording
from tests.unit.feed.test_feed_ahead import GrowingFeed

GONE = Skipped(Reason.GONE)


def test_a_deletion_that_was_not_asked_about_waits_for_a_look_of_its_own() -> None:
    """Two are missed; a third is missed while the look for the first two is under way."""

    class Looking(GivenMoves):
        def __init__(self, bench: Bench) -> None:
            super().__init__([Move(name) for name in ("a", "b", "c", "d")], page_size=100)
            self.bench = bench
            self.looks: list[int] = []

        def look_back(self) -> MovePage:
            self.looks.append(self.bench.summary.skipped["gone"])
            return MovePage(())

    bench = Bench(window=4, work_s=0.1)
    moves = Looking(bench)
    bench.script = {"a": [GONE], "b": [GONE], "c": [GONE], "d": [GONE]}
    late = {"c": 0.1005}
    submit = bench.submit

    def submitting(task: Task) -> None:
        after_s = late.pop(task.move.instance_id, None)
        if after_s is None:
            submit(task)
            return
        bench.holding.add(task.move.instance_id)
        submit(task)
        bench.holding.clear()
        bench.time.at(after_s, lambda: bench.finish(task))

    bench.submit = submitting  # type: ignore[method-assign]
    summary = bench.run(moves)
    assert summary.skipped == {"gone": 4}
    assert all(bench.started.count(name) == 2 for name in "abcd")
    # c came back while the first look was under way: it was asked for once more only after another.
    assert len(moves.looks) >= 4


class Endless(FixedMoves):
    """A feed without end; its first instance never comes to one."""

    def __init__(self) -> None:
        self.given = 0

    def next_page(self) -> MovePage:
        first, self.given = self.given, self.given + 10
        return MovePage(
            tuple(Move(f"i{number}", number) for number in range(first + 1, self.given + 1)),
            frontier=self.given,
        )


class Spread(CommandJournal):
    """A journal whose oldest unfinished change stays where it is."""

    def __init__(self, feed: Endless) -> None:
        super().__init__(Recording())
        self._feed = feed

    def spread(self) -> int:
        return self._feed.given


def test_reading_stops_where_it_is_too_far_ahead_of_the_oldest_unfinished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SPREAD_MAX: what is remembered above the checkpoint stays bounded."""
    monkeypatch.setattr(bridge.pipeline.intake, "SPREAD_MAX", 95)
    bench, feed = Bench(), Endless()
    pipeline = bench.pipeline(feed, journal=Spread(feed))
    bench.time.at(60.0, pipeline.stop)
    pipeline.run()
    assert feed.given == 100, "the page that passes the bound is the last"
    assert bench.summary.delivered == 100


def test_what_is_read_ahead_of_a_backlog_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """AHEAD_MAX: each move that is read out of turn is remembered until the backlog is done."""
    monkeypatch.setattr(FollowFeed, "AHEAD_MAX", 25)
    client = GrowingFeed(1000)
    feed = JudgedFeed(client, position=0, page_size=10, overlap=5)
    ahead = 0
    for _ in range(60):
        page = feed.next_page()
        client.last += 10
        ahead += len(page.moves) if page.ahead else 0
    assert 25 <= ahead < 25 + 10


def test_a_command_does_not_end_before_its_last_notes_are_written() -> None:
    """The disk fills up at the very end: what was delivered last is written when there is room."""
    bench = Bench(window=1, work_s=1.0)
    names = ["first", "middle", "last"]
    bench.time.at(2.5, lambda: setattr(bench.ledger, "error", StateError("The disk is full.")))
    bench.time.at(50.0, lambda: setattr(bench.ledger, "error", None))
    summary = bench.run(names)
    assert summary.delivered == 3
    assert bench.ledger.settled == set(names)
    assert bench.time.s >= 50.0


class NeedsTarget(FixedMoves):
    """A feed that grows, whose moves are not handed out while the target is down."""

    def __init__(self, bench: Bench, *, given: int) -> None:
        self.bench = bench
        self.last, self.given = 20, given
        self.asked: list[float] = []

    def next_page(self) -> MovePage:
        if self.given < self.last and SideName.TARGET in self.bench.probe_errors:
            raise TargetError(SideProblem.UNREACHABLE, "It is down.")
        moves = tuple(Move(f"i{n}", n) for n in range(self.given + 1, self.last + 1))
        self.given = self.last
        return MovePage(moves, frontier=self.last, last=self.last, done=True)

    def newest(self) -> int:
        self.asked.append(self.bench.time.s)
        return self.last


@pytest.mark.parametrize("given", [0, 20], ids=["from the start", "after an idle time"])
def test_the_lag_is_told_while_a_page_waits_for_the_target(given: int) -> None:
    bench = Bench(poll_interval_s=1.0)
    bench.bring_down(SideName.TARGET)
    feed = NeedsTarget(bench, given=given)
    bench.time.at(30.0, lambda: setattr(feed, "last", 50))
    seen = []
    bench.time.at(60.0, lambda: seen.append(bench.progress[-1]))
    bench.time.at(60.0, bench.probe_errors.clear)
    pipeline = bench.pipeline(feed)
    bench.time.at(120.0, pipeline.stop)
    pipeline.run()
    (held,) = seen
    assert held.last == 50, "as new as a poll interval"
    assert not held.caught_up, "a page that is not handed out is not settled"
    assert not held.target.up
    assert held.source.up
    assert not [at_s for at_s in bench.pages_at if 33.0 < at_s < 60.0], "no page is asked for"
    assert 10 <= len(feed.asked) <= 60 + 2, "once in a poll interval"
    assert bench.summary.delivered == 50 - given
    assert bench.progress[-1].caught_up
