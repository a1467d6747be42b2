"""One instance must not stop the feed: what each answer costs, and whose fault it turns out to be.

The table is in docs/faults.md; its numbers are counted here.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

import tests.pipeline_bench
from bridge.errors import InstancesRefused, SourceError, TargetError, side_error
from bridge.events import InstanceParked, InstanceRetried, SideDown, SideUp
from bridge.feed.pages import MovePage
from bridge.feed.sources import FixedMoves
from bridge.model import (
    InstanceFailed,
    Move,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    Task,
)
from bridge.monitoring.health import HealthLimits, judge
from bridge.pipeline.ask_for_other_instances import FailedFile, ask_for_another
from bridge.pipeline.failure_policy import SOLE_MAX, Limits, Others
from bridge.pipeline.runtime import Answered, Found
from tests.pipeline_bench import DELIVERED, Bench, down

HOUR_S = 3600.0
ERROR = down(problem=SideProblem.SERVER_ERROR, specific=True)
LIMIT = down(problem=SideProblem.STORAGE_FULL)
SETTING = down(problem=SideProblem.FORBIDDEN)
NOT_OURS = down(problem=SideProblem.NOT_ORTHANC, specific=True)
SILENCE = down(problem=SideProblem.TIMED_OUT)
ANSWERED = {"error": ERROR, "limit": LIMIT, "setting": SETTING, "not ours": NOT_OURS}
ALL = ANSWERED | {"silence": SILENCE, "silence at work": replace(SILENCE, begun=True)}


class Feed(FixedMoves):
    """So many at once, then one more every so often, for ever."""

    def __init__(
        self, bench: Bench, first: int, every_s: float = 0.0, page_size: int = 100
    ) -> None:
        self._bench, self._first, self._every_s = bench, first, every_s
        self._page_size = page_size
        self._given = 0

    def next_page(self) -> MovePage:
        more = int(self._bench.time.s / self._every_s) if self._every_s else 0
        end = min(self._first + more, self._given + self._page_size)
        moves = tuple(Move(f"i{number}", None) for number in range(self._given, end))
        self._given = end
        return MovePage(moves, done=end == self._first + more)


class Tries:
    """Runs a pipeline for an hour, and notes when what was tried."""

    def __init__(
        self, poll_interval_s: float, failing: Callable[[str], Outcome | None], **pace: Limits
    ) -> None:
        self.bench = Bench(work_s=0.1, poll_interval_s=poll_interval_s, **dict[str, Any](pace))
        self.at: list[tuple[float, str]] = []
        bench, submit = self.bench, self.bench.submit

        class Script(dict[str, list[Outcome]]):
            def get(self, name: str, default: object = None) -> list[Outcome]:
                outcome = failing(name)
                assert default is not None
                return [DELIVERED if outcome is None else outcome]

        bench.script = Script()

        def noting(task: Task) -> None:
            self.at.append((bench.time.s, task.move.instance_id))
            submit(task)

        bench.submit = noting  # type: ignore[method-assign]

    def run(self, first: int, every_s: float = 0.0, page_size: int = 100) -> None:
        pipeline = self.bench.pipeline(Feed(self.bench, first, every_s, page_size))
        self.bench.time.at(HOUR_S, pipeline.stop)
        pipeline.run()

    def of(self, name: str) -> list[float]:
        return [at_s for at_s, tried in self.at if tried == name]

    def first_minute(self, at_s: list[float] | None = None) -> int:
        times = [moment for moment, _ in self.at] if at_s is None else at_s
        return sum(moment < 60.0 for moment in times)


@pytest.fixture(autouse=True)
def _an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tests.pipeline_bench, "STEPS_MAX", 10**6)


@pytest.mark.slow
@pytest.mark.parametrize("poll_interval_s", [3.0, 600.0])
@pytest.mark.parametrize("failure", ALL.values(), ids=ALL)
def test_the_only_instance_costs_twelve_attempts_in_a_minute_and_one_a_minute_later(
    failure: SideFailed, poll_interval_s: float
) -> None:
    tries = Tries(poll_interval_s, lambda _: failure)
    tries.run(1)
    assert 4 <= tries.first_minute() <= 12
    assert 40 <= len(tries.at) <= 72
    assert not tries.bench.ledger.parked
    assert not tries.bench.happened(InstanceRetried)
    (told,) = tries.bench.happened(SideDown)
    assert told.failure == failure
    last = tries.bench.progress[-2]
    assert not last.target.up
    assert [refused.instance_id for refused in last.refused] == ["i0"]
    codes = {finding.code: finding for finding in judge(last, {}, HealthLimits(), now=0.0)}
    said = codes[f"target_{failure.problem}"].message
    assert said.startswith(failure.message)
    assert f"It failed {last.target.times} times at instance i0." in said
    assert "instances_refused" not in codes, "nobody can tell yet"


@pytest.mark.slow
@pytest.mark.parametrize("poll_interval_s", [3.0, 600.0])
@pytest.mark.parametrize("failure", ALL.values(), ids=ALL)
def test_a_whole_backlog_that_fails_is_tried_less_and_less(
    failure: SideFailed, poll_interval_s: float
) -> None:
    tries = Tries(poll_interval_s, lambda _: failure)
    tries.run(500)
    assert tries.first_minute() <= 60
    assert len(tries.at) <= 150
    assert max(tries.first_minute(tries.of(f"i{number}")) for number in range(500)) <= 12
    assert not tries.bench.ledger.parked


@pytest.mark.parametrize("failure", ANSWERED.values(), ids=ANSWERED)
def test_what_is_new_is_tried_at_once_though_all_that_is_there_fails(failure: SideFailed) -> None:
    tries = Tries(3.0, lambda _: failure)
    tries.run(20, every_s=30.0)
    arrived_s = {f"i{20 + number}": 30.0 * (number + 1) for number in range(1, 100)}
    waited = [tries.of(name)[0] - at_s for name, at_s in arrived_s.items()]
    assert max(waited) < 5.0
    assert len(tries.at) <= 150 + 120
    assert not tries.bench.ledger.parked


@pytest.mark.slow
@pytest.mark.parametrize("failure", ANSWERED.values(), ids=ANSWERED)
@pytest.mark.parametrize("every_s", [0.01, 1.0, 4.0])
def test_a_storm_of_new_ones_is_tried_one_at_a_time(failure: SideFailed, every_s: float) -> None:
    """Whatever arrives, at a server that fails at everything. At 4 s the loop keeps up with it."""
    tries = Tries(3.0, lambda _: failure)
    tries.run(4, every_s=every_s)
    assert 20 <= tries.first_minute() <= 60
    assert len(tries.at) <= 1350
    times = [at_s for at_s, _ in tries.at if at_s > 10.0]
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) > 1.0
    tried = Counter(name for _, name in tries.at)
    assert max(tried.values()) <= 72
    if every_s == 4.0:
        arrived_s = {f"i{4 + number}": every_s * (number + 1) for number in range(1, 880)}
        assert max(tries.of(name)[0] - at_s for name, at_s in arrived_s.items()) < 8.0
    assert not tries.bench.ledger.parked


@pytest.mark.parametrize("failure", ANSWERED.values(), ids=ANSWERED)
def test_what_a_storm_leaves_untried_is_tried_as_soon_as_one_is_served(
    failure: SideFailed,
) -> None:
    """Of what arrives, three fail, say a study that the target does not like; others do not."""
    tries = Tries(3.0, lambda name: failure if name in ("i0", "i1", "i2", "i3") else None)
    tries.run(1, every_s=20.0)
    first_s = tries.of("i4")[0]
    assert first_s < 20.0 * 4 + 5.0
    assert tries.bench.summary.delivered > 170


@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERED)
@pytest.mark.parametrize("every_s", [0.5, 2.0, 20.0])
@pytest.mark.parametrize("others", [0, 1, 3])
def test_what_is_sent_again_and_again_has_the_pauses_of_one(
    name: str, every_s: float, others: int
) -> None:
    """One instance arrives all the time, the same each time, alone or with others between."""
    tries = Tries(3.0, lambda tried: ANSWERED[name] if tried == "i0" else None)
    feed = Feed(tries.bench, 4 if others else 1, every_s=every_s)
    next_page = feed.next_page

    def same() -> MovePage:
        page = next_page()
        sent = (move.instance_id for move in page.moves)
        again = [Move("i0" if int(one[1:]) % (others + 1) == 0 else one) for one in sent]
        return replace(page, moves=tuple(again))

    feed.next_page = same  # type: ignore[method-assign]
    pipeline = tries.bench.pipeline(feed)
    tries.bench.time.at(HOUR_S, pipeline.stop)
    pipeline.run()
    at_s = tries.of("i0")
    assert 4 <= max(sum(moment - 60 < one <= moment for one in at_s) for moment in at_s) <= 12
    assert len(at_s) <= 72
    parks = others and name in ("error", "not ours")
    assert bool(tries.bench.ledger.parked) is bool(parks)
    assert tries.bench.summary.delivered >= (0.8 * others / (others + 1) * HOUR_S / every_s)
    last = tries.bench.progress[-2]
    if parks:
        assert last.waiting + last.delayed < 600 / every_s, "they end with the one that is tried"
    else:
        assert [refused.instance_id for refused in last.refused] == ["i0"]


def test_a_backlog_that_goes_on_is_not_new() -> None:
    """Pages are read while the server fails; none of them was at the end of the feed before."""
    tries = Tries(3.0, lambda _: ERROR)
    tries.run(100_000, page_size=3)
    assert tries.first_minute() <= 60
    assert len(tries.at) <= 150


@pytest.mark.parametrize("name", ["limit", "setting"])
def test_what_waits_alone_for_an_hour_costs_no_more_and_is_named(name: str) -> None:
    tries = Tries(3.0, lambda tried: ANSWERED[name] if tried == "i0" else None)
    tries.run(1, every_s=10.0)
    assert tries.first_minute(tries.of("i0")) <= 12
    assert 30 <= len(tries.of("i0")) <= 72
    assert tries.bench.summary.delivered > 350
    assert not tries.bench.ledger.parked
    after_a_minute = next(p for p in tries.bench.progress if p.last_progress_at > 1_000_060)
    found = {f.code: f for f in judge(after_a_minute, {}, HealthLimits(), now=0.0)}
    assert (
        "refused by a server that serves others: i0. It is down."
        in found["instances_refused"].message
    )


@pytest.mark.parametrize("name", ["error", "not ours"])
def test_what_fails_alone_is_parked_soon_after_others_were_served(name: str) -> None:
    tries = Tries(3.0, lambda tried: ANSWERED[name] if tried == "i0" else None)
    tries.run(1, every_s=10.0)
    (parked,) = tries.bench.happened(InstanceParked)
    assert (parked.move.instance_id, parked.reason) == ("i0", Reason.SERVER_REFUSES_INSTANCE)
    assert parked.attempts == 3
    assert tries.of("i0")[-1] < 60.0
    assert len(tries.of("i0")) <= 12
    assert tries.bench.progress[-1].refused == ()


def test_what_was_held_goes_on_as_soon_as_one_is_served() -> None:
    """An hour of errors 500 for all; the first that is served ends all pauses."""
    ill = True
    tries = Tries(3.0, lambda _: ERROR if ill else None)
    tries.bench.pace = replace(tries.bench.pace, limits=Limits(attempts_max=1))
    served_s: list[float] = []

    def heal() -> None:
        nonlocal ill
        ill = False

    tries.bench.time.at(1800.0, heal)
    pipeline = tries.bench.pipeline(Feed(tries.bench, 30))
    tries.bench.time.at(HOUR_S, pipeline.stop)
    pipeline.run()
    served_s = [at_s for at_s, _ in tries.at if at_s > 1800.0]
    assert tries.bench.summary.delivered == 30
    assert not tries.bench.ledger.parked
    assert served_s[0] < 1861.0
    assert served_s[-1] - served_s[0] < 3.0
    assert len(tries.bench.happened(SideUp)) == 1


def test_an_instance_that_nobody_reaches_does_not_stand_in_front_of_others() -> None:
    tries = Tries(3.0, lambda tried: SILENCE if tried == "i0" else None)
    tries.run(1, every_s=10.0)
    assert tries.bench.summary.delivered > 300
    assert not tries.bench.ledger.parked


# The source is asked for another instance's file


class Asked:
    """What the source says when it is asked for another's file."""

    def __init__(self, *answers: Others | SourceError) -> None:
        self._answers = list(answers)
        self.asked: list[FailedFile] = []

    def __call__(self, failed: FailedFile) -> Others:
        self.asked.append(failed)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, SourceError):
            raise answer
        return answer


def at_the_source(failure: SideFailed) -> SideFailed:
    return replace(failure, side=SideName.SOURCE)


def asking(bench: Bench, asked: Asked) -> Bench:
    bench.ask_for_another = asked
    return bench


DELETED_OR_NOT = [Skipped(Reason.GONE), Skipped(Reason.RULE, "by its metadata")]


@pytest.mark.parametrize("skipped", DELETED_OR_NOT, ids=["deleted", "skipped"])
def test_a_disk_that_is_away_parks_nothing_though_others_need_no_file(skipped: Skipped) -> None:
    """The database answers: every other instance is deleted, or skipped by its metadata."""
    away_s = 600.0
    bench = asking(Bench(), Asked(Others.NONE))

    class Script(dict[str, list[Outcome]]):
        def get(self, name: str, default: object = None) -> list[Outcome]:
            assert default is not None
            if int(name[1:]) % 2:
                return [skipped]
            return [at_the_source(ERROR) if bench.time.s < away_s else DELIVERED]

    bench.script = Script()
    pipeline = bench.pipeline(Feed(bench, 1, every_s=5.0))
    bench.time.at(1000.0, pipeline.stop)
    pipeline.run()
    assert not bench.ledger.parked
    assert bench.summary.delivered >= 100 - 1
    assert bench.summary.skipped[skipped.reason] >= 100 - 1
    assert bench.started[: bench.started.index("i60")].count("i0") <= 12 + 5, "one a minute"


@pytest.mark.parametrize("name", ["error", "not ours"])
def test_in_a_quiet_feed_another_file_tells_that_one_is_damaged(name: str) -> None:
    """One empty file at the end of the feed, and nothing else comes: it was asked for for ever."""
    asked = Asked(Others.WELL)
    bench = asking(Bench(patience_s=60.0), asked)
    bench.script = {"bad": [at_the_source(ANSWERED[name])]}
    summary = bench.run(["good", "bad"])
    assert summary.parked == {"server_refuses_instance": 1}
    assert bench.started.count("bad") == 3
    assert len(asked.asked) <= 3
    assert {failed.instance_id for failed in asked.asked} == {"bad"}
    assert bench.happened(SideDown) == [], "the source is well"
    assert bench.time.s < 10.0


def test_three_damaged_files_at_once_cost_one_question_each_time() -> None:
    asked = Asked(Others.WELL)
    bench = asking(Bench(window=4), asked)
    bad = ["b1", "b2", "b3"]
    bench.script = {name: [at_the_source(ERROR)] for name in bad}
    summary = bench.run(bad)
    assert summary.parked == {"server_refuses_instance": 3}
    assert bench.ledger.parked.keys() == set(bad)
    assert len(asked.asked) <= 9


@pytest.mark.parametrize(
    ("name", "others", "parked"),
    [
        ("not ours", Others.ABSENT, True),
        ("error", Others.ABSENT, False),
        ("not ours", Others.SOLE, True),
        ("error", Others.SOLE, True),
        ("not ours", Others.NONE, False),
        ("error", Others.NONE, False),
    ],
)
def test_a_source_that_has_nothing_to_compare_with(name: str, others: Others, parked: bool) -> None:
    bench = asking(Bench(patience_s=60.0), Asked(others))
    bench.script = {"bad": [at_the_source(ANSWERED[name])]}
    if parked:
        assert bench.run(["bad"]).parked == {"server_refuses_instance": 1}
        return
    with pytest.raises(SourceError):
        bench.run(["bad"])
    assert not bench.ledger.parked
    assert bench.started.count("bad") <= 12


def test_a_source_whose_files_get_lost_one_by_one_and_then_a_disk_that_is_away() -> None:
    """Each arrives alone. Three are parked; with the fourth everything waits."""
    held: list[str] = []

    class Lists:
        def list_instances(self, _since: int, _limit: int) -> list[str]:
            return list(held)

        def serves_whole_file(self, _instance_id: str, *, with_metadata: bool) -> bool:
            assert not with_metadata
            return False

    bench = Bench(patience_s=60.0)
    bench.ask_for_another = partial(ask_for_another, Lists(), chance=lambda: 0.5)
    for number in range(SOLE_MAX):
        held.append(f"lost{number}")
        bench.script[held[-1]] = [at_the_source(ERROR)]
        bench.run([held[-1]])
        bench.lost = list(bench.ledger.parked)
        assert len(bench.lost) == number + 1
    held.append("more")
    bench.script["more"] = [at_the_source(ERROR)]
    with pytest.raises(SourceError):
        bench.run(["more"])
    assert "more" not in bench.ledger.parked


@pytest.mark.parametrize("name", ["limit", "setting"])
@pytest.mark.parametrize("then", [[], [Others.NONE]], ids=["well", "and then not"])
def test_a_limit_at_the_source_parks_nothing_and_the_command_says_which(
    name: str, then: list[Others]
) -> None:
    """Found by the simulation: with a source that serves all others it never ended."""
    bench = asking(Bench(patience_s=60.0), Asked(Others.WELL, *then))
    bench.script = {"bad": [at_the_source(ANSWERED[name])]}
    with pytest.raises(InstancesRefused, match="bad") as caught:
        bench.run(["good", "bad"])
    assert caught.value.exit_code == 3
    assert not bench.ledger.parked


LOST = replace(LIMIT, problem=SideProblem.SERVER_ERROR, begun=True)
"""As a proxy's 502."""


@pytest.mark.slow
@pytest.mark.parametrize("failure", [LOST, replace(SILENCE, begun=True)], ids=["502", "broken"])
@pytest.mark.parametrize("others_every_s", [0.0, 0.3, 2.0, 20.0, 100.0])
def test_a_server_that_dies_of_one_and_is_back_before_any_probe(
    failure: SideFailed, others_every_s: float
) -> None:
    """Four deaths with two attempts, whatever else is served meanwhile, through a proxy or not."""
    dies = replace(failure, gone=True)
    tries = Tries(3.0, lambda name: dies if name == "i3" else None, limits=Limits(2))
    tries.run(8, every_s=others_every_s)
    assert len(tries.of("i3")) == 2 + 2
    assert {known.reason for known in tries.bench.ledger.parked.values()} == {Reason.TARGET_DIED}


@pytest.mark.parametrize("others_every_s", [0.0, 2.0, 20.0])
def test_a_proxy_that_waits_too_short_for_one_instance_parks_nothing(others_every_s: float) -> None:
    """Its 504: the server is there, and serves others."""
    tries = Tries(3.0, lambda name: LOST if name == "i3" else None)
    tries.run(8, every_s=others_every_s)
    assert 20 <= len(tries.of("i3")) <= 72
    assert not tries.bench.ledger.parked


def test_nothing_is_started_while_the_source_is_asked() -> None:
    bench = asking(Bench(window=1), Asked(Others.WELL))
    bench.script = {"bad": [at_the_source(ERROR)]}
    asked_at: list[float] = []
    call = bench.call

    def slow(name: str, function: Callable[[], Found]) -> None:
        if name != "others":
            call(name, function)
            return
        asked_at.append(bench.time.s)
        bench.time.at(20.0, lambda: call(name, function))

    bench.call = slow  # type: ignore[method-assign]
    begun: list[float] = []
    submit = bench.submit

    def noting(task: Task) -> None:
        begun.append(bench.time.s)
        submit(task)

    bench.submit = noting  # type: ignore[method-assign]
    bench.run(["bad", *[f"good{number}" for number in range(5)]])
    assert not any(asked_at[0] <= at_s < asked_at[0] + 20.0 for at_s in begun)
    assert bench.summary.delivered == 5


def test_an_outage_found_while_asking_is_an_outage() -> None:
    gone = side_error(SideName.SOURCE, SideProblem.UNREACHABLE, "It is gone.")
    assert isinstance(gone, SourceError)
    bench = asking(Bench(limits=Limits(attempts_max=1)), Asked(gone, gone, Others.NONE))
    bad: list[Outcome] = [at_the_source(ERROR)]
    bench.script = {"i1": bad, "i2": bad}
    bench.time.at(100.0, bench.script.clear)
    assert bench.run(["i1", "i2", "i3"]).delivered == 3
    assert not bench.ledger.parked
    assert [up.side for up in bench.happened(SideUp)] == [SideName.SOURCE]


def test_a_bug_while_asking_ends_the_bridge() -> None:
    bench = asking(Bench(), Asked(Others.WELL))
    bench.script = {"bad": [at_the_source(ERROR)]}
    call = bench.call

    def breaking(name: str, function: Callable[[], Found]) -> None:
        if name == "others":
            bench.time.put(Answered(name, error=ZeroDivisionError()))
        else:
            call(name, function)

    bench.call = breaking  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        bench.run(["bad"])


@pytest.mark.parametrize("failure", [ERROR, LIMIT], ids=["error", "limit"])
def test_a_short_poll_interval_makes_nothing_dearer(
    failure: SideFailed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One instance of 9 MB was uploaded 99 times in 80 s."""
    monkeypatch.setattr("tests.unit.pipeline.test_pipeline_faults.HOUR_S", 61.0)
    for count, at_most in ((1, 12), (100, 60)):
        tries = Tries(0.05, lambda _: failure)
        tries.run(count)
        assert tries.first_minute() <= at_most


def test_a_source_that_breaks_off_at_one_file_when_it_is_alone_is_asked_too() -> None:
    """Orthanc 1.10.1 sends nothing of a file of 2.3 GB: no answer, and it does not die."""
    cut = at_the_source(replace(down(problem=SideProblem.UNREACHABLE), begun=True))
    bench = asking(Bench(patience_s=120.0), Asked(Others.WELL))
    bench.script = {"large": [cut]}
    summary = bench.run(["large"])
    assert summary.parked == {"server_refuses_instance": 1}
    assert bench.started.count("large") == 2 + 3, "two outages, then three attempts alone"


# How commands end


@pytest.mark.parametrize("failure", ANSWERED.values(), ids=ANSWERED)
def test_a_command_tries_the_others_and_ends_with_3(failure: SideFailed) -> None:
    """The refused one is the last: nobody is served after it, and others were before."""
    bench = Bench(patience_s=60.0, window=1)
    bench.script = {"last": [failure]}
    with pytest.raises(InstancesRefused, match=r"last\. It is down\.") as caught:
        bench.run(["a", "b", "c", "last"])
    assert caught.value.exit_code == 3
    assert bench.ledger.settled == {"a", "b", "c"}
    assert not bench.ledger.parked
    assert 55.0 < bench.time.s < 80.0
    assert bench.started.count("last") <= 12


@pytest.mark.parametrize("failure", ANSWERED.values(), ids=ANSWERED)
def test_a_command_whose_server_serves_nobody_ends_with_the_server(failure: SideFailed) -> None:
    bench = Bench(patience_s=60.0)
    bench.script = {name: [failure] for name in "abc"}
    with pytest.raises(TargetError) as caught:
        bench.run("abc")
    assert caught.value.exit_code == 11
    assert not bench.ledger.parked


def test_a_command_does_not_call_it_refused_when_the_server_went_down_after_that() -> None:
    bench = Bench(patience_s=60.0, window=1)
    bench.script = {"last": [ERROR]}
    bench.time.at(10.0, lambda: bench.bring_down(SideName.TARGET))
    with pytest.raises(TargetError):
        bench.run(["a", "last"])


def test_a_command_does_not_call_it_refused_when_some_were_not_tried() -> None:
    bench = Bench(patience_s=5.0, window=1)
    bench.script = {f"i{number}": [ERROR] for number in range(1, 30)}
    with pytest.raises(TargetError):
        bench.run([f"i{number}" for number in range(30)])


def test_the_first_of_a_command_is_parked_when_others_are_served_after_it() -> None:
    bench = Bench(patience_s=60.0, window=1)
    bench.script = {"first": [ERROR]}
    summary = bench.run(["first", *[f"o{number}" for number in range(60)]])
    assert summary.parked == {"server_refuses_instance": 1}
    assert summary.delivered == 60


def test_a_worker_that_dies_of_a_held_instance_is_its_own_matter() -> None:
    bench = Bench()
    died = InstanceFailed(Reason.WORKER_DIED, "died")
    bench.script = {"i": [ERROR, ERROR, died]}
    assert bench.run(["i"]).parked == {"worker_died": 1}
    assert bench.progress[-1].refused == ()


def test_pauses_of_one_instance_grow_though_another_fails_beside_it() -> None:
    tries = Tries(3.0, lambda _: ERROR)
    tries.run(2)
    for name in ("i0", "i1"):
        assert tries.first_minute(tries.of(name)) <= 12
        gaps = [later - earlier for earlier, later in itertools.pairwise(tries.of(name))]
        assert gaps[-1] >= 60.0
