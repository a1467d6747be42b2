"""What is urgent goes before everything that waits, and nothing waits for the question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from bridge.errors import ConfigurationError, side_error
from bridge.events import SideDown
from bridge.model import Move, SideName, SideProblem
from bridge.pipeline.runtime import Answered, Found, UrgentAmong
from bridge.pipeline.urgency import BATCH, UNASKED_MAX, URGENT, Urgency
from bridge.pipeline.window import WorkItem
from bridge.rules import is_urgent, parse_rules
from tests.pipeline_bench import DELIVERED, JOB, Bench, down

URGENT_RULES = parse_rules(
    "[[rule]]\nremote_aet = 'ER*'\naction = 'transcode'\npriority = 'urgent'\n"
)
BACKLOG = [f"n{number:02}" for number in range(90)]


class Scene(Bench):
    """Instances whose names begin with "er" are urgent."""

    def __init__(self) -> None:
        super().__init__(window=2)
        self.asked: list[list[str]] = []
        self.ask_urgent = self.urgent_among
        self.job_now = lambda: replace(JOB, rules=URGENT_RULES)
        self.fails = 0

    def urgent_among(self, names: Sequence[str]) -> UrgentAmong:
        self.asked.append(list(names))
        if self.fails:
            self.fails -= 1
            raise side_error(SideName.SOURCE, SideProblem.TIMED_OUT, "It is slow.")
        return UrgentAmong(frozenset(name for name in names if name.startswith("er")))


def test_what_is_urgent_goes_first_in_its_order() -> None:
    scene = Scene()
    scene.run([*BACKLOG[:50], "er1", *BACKLOG[50:], "er2", "er3"])
    places = [scene.started.index(name) for name in ("er1", "er2", "er3")]
    assert places == sorted(places)
    assert places[-1] < 10, "they were the 51st and the last of 93"
    assert sorted(scene.started) == sorted([*BACKLOG, "er1", "er2", "er3"])
    rest = [name for name in scene.started if name.startswith("n")]
    assert rest == BACKLOG


def test_it_is_asked_in_batches_and_only_for_what_waits() -> None:
    scene = Scene()
    scene.run(BACKLOG)
    assert max(map(len, scene.asked)) == BATCH
    asked = [name for batch in scene.asked for name in batch]
    assert len(asked) == len(set(asked))


class Calls:
    """A background that only notes what is called."""

    def __init__(self) -> None:
        self.made: list[Callable[[], Found]] = []

    def call(self, name: str, function: Callable[[], Found]) -> None:
        assert name == URGENT
        self.made.append(function)

    def close(self) -> None: ...


def test_one_question_at_a_time_and_none_for_what_has_started() -> None:
    asked: list[list[str]] = []

    def ask(names: Sequence[str]) -> UrgentAmong:
        asked.append(list(names))
        return UrgentAmong(frozenset({"i3"}))

    calls = Calls()
    urgency = Urgency(ask, calls)
    items = [WorkItem(number, Move(f"i{number}")) for number in range(BATCH + 5)]
    items[1].start(1.0, rules="")
    urgency.expect(items)
    urgency.look(wanted=True)
    urgency.look(wanted=True)
    assert len(calls.made) == 1
    found = calls.made[0]()
    assert asked == [[f"i{number}" for number in range(BATCH + 1) if number != 1]]
    assert urgency.take(Answered(URGENT, value=found)) == {"i3"}
    urgency.look(wanted=True)
    assert len(calls.made) == 2


def test_without_a_rule_for_it_nothing_is_asked() -> None:
    scene = Scene()
    scene.job_now = lambda: JOB
    scene.run(BACKLOG)
    assert scene.asked == []
    assert scene.started == BACKLOG


def test_a_source_that_cannot_be_asked_is_no_outage_and_holds_nothing() -> None:
    scene = Scene()
    scene.fails = 2
    scene.run([*BACKLOG, "er1"])
    assert scene.happened(SideDown) == []
    assert sorted(scene.started) == sorted([*BACKLOG, "er1"])


def test_a_bug_in_the_question_is_not_hidden() -> None:
    scene = Scene()

    def bug(_: Sequence[str]) -> UrgentAmong:
        raise ConfigurationError("a bug")

    scene.ask_urgent = bug
    with pytest.raises(ConfigurationError):
        scene.run(BACKLOG)


def test_reading_stays_bounded_when_everything_is_urgent() -> None:
    scene = Scene()
    scene.holding = {"er0", "er1"}
    names = [f"er{number}" for number in range(1000)]
    pipeline = scene.pipeline(names)
    scene.time.at(60.0, pipeline.stop)

    def let_go() -> None:
        for task in list(scene.running.values()):
            scene.finish(task)

    scene.time.at(61.0, let_go)
    pipeline.run()
    assert max(progress.waiting for progress in scene.progress) <= 100, "one page of the bench"


def test_what_failed_with_a_server_is_done_all_the_same() -> None:
    scene = Scene()
    scene.script["er1"] = [down(), DELIVERED]
    scene.run([*BACKLOG, "er1"])
    assert scene.started.count("er1") == 2


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("action = 'skip'\nremote_aet = 'X'\npriority = 'urgent'", "that skips cannot be urgent"),
        ("action = 'forward'\nmodality = 'CT'\npriority = 'urgent'", "before the file is read"),
        ("action = 'forward'\nRows = '5'\npriority = 'urgent'", "before the file is read"),
        ("action = 'forward'\nlarger_than = 5\npriority = 'urgent'", "before the file is read"),
        ("action = 'forward'\nremote_aet = 'X'\npriority = 'high'", 'must be "urgent"'),
    ],
)
def test_what_cannot_be_urgent_is_refused(rule: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match="line 1") as refused:
        parse_rules(f"[[rule]]\n{rule}\n")
    assert said in str(refused.value)


def test_the_first_rule_that_surely_matches_says_whether_it_is_urgent() -> None:
    rules = parse_rules(
        "[[rule]]\nmodality = 'SR'\naction = 'skip'\n"
        "[[rule]]\nremote_aet = 'ER-QA'\naction = 'forward'\n"
        "[[rule]]\nremote_aet = 'ER*'\naction = 'transcode'\npriority = 'urgent'\n"
    )
    assert is_urgent(rules, {"remote_aet": "ER-CT"})
    assert not is_urgent(rules, {"remote_aet": "ER-QA"})
    assert not is_urgent(rules, {"remote_aet": "CT"})
    assert not is_urgent(rules, {})
    assert not is_urgent((), {"remote_aet": "ER-CT"})


def test_of_a_long_backlog_the_newest_are_asked_for() -> None:
    asked: list[list[str]] = []

    def ask(names: Sequence[str]) -> UrgentAmong:
        asked.append(list(names))
        return UrgentAmong(frozenset())

    calls = Calls()
    urgency = Urgency(ask, calls)
    items = [WorkItem(number, Move(f"i{number}")) for number in range(UNASKED_MAX + 2)]
    urgency.expect(items)
    while len(asked) * BATCH < UNASKED_MAX:
        urgency.look(wanted=True)
        urgency.take(Answered(URGENT, calls.made.pop()()))
    urgency.look(wanted=True)
    assert not calls.made, "no more wait to be asked for"
    names = [name for batch in asked for name in batch]
    assert names == [item.move.instance_id for item in items[2:]]
