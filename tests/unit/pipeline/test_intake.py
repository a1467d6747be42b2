"""What is read, how far, and which deletions are believed."""

from __future__ import annotations

import pytest

import bridge.pipeline.intake
from bridge.errors import StateError, TargetError
from bridge.feed.pages import MovePage
from bridge.feed.sources import FixedMoves, GivenMoves
from bridge.model import Move, Reason, SideName, SideProblem, Skipped, Task
from bridge.pipeline.journal import CommandJournal
from tests.pipeline_bench import Bench, Recording

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


class Archive(FixedMoves):
    """A feed with an old archive before what arrives now, as FollowFeed tells it.

    ``pages``: of 400 instances each. ``arrives``: when which instances are given.
    """

    def __init__(self, bench: Bench, *, pages: int) -> None:
        self.bench, self.pages = bench, pages
        self.read = self.told = 0
        self.arrives: list[tuple[float, str]] = []
        self.asked: list[bool] = []

    def next_page(self) -> MovePage:
        first, self.read = self.read, min(self.read + 1, self.pages)
        names = [f"old{n}" for n in range(400 * first, 400 * self.read)]
        at_end = self.read == self.pages
        moves = tuple(Move(name) for name in (*names, *(self._fresh() if at_end else ())))
        return MovePage(moves, done=at_end)

    def newest(self, *, ahead: bool) -> MovePage:
        self.asked.append(ahead)
        fresh = self._fresh() if ahead and self.read < self.pages else []
        return MovePage(tuple(map(Move, fresh)), last=10**6, ahead=True)

    def _fresh(self) -> list[str]:
        given = [name for at_s, name in self.arrives if at_s <= self.bench.time.s]
        told, self.told = self.told, len(given)
        return given[told:]


@pytest.mark.parametrize("pages", [1, 2, 50], ids=["all read", "one left", "a long backlog"])
def test_what_arrives_now_goes_before_a_backlog_within_a_poll_interval(pages: int) -> None:
    """Planted: pages asked for only while the window wants more; nothing read ahead of them; new
    arrivals put at the end, or before those that have arrived before them.
    """
    bench = Bench(window=4, poll_interval_s=1.0, work_s=1.0)
    feed = Archive(bench, pages=pages)
    burst = [(20.5, f"first{number:02}") for number in range(12)]
    feed.arrives = [*burst, (21.5, "second1"), (21.5, "second2"), (60.5, "third")]
    pipeline = bench.pipeline(feed)
    started: dict[str, float] = {}

    def note() -> None:
        for name in bench.started:
            started.setdefault(name, bench.time.s)

    for at_s in range(100):
        bench.time.at(at_s + 0.9, note)
    bench.time.at(100.0, pipeline.stop)
    pipeline.run()
    waited = {name: started[name] - at_s for at_s, name in feed.arrives}
    assert max(waited.values()) < 6.0, "a poll interval, and those that came before it"
    news = [name for name in bench.started if not name.startswith("old")]
    assert news == [name for _, name in feed.arrives], "in the order of their arrival"
    old = [int(name[3:]) for name in bench.started if name.startswith("old")]
    assert old == sorted(old), "the backlog goes on in its order"


def test_a_poke_brings_what_arrived_behind_a_backlog_at_once() -> None:
    """Planted: a poke that hurries pages only; one that is told once for each page only."""
    bench = Bench(window=4, poll_interval_s=30.0, work_s=1.0)
    feed = Archive(bench, pages=50)
    feed.arrives = [(10.0, "first"), (20.0, "second"), (40.0, "third")]
    pipeline = bench.pipeline(feed)
    started: dict[str, float] = {}

    def note() -> None:
        for name in bench.started:
            started.setdefault(name, bench.time.s)

    for at_s, _ in feed.arrives:
        bench.time.at(at_s + 0.1, pipeline.poke)
        bench.time.at(at_s + 1.9, note)
    bench.time.at(60.0, pipeline.stop)
    pipeline.run()
    assert [name for name in started if not name.startswith("old")] == ["first", "second", "third"]
    assert [round(started[name]) for _, name in feed.arrives] == [12, 22, 42]


def test_new_arrivals_are_left_in_the_feed_while_too_many_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """WAITING_MAX: memory stays bounded, whatever arrives while a server is slow."""
    monkeypatch.setattr(bridge.pipeline.intake, "WAITING_MAX", 700)
    bench = Bench(window=4, poll_interval_s=1.0, work_s=1000.0)
    feed = Archive(bench, pages=50)
    feed.arrives = [(float(n), f"new{n}-{k}") for n in range(2, 80) for k in range(10)]
    pipeline = bench.pipeline(feed)
    bench.time.at(90.0, pipeline.stop)
    pipeline.run()
    most = max(progress.waiting for progress in bench.progress)
    assert 700 <= most < 700 + 10
    assert feed.asked[-1] is False, "the newest sequence is told all the same"
    assert feed.asked[0] is True


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

    def newest(self, *, ahead: bool) -> MovePage:  # noqa: ARG002
        self.asked.append(self.bench.time.s)
        return MovePage((), last=self.last)


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
