"""Parked instances are tried again beside the feed, never before what is new."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.errors import StateError
from bridge.events import InstanceParked, ParkedRetried, Settled, SideDown
from bridge.feed.pages import MovePage
from bridge.feed.sources import FixedMoves
from bridge.ledger.records import Entry, Parked, TriedBy
from bridge.ledger.store import Ledger
from bridge.model import (
    Delivered,
    InstanceFailed,
    Move,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
)
from bridge.pipeline.journal import CommandJournal
from bridge.pipeline.loop import Pipeline
from bridge.pipeline.parked_policy import HOUR_S
from bridge.pipeline.parked_retries import LOOK_EVERY_S, NEXT_RETRY_KEY, ParkedRetries
from bridge.pipeline.runtime import Found
from tests.pipeline_bench import DELIVERED, Bench, down

BEGIN = 1_000_000.0
"""When the bench's clock begins."""
LONG_AGO = BEGIN - 900_000.0
OLD, NEW = TriedBy("1.0", "codecs 1"), TriedBy("2.0", "codecs 2")
FILTERED = InstanceFailed(Reason.FILTERED_OUT, "Filtered out.", final=True)
ERROR = SideFailed(
    SideName.TARGET, SideProblem.SERVER_ERROR, "It answered 500.", specific=True
)  # fmt: skip


def parked(name: str, reason: Reason = Reason.FILTERED_OUT) -> Parked:
    known = Parked(Move(name, 7, "at 7"), reason, "It was so.", 3, LONG_AGO, LONG_AGO, "1.2.3")
    return replace(known, tried_at=LONG_AGO, tried_by=OLD)


class Feed(FixedMoves):
    """A feed that tells of instances at their time, and never ends."""

    def __init__(self, bench: Bench, arrivals: dict[float, list[str]] | None = None) -> None:
        self._bench = bench
        self._arrivals = arrivals or {}

    def next_page(self) -> MovePage:
        now_s = self._bench.time.s
        due = [at for at in self._arrivals if at <= now_s]
        names = [name for at in due for name in self._arrivals.pop(at)]
        return MovePage(tuple(Move(name) for name in names), done=True)


class Scene(Bench):
    """A pipeline that follows a feed, over a real ledger."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.file = ledger
        self.tried_by = NEW
        self.slow: set[str] = set()
        """Calls that are answered after seconds."""

    def call(self, name: str, function: Callable[[], Found]) -> None:
        if name in self.slow:
            self.time.at(5.0, lambda: super(Scene, self).call(name, function))
        else:
            super().call(name, function)

    def follow(
        self, seconds: float, arrivals: dict[float, list[str]] | None = None, *, per_hour: int = 60
    ) -> None:
        self.retries = self.make_retries(per_hour)
        pipeline = self.make(arrivals)
        self.time.at(seconds, pipeline.stop)
        pipeline.run()

    def make(self, arrivals: dict[float, list[str]] | None = None) -> Pipeline:
        return self.pipeline(Feed(self, arrivals), journal=CommandJournal(self.file))

    def make_retries(self, per_hour: int = 60, *, once: bool = False) -> ParkedRetries:
        return ParkedRetries(
            self.file, tried_by=self.tried_by, per_hour=per_hour, clock=self.time, once=once
        )

    def park(self, *given: Parked) -> None:
        self.file.commit(Entry(parked=given))

    @property
    def results(self) -> list[tuple[str, str]]:
        return [(e.move.instance_id, e.result) for e in self.happened(ParkedRetried)]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        yield Scene(ledger)


def test_what_can_be_delivered_now_is(scene: Scene) -> None:
    scene.park(parked("a"), parked("b", Reason.UNDECODABLE), parked("c", Reason.INTERNAL))
    scene.park(parked("never", Reason.VIDEO))
    scene.follow(300.0)
    assert sorted(scene.results) == [("a", "delivered"), ("b", "delivered"), ("c", "delivered")]
    assert [p.move.instance_id for p in scene.file.parked()] == ["never"]
    assert {e.reason for e in scene.happened(ParkedRetried)} == {
        Reason.FILTERED_OUT,
        Reason.UNDECODABLE,
        Reason.INTERNAL,
    }


def test_one_that_fails_again_keeps_its_times_and_adds_its_attempt_up(scene: Scene) -> None:
    scene.park(parked("a"))
    scene.script["a"] = [InstanceFailed(Reason.REJECTED_BY_TARGET, "Rejected.", source_syntax="9")]
    scene.follow(120.0)
    (known,) = scene.file.parked()
    assert scene.started == ["a"], "one attempt, whatever BRIDGE_ATTEMPTS says"
    assert known.reason is Reason.REJECTED_BY_TARGET
    assert (known.first_failed_at, known.parked_at) == (LONG_AGO, LONG_AGO)
    assert (known.attempts, known.retries) == (4, 1)
    assert known.move == Move("a", 7, "at 7")
    assert (known.source_syntax, known.message) == ("9", "Rejected.")
    assert BEGIN <= known.tried_at <= BEGIN + 1
    assert known.tried_by == NEW
    (told,) = scene.happened(InstanceParked)
    assert (told.attempts, told.retries) == (4, 1)
    assert scene.results == [("a", "parked")]


def test_the_intervals_grow(scene: Scene) -> None:
    scene.park(parked("a"))
    scene.script["a"] = [FILTERED]
    tried_after_h = []
    for hour in range(200):
        begun = len(scene.started)
        scene.time.s = hour * (HOUR_S + 1.0)
        scene.follow(5.0)
        tried_after_h += [hour] * (len(scene.started) - begun)
    assert tried_after_h == [0, 4, 16, 40, 112]


def test_what_fails_by_these_codecs_is_not_tried_with_them_again(scene: Scene) -> None:
    scene.park(parked("a", Reason.UNDECODABLE))
    scene.script["a"] = [InstanceFailed(Reason.UNDECODABLE, "No.", final=True)]
    for _ in range(3):
        scene.follow(200.0)
        scene.time.s += 5 * HOUR_S
    assert scene.started == ["a"]


def test_new_arrivals_go_before(scene: Scene) -> None:
    """A backlog of 30 in a window of 4: no parked one is started before the last of them."""
    scene.park(*(parked(name) for name in "abc"))
    news = [f"n{number}" for number in range(30)]
    scene.follow(600.0, {0.0: news})
    assert scene.started[:30] == news
    assert sorted(scene.started[30:]) == ["a", "b", "c"]


def test_only_an_idle_worker_is_used(scene: Scene) -> None:
    """Two workers; both are busy with new instances until 50 s."""
    scene.park(parked("a"))
    scene.holding = {"x", "y"}
    before: list[str] = []
    scene.time.at(49.0, lambda: before.extend(scene.started))
    scene.time.at(50.0, lambda: scene.finish(next(iter(scene.running.values()))))
    scene.follow(100.0, {0.0: ["x", "y"]})
    assert before == ["x", "y"]
    assert scene.started == ["x", "y", "a"]
    assert scene.results


def test_nothing_that_waits_is_overtaken(scene: Scene) -> None:
    """A second change of an instance waits for the end of the first; a worker is idle meanwhile."""
    scene.park(parked("a"))
    scene.holding = {"x"}
    before: list[str] = []
    scene.time.at(49.0, lambda: before.extend(scene.started))

    def end_both() -> None:
        scene.holding = set()
        scene.finish(next(iter(scene.running.values())))

    scene.time.at(50.0, end_both)
    scene.follow(100.0, {0.0: ["x", "x"]})
    assert before == ["x"]
    assert scene.started == ["x", "x", "a"]


def test_one_after_the_other_and_so_many_an_hour(scene: Scene) -> None:
    scene.park(*(parked(f"p{number:02}") for number in range(50)))
    scene.follow(HOUR_S, per_hour=12)
    assert 11 <= len(scene.started) <= 13
    assert scene.most_running == 1


def test_one_that_takes_long_is_not_overtaken_by_another(scene: Scene) -> None:
    scene.park(parked("a"), parked("b"))
    scene.holding = {"a", "b"}
    scene.follow(HOUR_S, per_hour=3600)
    assert scene.most_running == 1


def test_a_restart_neither_hurries_nor_repeats(scene: Scene) -> None:
    """What was begun and has not ended counts: a process that dies of it does not try it again."""
    scene.park(parked("a"), parked("b"))
    scene.holding = {"a", "b"}
    for _ in range(5):  # each time it is killed after a second
        retries = scene.make_retries(per_hour=60)
        retries.take()
        scene.time.s += 1.0
    (begun,) = [p for p in scene.file.parked() if p.retries]
    assert begun.retries == 1
    scene.time.s += 60.0
    again = scene.make_retries(per_hour=60).take()
    assert again is not None
    assert again.move.instance_id != begun.move.instance_id


@pytest.mark.parametrize("side", SideName)
def test_a_server_that_refuses_it_again_is_not_blamed(scene: Scene, side: SideName) -> None:
    """In a quiet night an error that only this instance gets must wake nobody."""
    scene.park(parked("a", Reason.SERVER_REFUSES_INSTANCE))
    scene.script["a"] = [replace(ERROR, side=side)]
    asked: list[object] = []
    scene.ask_for_another = asked.append  # type: ignore[assignment]
    scene.follow(600.0)
    assert scene.happened(SideDown) == []
    assert asked == []
    later = scene.progress[10:]  # at first no server is known to be up
    assert all(progress.source.up and progress.target.up for progress in later)
    (known,) = scene.file.parked()
    assert (known.reason, known.retries) == (Reason.SERVER_REFUSES_INSTANCE, 1)
    assert "500" in known.message


@pytest.mark.parametrize(
    "outcome",
    [
        SideFailed(SideName.TARGET, SideProblem.BODY_LIMIT, "It is too large."),
        SideFailed(SideName.TARGET, SideProblem.STORAGE_FULL, "It is full."),
        SideFailed(SideName.SOURCE, SideProblem.FORBIDDEN, "Not allowed."),
    ],
)
def test_what_waits_for_a_setting_waits_as_parked(scene: Scene, outcome: Outcome) -> None:
    scene.park(parked("a"))
    scene.script["a"] = [outcome]
    scene.follow(600.0, {5.0: ["new"]})
    assert scene.started == ["a", "new"]
    assert scene.progress[-1].refused_count == 0
    assert scene.results == [("a", "parked")]


@pytest.mark.slow
def test_codecs_that_were_not_reached_have_not_been_tried(scene: Scene) -> None:
    """An error of a server says nothing of the codecs: it is tried with them after an hour."""
    scene.park(parked("a", Reason.UNDECODABLE))
    scene.script["a"] = [ERROR, DELIVERED]
    scene.follow(600.0)
    assert scene.results == [("a", "parked")]
    (known,) = scene.file.parked()
    assert known.tried_by == OLD
    scene.follow(2 * HOUR_S)
    assert scene.results == [("a", "parked"), ("a", "delivered")]


def test_a_silent_server_is_down_for_everybody(scene: Scene) -> None:
    scene.park(parked("a"), parked("b"))
    scene.script["a"] = [down()]
    scene.time.at(0.05, lambda: scene.bring_down(SideName.TARGET))
    scene.follow(600.0)
    assert scene.started == ["a"], "nothing is tried while a server is down"
    assert len(scene.happened(SideDown)) == 1


def test_what_kills_the_target_is_tried_with_nothing_beside_it(scene: Scene) -> None:
    scene.park(parked("killer", Reason.TARGET_DIED))
    scene.script["killer"] = [replace(down(), begun=True)]
    scene.time.at(70.0, lambda: scene.bring_down(SideName.TARGET))
    scene.time.at(75.0, scene.probe_errors.clear)
    scene.work_s = 72.0
    scene.follow(400.0, {5.0: ["n1", "n2"]})
    assert scene.started[0] == "killer"
    assert scene.most_running <= 2
    assert scene.results == [("killer", "parked")]
    (known,) = scene.file.parked()
    assert (known.reason, known.retries) == (Reason.TARGET_DIED, 1)
    assert {e.move.instance_id for e in scene.happened(Settled)} == {"n1", "n2"}


def test_what_was_dropped_meanwhile_stays_dropped(scene: Scene) -> None:
    scene.park(parked("a"))
    scene.script["a"] = [FILTERED]
    scene.work_s = 5.0
    scene.time.at(2.0, lambda: scene.file.commit(Entry(dropped=("a",), dropped_at=BEGIN)))
    scene.follow(120.0)
    assert scene.started == ["a"]
    assert list(scene.file.parked()) == []
    assert [p.move.instance_id for p in scene.file.parked(dropped=True)] == ["a"]


def test_what_was_parked_anew_meanwhile_is_not_overwritten(scene: Scene) -> None:
    """Its new file, told by the feed, was tried after the retry had begun."""
    scene.park(parked("a"))
    anew = replace(parked("a", Reason.VIDEO), message="Newer.", parked_at=BEGIN)
    scene.script["a"] = [FILTERED]
    scene.work_s = 5.0
    scene.time.at(2.0, lambda: scene.park(anew))
    scene.follow(120.0)
    (known,) = scene.file.parked()
    assert (known.reason, known.message, known.retries) == (Reason.VIDEO, "Newer.", 0)


def test_what_the_source_has_deleted_is_not_parked_any_more(scene: Scene) -> None:
    scene.park(parked("a"))
    scene.script["a"] = [Skipped(Reason.GONE)]
    scene.follow(120.0)
    assert scene.results == [("a", "skipped")]
    assert list(scene.file.parked()) == []


def test_a_job_that_ends_tries_what_was_saved_up_and_ends(scene: Scene) -> None:
    scene.park(*(parked(f"p{number:02}") for number in range(20)))
    scene.script["p03"] = [FILTERED]
    scene.file.set_meta(NEXT_RETRY_KEY, str(BEGIN - 10 * 60.0))
    scene.retries = scene.make_retries(per_hour=60, once=True)
    scene.run(["n1", "n2"])
    assert scene.started[:2] == ["n1", "n2"]
    assert len(scene.started) == 2 + 11, "one a minute since ten minutes ago"
    assert scene.time.s < LOOK_EVERY_S


def test_a_job_that_ends_waits_until_both_servers_were_asked_first(scene: Scene) -> None:
    """With nothing new its feed ends before the target has answered its first probe."""
    scene.slow = {SideName.TARGET}
    scene.park(parked("a"))
    scene.retries = scene.make_retries(once=True)
    scene.run([])
    assert scene.started == ["a"]


def test_a_job_that_ends_waits_for_no_server_to_try_what_is_parked(scene: Scene) -> None:
    scene.park(parked("a"))
    scene.script["a"] = [down()]
    scene.script["n1"] = [DELIVERED]
    scene.time.at(0.15, lambda: scene.bring_down(SideName.TARGET))
    scene.park(parked("b"))
    scene.retries = scene.make_retries(once=True)
    scene.run(["n1"])
    assert scene.started == ["n1", "a"]


def test_a_time_that_nobody_wrote_holds_nothing_for_long(scene: Scene) -> None:
    scene.park(parked("a"))
    for text in ("no time", str(BEGIN * 1000)):
        scene.file.set_meta(NEXT_RETRY_KEY, text)
        scene.follow(200.0)
    assert scene.results == [("a", "delivered")]


def test_a_ledger_that_cannot_be_written_starts_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> bool:
        raise StateError("The disk is full.")

    scene.park(parked("a"))
    monkeypatch.setattr(scene.file, "begin_retry", full)
    scene.follow(600.0)
    assert scene.started == []
    monkeypatch.undo()
    scene.follow(600.0)
    assert scene.started == ["a"]


def test_a_delivery_is_a_delivery(scene: Scene) -> None:
    scene.park(parked("a"))
    scene.follow(60.0)
    (settled,) = scene.happened(Settled)
    assert isinstance(settled.outcome, Delivered)
    assert settled.move.sequence is None
