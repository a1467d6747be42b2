"""The loop's own guards among fakes: each holds back, lets go or counts what another would not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from bridge.errors import SourceError, StateError, TargetError
from bridge.events import (
    GapsClosed,
    PageRead,
    SideDown,
    SideUp,
    StateFailed,
    StateRecovered,
    Workforce,
)
from bridge.feed.gaps import Ask, Closed
from bridge.feed.pages import MovePage
from bridge.feed.sources import GivenMoves
from bridge.ledger.records import Attempts, Entry
from bridge.model import (
    InstanceFailed,
    Move,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Task,
)
from bridge.pipeline.holds import Hold
from bridge.pipeline.journal import Admission, CommandJournal
from bridge.pipeline.loop import STATE_RETRY_S
from bridge.pipeline.runtime import TaskDone
from tests.pipeline_bench import DELIVERED, JOB, Bench, Free, Recording

MANY = [f"i{number:02}" for number in range(20)]
SILENT = SideFailed(SideName.TARGET, SideProblem.UNREACHABLE, "It is silent.", begun=True)
UNLUCKY = InstanceFailed(Reason.OUT_OF_MEMORY, "No memory.")


class Counting(Recording):
    """Counts what it is asked to write."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def commit(self, entry: Entry) -> None:
        self.asked += 1
        super().commit(entry)


def beside(bench: Bench) -> list[tuple[str, set[str]]]:
    """Note of each start what is under way then."""
    seen: list[tuple[str, set[str]]] = []
    submit = bench.submit

    def noting(task: Task) -> None:
        under_way = {running.move.instance_id for running in bench.running.values()}
        seen.append((task.move.instance_id, under_way))
        submit(task)

    bench.submit = noting  # type: ignore[method-assign]
    return seen


# The state


def test_a_state_that_fails_is_written_once_a_second_and_told_once() -> None:
    bench = Bench(work_s=0.1, shutdown_timeout_s=1.0)
    bench.ledger = Counting()
    bench.ledger.error = StateError("The disk is full.")
    bench.time.at(20.0, lambda: setattr(bench.ledger, "error", None))
    # Something ends all the time meanwhile: each is a turn of the loop.
    for turn in range(200):
        bench.time.at(
            turn / 10, lambda: bench.time.put(TaskDone(Task(Move("x"), JOB, -1), UNLUCKY))
        )
    assert bench.run(MANY).delivered == 20
    assert 18 <= bench.ledger.asked - len(bench.ledger.entries) <= 20 / STATE_RETRY_S + 1
    assert len(bench.happened(StateFailed)) == len(bench.happened(StateRecovered)) == 1


def test_the_first_thing_that_a_job_fails_of_is_told() -> None:
    bench = Bench(work_s=8.0, patience_s=5.0, shutdown_timeout_s=60.0)
    bench.script = {"i00": [SILENT]}
    bench.time.at(8.05, lambda: bench.bring_down(SideName.TARGET))
    bench.time.at(12.0, lambda: bench.time.put(TaskDone(Task(Move("x"), JOB, -1), UNLUCKY)))
    bench.holding = {"i01"}
    bench.time.at(15.0, lambda: setattr(bench.ledger, "error", StateError("The disk is full.")))

    def end_the_last() -> None:
        for task in list(bench.running.values()):
            bench.finish(task)

    bench.time.at(16.0, end_the_last)
    with pytest.raises(TargetError):
        bench.run(MANY[:4])


# Suspects


def test_a_suspect_is_sent_when_nothing_is_under_way_and_nothing_is_sent_beside_it() -> None:
    bench = Bench(work_s=5.0)
    bench.script = {"i01": [SILENT, SILENT, DELIVERED]}
    seen = beside(bench)
    assert bench.run(MANY).delivered == 20
    starts = [under_way for name, under_way in seen if name == "i01"]
    assert len(starts) == 3
    assert starts[2] == set()
    last = max(place for place, (name, _) in enumerate(seen) if name == "i01")
    assert 3 < last < len(seen) - 3, "others come before and after it"
    assert all("i01" not in under_way for _, under_way in seen[last:])


def test_an_end_that_is_not_ours_lets_nothing_start_beside_a_suspect() -> None:
    bench = Bench(work_s=5.0)
    bench.script = {"i01": [SILENT, SILENT, DELIVERED]}
    seen = beside(bench)
    noting = bench.submit

    def submit(task: Task) -> None:
        noting(task)
        unknown = TaskDone(Task(Move("x"), JOB, -1), DELIVERED)
        bench.time.at(1.0, lambda: bench.time.put(unknown))

    bench.submit = submit  # type: ignore[method-assign]
    assert bench.run(MANY).delivered == 20
    last = max(place for place, (name, _) in enumerate(seen) if name == "i01")
    assert all("i01" not in under_way for _, under_way in seen[last:])


def test_of_whom_a_server_dies_each_time_is_parked_as_that() -> None:
    bench = Bench(work_s=1.0)
    bench.script = {"i01": [SILENT]}
    finish = bench.finish

    def finishing(task: Task) -> None:
        if task.move.instance_id == "i01":
            bench.bring_down(SideName.TARGET)
            bench.time.at(3.0, bench.probe_errors.clear)
        finish(task)

    bench.finish = finishing  # type: ignore[method-assign]
    summary = bench.run(MANY)
    assert summary.delivered == 19
    assert summary.parked == {Reason.TARGET_DIED: 1}
    assert set(bench.ledger.parked) == {"i01"}


# What holds back


class OneASecond(Free):
    """A throttle that lets one start and then none for a second."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.starts_s: list[float] = []

    def hold(self) -> Hold:
        held = self.starts_s and self._bench.time.s < self.starts_s[-1] + 1.0
        return Hold.RATE_LIMIT if held else Hold.NONE

    def hold_s(self) -> float:
        return 0.25

    def started(self) -> None:
        self.starts_s.append(self._bench.time.s)


def test_the_throttle_is_asked_before_each_start() -> None:
    bench = Bench(work_s=0.1)
    pipeline = bench.pipeline(MANY[:5])
    throttle = OneASecond(bench)
    pipeline._throttle = throttle
    pipeline.run()
    pauses = [b - a for a, b in zip(throttle.starts_s, throttle.starts_s[1:], strict=False)]
    assert len(pauses) == 4
    assert min(pauses) >= 1.0
    assert max(pauses) < 1.3, "it is asked again when it says"


def test_a_second_stop_does_not_move_the_end() -> None:
    bench = Bench(work_s=5.0, shutdown_timeout_s=30.0)
    bench.holding = {"i02"}
    pipeline = bench.pipeline(MANY)
    for at_s in (7.0, 20.0, 36.0):
        bench.time.at(at_s, pipeline.stop)
    pipeline.run()
    assert 37.0 <= bench.time.s < 38.1


def test_the_window_follows_those_who_work() -> None:
    bench = Bench(work_s=1.0, window=0)
    most: list[int] = []

    def workforce(threads: int) -> None:
        most.append(bench.most_running)
        bench.most_running = 0
        bench.workers = Workforce(threads=threads, workers=threads)

    bench.time.at(5.5, lambda: workforce(4))
    bench.time.at(9.5, lambda: workforce(1))
    bench.time.at(13.5, lambda: workforce(1))
    bench.run([f"i{number}" for number in range(100)])
    assert most == [6, 12, 3], "three for each"


# Reading


class Sick(GivenMoves):
    """A source whose feed answers with errors for a minute, and whose probes are well."""

    def __init__(self, bench: Bench) -> None:
        super().__init__([Move(name) for name in MANY[:3]], page_size=100)
        self._bench = bench

    def newest(self, *, ahead: bool) -> MovePage:
        if self._bench.time.s < 60.0:
            raise SourceError(SideProblem.SERVER_ERROR, "The feed answers 500.")
        return super().newest(ahead=ahead)

    def next_page(self) -> MovePage:
        self.newest(ahead=False)
        return super().next_page()


def test_a_feed_that_fails_is_one_outage_though_the_source_answers_probes() -> None:
    bench = Bench()
    assert bench.run(Sick(bench)).delivered == 3
    assert len(bench.happened(SideDown)) == len(bench.happened(SideUp)) == 1
    assert len(bench.pages_at) < 40, "it is asked more and more seldom"


class SickPages(Sick):
    """A source whose pages alone fail, and which tells its newest sequence all the time."""

    def newest(self, *, ahead: bool) -> MovePage:  # noqa: ARG002
        return MovePage((), last=50)

    def next_page(self) -> MovePage:
        super().newest(ahead=False)
        return super().next_page()


class WithGaps(CommandJournal):
    """A journal whose gaps are to be asked for all the time."""

    def ask_due_s(self) -> float | None:
        return 0.0

    def ask(self) -> Ask | None:
        return Ask(0, 1)


@pytest.mark.parametrize("journal", [CommandJournal, WithGaps])
def test_pages_that_fail_are_one_outage_though_other_questions_are_answered(
    journal: type[CommandJournal],
) -> None:
    bench = Bench()
    assert bench.run(SickPages(bench), journal=journal(bench.ledger)).delivered == 3
    assert len(bench.happened(SideDown)) == len(bench.happened(SideUp)) == 1
    assert len(bench.pages_at) < 40, "they are asked for more and more seldom"


def test_patience_ends_with_pages_that_fail_though_the_newest_sequence_is_told() -> None:
    bench = Bench(patience_s=30.0)
    with pytest.raises(SourceError, match="500"):
        bench.run(SickPages(bench))
    assert 30.0 <= bench.time.s < 35.0


class SickEnd(Sick):
    """A source that fails at its newest sequence alone. What is read fills the window."""

    def newest(self, *, ahead: bool) -> MovePage:
        super().newest(ahead=ahead)
        return MovePage((), last=50)

    def next_page(self) -> MovePage:
        return replace(GivenMoves.next_page(self), done=False, ended=False)


def test_an_outage_of_the_newest_sequence_ends_when_it_is_told_again() -> None:
    """Nothing is started and the window is full: no page and no instance can tell it."""
    bench = Bench(window=2)
    bench.workers = Workforce(threads=0, workers=0)
    pipeline = bench.pipeline(SickEnd(bench))
    bench.time.at(200.0, pipeline.stop)
    pipeline.run()
    assert len(bench.pages_at) == 1
    assert len(bench.happened(SideDown)) == len(bench.happened(SideUp)) == 1
    assert bench.progress[-1].source.up


def test_what_was_deleted_in_a_gap_is_counted_and_told() -> None:
    """Both what a page lacks at once and what a gap turns out to lack."""

    class Closing(CommandJournal):
        def admit(self, page: MovePage) -> Admission:
            missing = 30 if page.moves else 0
            return Admission(page.moves, late=2, closed=Closed(expired=35, missing=missing))

    class Lacking(GivenMoves):
        def next_page(self) -> MovePage:
            return replace(super().next_page(), missing=4, refused=1)

    bench = Bench()
    moves = Lacking([Move(name) for name in MANY[:3]], page_size=100)
    bench.run(moves, journal=Closing(bench.ledger))
    assert (bench.summary.missing, bench.summary.late) == (34, 2)
    (read,) = bench.happened(PageRead)
    assert (read.new, read.late, read.missing, read.refused) == (3, 2, 34, 1)
    (closed,) = bench.happened(GapsClosed)
    assert closed.expired == 35


class Remembering(CommandJournal):
    """Knows of attempts that an earlier run has spent, and waits for a gap for some time."""

    def __init__(self, bench: Bench, waits_until_s: float = 0.0) -> None:
        super().__init__(bench.ledger)
        self._bench = bench
        self._until_s = waits_until_s

    def attempts(self) -> Mapping[str, Attempts]:
        return {name: Attempts(2, 7.0) for name in ("a", "b", "c")}

    def waits(self) -> bool:
        return self._bench.time.s < self._until_s


def test_attempts_of_an_earlier_run_count_once_for_each_instance() -> None:
    """What is sent anew after that is another file, and has all its attempts."""
    bench = Bench()
    bench.script = {name: [UNLUCKY] for name in ("a", "b", "c")}
    names = ["a", "b", "c", "other", "a", "b", "c"]
    bench.run(names, journal=Remembering(bench))
    assert [bench.started.count(name) for name in ("a", "b", "c")] == [4, 4, 4]
    parked = [known for entry in bench.ledger.entries for known in entry.parked]
    assert [(known.attempts, known.first_failed_at) for known in parked[:3]] == [(3, 7.0)] * 3
    assert all(known.first_failed_at > 1_000_000 for known in parked[3:])


def test_a_command_does_not_end_while_a_gap_is_waited_for() -> None:
    bench = Bench()
    assert bench.run(MANY, journal=Remembering(bench, 30.0)).delivered == 20
    assert bench.time.s >= 30.0


def test_one_that_is_delayed_wakes_at_its_time_and_not_at_the_next_tick() -> None:
    bench = Bench(work_s=0.1)
    outcomes: list[Outcome] = [UNLUCKY, DELIVERED]
    bench.script = {"i00": outcomes}
    bench.run(MANY[:1])
    assert bench.time.s == pytest.approx(1.2, abs=0.05)
