"""One event, one line: every kind of event, in both forms, without what must not be there."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from bridge.core import events
from bridge.core.events import (
    Abandoned,
    Draining,
    Event,
    FeedReset,
    InstanceParked,
    InstanceRetried,
    PageRead,
    Settled,
    SideDown,
    SideStillDown,
    SideUp,
    StateFailed,
    StateRecovered,
    WorkerLost,
)
from bridge.core.model import (
    Action,
    Delivered,
    InstanceFailed,
    Move,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    StageTimes,
)
from bridge.log_lines import LOGGER, log, set_up_logging
from bridge.logs import REPEAT_S, LogObserver

MOVE = Move("an-instance", 42)
DONE = Delivered(
    "Success",
    Action.TRANSCODED,
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.1",
    "1.2.3",
    1000,
    2000,
    StageTimes(0.001, 0.002, 0.003, 0.0),
    decoder="rle",
)
DOWN = SideFailed(SideName.TARGET, SideProblem.LOGIN_REFUSED, "It said 401.", "Log in.")

Capture = pytest.CaptureFixture[str]

EXAMPLES: list[tuple[Event, str, str, dict[str, object]]] = [
    (
        Settled(MOVE, DONE, 2),
        "instance_delivered",
        "info",
        {"sequence": 42, "attempt": 2, "fetch_ms": 1.0, "target_bytes": 2000, "decoder": "rle"},
    ),
    (
        Settled(MOVE, Skipped(Reason.RULE, "by a rule", "1.2.840.10008.1.2.5"), 1),
        "instance_skipped",
        "info",
        {"reason": "rule", "source_syntax": "1.2.840.10008.1.2.5"},
    ),
    (
        InstanceParked(MOVE, Reason.UNDECODABLE, "cut short", 3, "1.2.840.10008.1.2.5"),
        "instance_parked",
        "error",
        {
            "reason": "undecodable",
            "attempts": 3,
            "instance": "an-instance",
            "source_syntax": "1.2.840.10008.1.2.5",
        },
    ),
    (
        InstanceRetried(MOVE, InstanceFailed(Reason.TIMED_OUT, "slow"), 1, 2.0),
        "instance_retried",
        "warning",
        {"attempts": 1, "after_s": 2.0, "detail": "slow"},
    ),
    (SideDown(DOWN), "side_down", "error", {"side": "target", "problem": "login_refused"}),
    (SideStillDown(DOWN, 100.0), "side_still_down", "error", {"down_s": 100}),
    (SideUp(SideName.TARGET, 12.34), "side_up", "info", {"down_s": 12.3}),
    (PageRead(5, 1, 99), "page_read", "warning", {"late": 1, "frontier": 99}),
    (PageRead(0, 0, 99, 7), "page_read", "warning", {"missing": 7, "frontier": 99}),
    (
        WorkerLost(MOVE, InstanceFailed(Reason.WORKER_DIED, "SIGSEGV")),
        "worker_lost",
        "warning",
        {"reason": "worker_died"},
    ),
    (StateFailed("The disk is full."), "state_failed", "error", {}),
    (StateRecovered(), "state_recovered", "info", {}),
    (FeedReset("It ends at 3."), "feed_reset", "error", {}),
    (Draining(4), "draining", "info", {"in_flight": 4}),
    (Abandoned(2), "abandoned", "warning", {"in_flight": 2}),
]


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    loggers = (LOGGER, logging.root, logging.getLogger("uvicorn"))
    before = [(each, each.handlers[:], each.level, each.propagate) for each in loggers]
    hook = threading.excepthook
    yield
    for each, handlers, level, propagate in before:
        each.handlers, each.propagate = handlers, propagate
        each.setLevel(level)
    threading.excepthook = hook
    logging.captureWarnings(capture=False)


def observer() -> LogObserver:
    return LogObserver(steady_s=lambda: 1000.0)


def lines(capsys: Capture) -> list[dict[str, Any]]:
    said = capsys.readouterr()
    assert said.out == "", "stdout is for results"
    return [json.loads(line) for line in said.err.splitlines()]


@pytest.mark.parametrize(
    ("event", "name", "level", "fields"), EXAMPLES, ids=lambda v: type(v).__name__
)
def test_an_event_is_one_json_line(
    event: Event, name: str, level: str, fields: dict[str, object], capsys: Capture
) -> None:
    set_up_logging(log_format="json", level="debug")
    observer().on_event(event)
    (line,) = lines(capsys)
    assert (line["event"], line["level"]) == (name, level)
    assert line.items() >= fields.items()
    assert line["message"]
    assert line["time"].endswith("Z")


@pytest.mark.parametrize("event", [example[0] for example in EXAMPLES], ids=lambda v: str(type(v)))
def test_an_event_is_one_text_line(event: Event, capsys: Capture) -> None:
    set_up_logging(log_format="text", level="debug")
    observer().on_event(event)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    if isinstance(event, Settled | InstanceParked | InstanceRetried | WorkerLost):
        assert "#42 an-instance" in said.err


def test_every_kind_of_event_is_tried_above() -> None:
    tried = {type(example[0]) for example in EXAMPLES}
    told_elsewhere = {events.SourceSwept, events.SweepFailed, events.SweepWorks}
    assert set(get_args(Event)) - tried <= told_elsewhere


def test_an_outage_is_repeated_now_and_then(capsys: Capture) -> None:
    set_up_logging(log_format="json", level="info")
    now = [0.0]
    watching = LogObserver(steady_s=lambda: now[0])
    watching.on_event(SideDown(DOWN))
    for second in range(int(3 * REPEAT_S)):
        now[0] = float(second)
        watching.on_event(SideStillDown(DOWN, now[0]))
    names = [line["event"] for line in lines(capsys)]
    assert names == ["side_down", "side_still_down", "side_still_down"]


@pytest.mark.parametrize(
    ("level", "said"),
    [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)],
)
def test_the_level_is_obeyed(level: str, said: int, capsys: Capture) -> None:
    set_up_logging(log_format="json", level=level)
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        log(number, "an_event", "a text with 100 %s in it")
    assert len(lines(capsys)) == said


def test_a_page_without_late_rows_is_no_news(capsys: Capture) -> None:
    set_up_logging(log_format="json", level="info")
    observer().on_event(PageRead(5, 0, 99))
    assert lines(capsys) == []


def test_what_json_cannot_hold_does_not_stop_a_line(capsys: Capture) -> None:
    set_up_logging(log_format="json", level="info")
    log(logging.INFO, "an_event", "text", move=MOVE, path=object(), reason=Reason.GONE)
    (line,) = lines(capsys)
    assert line["move"]["instance_id"] == "an-instance"
    assert line["reason"] == "gone"
    assert isinstance(line["path"], str)


def test_set_up_twice_says_everything_once(capsys: Capture) -> None:
    for _ in range(2):
        set_up_logging(log_format="json", level="info")
    log(logging.INFO, "an_event", "text")
    assert len(lines(capsys)) == 1
