"""Both servers as the pipeline sees them: each by itself, and what follows for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from bridge.errors import SideError, side_error
from bridge.events import Event, SideDown, SideStillDown, SideUp
from bridge.model import ServerInfo, SideFailed, SideName, SideProblem
from bridge.pipeline.gate import HURRY_GAP_S
from bridge.pipeline.runtime import Found
from bridge.pipeline.server_gates import CHECK_TARGET_S, PROBE_FIRST_S, Servers
from tests.pipeline_bench import Time, down

SOURCE, TARGET = SideName.SOURCE, SideName.TARGET
BOTH = (SOURCE, TARGET)
INFO = ServerInfo("1.12.4", 1, has_extended_changes=False)


@dataclass
class Pair:
    """Two servers; ``calls`` are the probes that were asked for and have not been answered."""

    time: Time = field(default_factory=Time)
    calls: list[tuple[str, Callable[[], Found]]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    probed: list[SideName] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.servers = Servers(
            probes={side: partial(self._probe, side) for side in SideName},
            background=self,
            clock=self.time,
            observer=self,
            chance=lambda: 1.0,
            pause_longest_s=4.0,
        )

    def _probe(self, side: SideName) -> ServerInfo:
        self.probed.append(side)
        return INFO

    def call(self, name: str, function: Callable[[], Found]) -> None:
        self.calls.append((name, function))

    def close(self) -> None: ...

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def on_progress(self, progress: object) -> None: ...

    def asked(self, s: float | None = None) -> list[str]:
        """Let it be ``s``; the sides that are asked now."""
        if s is not None:
            self.time.s = s
        self.calls = []
        self.servers.probe()
        return [name for name, _ in self.calls]

    def answer(
        self, side: SideName, error: BaseException | None = None, *, on_trial: bool = False
    ) -> None:
        info = INFO if error is None else None
        self.servers.take_probe(side, error, info=info, on_trial=on_trial)

    def up(self) -> Pair:
        for side in BOTH:
            self.answer(side)
        return self

    def trial(self, side: SideName) -> None:
        """Let a server fail at its work, and answer the probe after that."""
        self.servers.fail(down(side))
        self.answer(side, on_trial=True)


def is_down(side: SideName) -> SideError:
    return side_error(side, SideProblem.UNREACHABLE, "It is down.")


@pytest.fixture
def pair() -> Pair:
    return Pair().up()


# Who is asked when


def test_both_are_asked_at_first_each_its_own_question_and_once() -> None:
    pair = Pair()
    assert pair.asked() == ["source", "target"]
    assert [function() for _, function in pair.calls] == [INFO, INFO]
    assert pair.probed == [SOURCE, TARGET]
    assert pair.asked(1000.0) == [], "no answer has come yet"
    assert pair.servers.probe_due_s() == []
    pair.answer(SOURCE)
    assert pair.asked(2000.0) == [], "the source is polled anyway"


@pytest.mark.parametrize("side", BOTH)
def test_who_did_not_answer_is_asked_again_more_and_more_seldom(side: SideName) -> None:
    pair = Pair()
    at_s: list[float] = []
    for _ in range(220):
        for name in pair.asked(pair.time.s + 0.1):
            asked = SideName(name)
            if asked is side:
                at_s.append(pair.time.s)
            pair.answer(asked, is_down(asked) if asked is side else None)
    pauses = [after - before for before, after in pairwise(at_s)]
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0, 4.0], abs=0.11)


def test_the_target_is_asked_every_few_seconds_since_its_own_last_answer(pair: Pair) -> None:
    assert pair.asked(CHECK_TARGET_S - 0.01) == []
    pair.answer(SOURCE)
    assert pair.asked(CHECK_TARGET_S) == ["target"]
    pair.time.s = 6.0
    pair.answer(TARGET)
    assert min(pair.servers.probe_due_s()) == 6.0 + CHECK_TARGET_S
    assert pair.asked(10.99) == []
    assert pair.asked(11.0) == ["target"]


def test_what_is_no_trouble_of_a_server_is_a_bug(pair: Pair) -> None:
    with pytest.raises(ZeroDivisionError):
        pair.answer(TARGET, ZeroDivisionError())


# Failures, trials


@pytest.mark.parametrize("side", BOTH)
def test_a_probe_that_fails_brings_a_server_down_and_is_told_once(
    pair: Pair, side: SideName
) -> None:
    pair.answer(side, is_down(side))
    pair.time.s = 2.0
    pair.answer(side, is_down(side))
    first, second = pair.events
    assert isinstance(first, SideDown)
    assert first.failure.side is side
    assert isinstance(second, SideStillDown)
    assert second.down_s == 2.0
    assert not pair.servers.reachable([side])
    assert not pair.servers.reachable(BOTH)
    assert pair.servers.reachable([side for side in BOTH if side is not first.failure.side])
    assert not pair.servers.allow(0)


def test_failures_of_those_that_were_under_way_are_one_outage(pair: Pair) -> None:
    for name in ("first", "middle", "last"):
        pair.servers.fail(down(TARGET), instance_id=name, times=2)
    (event,) = pair.events
    assert event == SideDown(down(TARGET), "first")
    view = pair.servers.view(TARGET)
    assert (view.instance_id, view.times) == ("last", 2)


def test_who_fails_on_trial_is_still_down_and_named(pair: Pair) -> None:
    pair.trial(TARGET)
    pair.time.s = 7.0
    pair.servers.fail(down(TARGET), instance_id="it", times=3)
    assert pair.events[1:] == [SideStillDown(down(TARGET), 7.0, "it")]


@pytest.mark.parametrize("side", BOTH)
def test_a_server_that_answers_after_an_outage_gets_one_instance(
    pair: Pair, side: SideName
) -> None:
    pair.trial(side)
    assert pair.servers.on_trial(side)
    assert pair.servers.allow(0)
    assert not pair.servers.allow(1)
    pair.time.s = 3.0
    assert pair.servers.serve(BOTH) == [side]
    assert not pair.servers.on_trial(side)
    assert pair.servers.allow(1)
    assert pair.events[-1] == SideUp(side, 3.0)


def test_both_may_be_on_trial_and_one_instance_ends_both(pair: Pair) -> None:
    for side in BOTH:
        pair.trial(side)
    assert pair.servers.serve(BOTH) == [SOURCE, TARGET]
    assert [pair.servers.served_count(side) for side in BOTH] == [1, 1]
    assert pair.servers.serve([SOURCE]) == []
    assert [pair.servers.served_count(side) for side in BOTH] == [2, 1]


def test_where_nothing_is_there_to_try_it_with_its_word_is_taken(pair: Pair) -> None:
    pair.servers.fail(down(TARGET))
    pair.answer(TARGET, on_trial=False)
    assert not pair.servers.on_trial(TARGET)
    assert isinstance(pair.events[-1], SideUp)


@pytest.mark.parametrize("but", [None, *BOTH])
def test_idle_ends_all_trials_but_one(pair: Pair, but: SideName | None) -> None:
    for side in BOTH:
        pair.trial(side)
    pair.servers.idle(but=but)
    assert [side for side in BOTH if pair.servers.on_trial(side)] == ([but] if but else [])


def test_idle_opens_nobody_who_is_down(pair: Pair) -> None:
    pair.servers.fail(down(TARGET))
    pair.servers.idle(but=None)
    assert not pair.servers.reachable([TARGET])


@pytest.mark.parametrize("side", BOTH)
def test_calm_is_when_both_have_been_answering_for_so_long(side: SideName) -> None:
    pair = Pair()
    pair.time.s = 1.0
    pair.up()
    pair.time.s = 3.0
    assert pair.servers.calm(2.0)
    pair.trial(side)
    assert not pair.servers.calm(2.0)
    pair.time.s = 4.99
    assert not pair.servers.calm(2.0)
    pair.time.s = 5.0
    assert pair.servers.calm(2.0)


def test_whether_it_died_is_asked_at_once(pair: Pair) -> None:
    pair.time.s = 3.0
    pair.servers.fail(down(SOURCE))
    assert pair.asked() == []
    pair.servers.fail(down(TARGET), ask_at_once=True)
    assert pair.asked() == ["target"]


@pytest.mark.parametrize("before", [None, is_down(TARGET)])
def test_an_answer_from_before_it_failed_does_not_tell_that_it_lived(
    pair: Pair, before: SideError | None
) -> None:
    """The target is probed while it is up: a probe may be under way when it dies."""
    pair.up()
    assert pair.asked(CHECK_TARGET_S) == ["target"]
    pair.servers.fail(down(TARGET), ask_at_once=True)
    assert pair.asked() == [], "it is being asked"
    told = pair.servers.take_probe(TARGET, before, info=None, on_trial=True)
    assert told is (before is not None), "that it is down is told by whatever answer"
    if before is None:
        assert not pair.servers.on_trial(TARGET)
        assert pair.asked() == ["target"], "at once"
        assert pair.servers.take_probe(TARGET, None, info=None, on_trial=True)
        assert pair.servers.on_trial(TARGET)


def test_something_new_hurries_both_and_not_at_once(pair: Pair) -> None:
    for _ in range(12):  # long pauses by now
        for side in BOTH:
            pair.trial(side)
            pair.servers.fail(down(side))
    begun_s = pair.time.s
    pair.servers.hurry()
    assert pair.asked(begun_s + HURRY_GAP_S - 0.01) == []
    assert pair.asked(begun_s + HURRY_GAP_S) == ["source", "target"]


def test_the_first_pause_is_short_whatever_the_poll_interval() -> None:
    pair = Pair()
    pair.asked()
    pair.answer(SOURCE, is_down(SOURCE))
    pair.answer(TARGET)
    assert "source" in pair.asked(PROBE_FIRST_S)


# Patience


def patience(pair: Pair, *, under_way: int = 0) -> SideError | None:
    return pair.servers.down_longer_than(10.0, under_way=under_way)


@pytest.mark.parametrize("side", BOTH)
def test_patience_ends_with_a_server_that_is_down_for_so_long(pair: Pair, side: SideName) -> None:
    assert patience(pair) is None
    pair.time.s = 1.0
    problem = SideFailed(side, SideProblem.TLS, "No.", advice="Renew.")
    pair.servers.fail(problem)
    pair.time.s = 10.99
    assert patience(pair) is None
    pair.time.s = 11.0
    for under_way in (0, 3):
        error = patience(pair, under_way=under_way)
        assert error is not None
        assert (error.side, error.problem) == (side, SideProblem.TLS)
        assert (error.message, error.advice) == ("No.", "Renew.")


def test_what_is_tried_now_may_yet_succeed(pair: Pair) -> None:
    pair.trial(TARGET)
    pair.time.s = 20.0
    assert patience(pair, under_way=1) is None
    assert patience(pair, under_way=0) is not None, "it failed at its work and nothing is tried"


def test_a_trial_of_one_does_not_hide_the_outage_of_the_other(pair: Pair) -> None:
    pair.trial(SOURCE)
    pair.servers.fail(down(TARGET))
    pair.time.s = 20.0
    error = patience(pair, under_way=1)
    assert error is not None
    assert error.side is TARGET


def test_a_server_that_was_silent_and_answers_is_no_outage(pair: Pair) -> None:
    pair.answer(SOURCE, is_down(SOURCE))
    pair.answer(SOURCE, is_down(SOURCE))
    pair.answer(SOURCE, on_trial=True)
    pair.time.s = 20.0
    assert patience(pair) is None


def test_only_who_has_served_somebody_and_answers_only_fails_at_work(pair: Pair) -> None:
    pair.servers.fail(down(TARGET))
    assert not pair.servers.only_fails_at_work(TARGET), "it has served nobody"
    pair.servers.serve([SOURCE, TARGET])
    assert pair.servers.only_fails_at_work(TARGET)
    assert not pair.servers.only_fails_at_work(SOURCE), "it has not failed"
    pair.answer(TARGET, is_down(TARGET))
    assert not pair.servers.only_fails_at_work(TARGET), "it does not answer"


# What is told


def shown(pair: Pair, side: SideName) -> dict[str, Any]:
    view = pair.servers.view(side)
    names = ("up", "trial", "problem", "message", "down_since", "version", "instance_id", "times")
    return {name: getattr(view, name) for name in names}


def test_what_is_shown_of_a_server_before_it_was_asked() -> None:
    pair = Pair()
    found = shown(pair, TARGET)
    assert (found["up"], found["problem"]) == (False, "not_contacted")
    assert "target" in found["message"]


def test_what_is_shown_of_one_that_is_well(pair: Pair) -> None:
    pair.servers.take_probe(TARGET, None, info=None, on_trial=False)
    found = shown(pair, TARGET)
    assert (found["up"], found["trial"], found["problem"]) == (True, False, "")
    assert found["version"] == "1.12.4", "an answer without a version changes nothing"


def test_what_is_shown_of_one_that_fails_at_its_work(pair: Pair) -> None:
    pair.time.s = 5.0
    pair.servers.fail(down(TARGET), instance_id="it", times=3)
    pair.time.s = 9.0
    found = shown(pair, TARGET)
    assert (found["up"], found["trial"], found["problem"]) == (False, False, "unreachable")
    assert found["down_since"] == 1_000_005.0
    assert (found["instance_id"], found["times"]) == ("it", 3)
    assert found["version"] == "1.12.4"
    pair.answer(TARGET, on_trial=True)
    found = shown(pair, TARGET)
    assert (found["up"], found["trial"]) == (False, True)


def test_what_is_shown_of_one_that_does_not_answer(pair: Pair) -> None:
    pair.servers.fail(down(TARGET), instance_id="it", times=3)
    pair.answer(TARGET, is_down(TARGET))
    found = shown(pair, TARGET)
    assert (found["up"], found["instance_id"], found["times"]) == (False, "", 0)
    event = pair.events[-1]
    assert isinstance(event, SideStillDown)
    assert event.instance_id == ""
