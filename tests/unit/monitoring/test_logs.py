"""One event, one line: every kind of event, in both forms, without what must not be there."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest

from bridge import events
from bridge import log as log_lines
from bridge.events import (
    Abandoned,
    ActionTaken,
    Draining,
    Event,
    FeedDoubted,
    FeedReset,
    FeedTrusted,
    GapsClosed,
    InstanceDropped,
    InstanceParked,
    InstanceRetried,
    MissedFound,
    NoticeFailed,
    NoticesDropped,
    NoticeSent,
    PageRead,
    ParkedRetried,
    Progress,
    Recounted,
    RecountFailed,
    RulesRead,
    RulesRefused,
    Settled,
    SideDown,
    SideStillDown,
    SideUp,
    SourceDeletes,
    StateFailed,
    StateRecovered,
    TellingFailed,
    TellingWorks,
    WorkerLost,
)
from bridge.log import LOGGER, log, set_up_logging
from bridge.model import (
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
from bridge.monitoring.logs import REPEAT_S, LogObserver

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
        Settled(MOVE, replace(DONE, trusted="jpeg-dct under JPEGLosslessSV1"), 1),
        "instance_delivered",
        "warning",
        {"trusted": "jpeg-dct under JPEGLosslessSV1"},
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
    (PageRead(0, 0, 99, 0, 2), "page_read", "error", {"refused": 2, "frontier": 99}),
    (RulesRead("0123", 3), "rules_read", "info", {"generation": "0123", "rules": 3}),
    (RulesRefused("Line 3.", "0123"), "rules_refused", "error", {"generation": "0123"}),
    (NoticeSent("parked", "webhook"), "event_sent", "debug", {"kind": "parked", "way": "webhook"}),
    (
        NoticeFailed("parked", "webhook", "it answered 500"),
        "event_not_sent",
        "warning",
        {"kind": "parked", "way": "webhook"},
    ),
    (NoticesDropped(3), "events_dropped", "error", {"count": 3}),
    (TellingFailed("It refuses."), "telling_failed", "warning", {}),
    (TellingWorks(), "telling_works", "info", {}),
    (
        ParkedRetried(MOVE, Reason.FILTERED_OUT, "delivered"),
        "parked_retried",
        "info",
        {"reason": "filtered_out", "result": "delivered", "instance": "an-instance"},
    ),
    (
        InstanceParked(MOVE, Reason.FILTERED_OUT, "no", 4, retries=1),
        "instance_parked",
        "info",
        {"reason": "filtered_out", "attempts": 4},
    ),
    (InstanceDropped(MOVE, Reason.VIDEO), "instance_dropped", "warning", {"reason": "video"}),
    (
        ActionTaken("anna", "drop", "reason video (3)", "begins"),
        "action",
        "warning",
        {"who": "anna", "action": "drop", "detail": "reason video (3)", "result": "begins"},
    ),
    (PageRead(5, 1, 99), "page_read", "info", {"late": 1, "frontier": 99}),
    (PageRead(0, 0, 99, 7), "page_read", "warning", {"missing": 7, "frontier": 99}),
    (GapsClosed(7, 3, 0), "gaps_closed", "debug", {"filled": 7, "expired": 3}),
    (GapsClosed(0, 0, 5), "gaps_closed", "error", {"given_up": 5}),
    (
        WorkerLost(MOVE, InstanceFailed(Reason.WORKER_DIED, "SIGSEGV")),
        "worker_lost",
        "warning",
        {"reason": "worker_died"},
    ),
    (Recounted(10, 0), "recounted", "debug", {"held": 10, "unexplained": 0}),
    (Recounted(None, 0), "recounted", "debug", {"held": None}),
    (Recounted(10, 2), "recounted", "warning", {"unexplained": 2}),
    (MissedFound(MOVE), "missed_found", "warning", {"instance": "an-instance"}),
    (RecountFailed("It says 403."), "recount_failed", "warning", {}),
    (events.CopyFound("i", "no_file"), "copy_found", "warning", {"state": "no_file"}),
    (
        events.CopyFound("i", "unverifiable", "Do it."),
        "copy_found",
        "warning",
        {"state": "unverifiable", "message": "the copy of i at the target (unverifiable): Do it."},
    ),
    (events.CopyReplaces("i", "older", "s", "t", "b"), "copy_replaces", "warning", {}),
    (events.CopyRepaired("i", "older"), "copy_repaired", "warning", {"instance": "i"}),
    (events.CopyNotRepaired("i", "older", "No."), "copy_not_repaired", "error", {}),
    (events.TargetDeletes("i", "t", 90_000.0), "target_deletes", "warning", {"instance": "i"}),
    (events.TargetKept("i", "It is there again."), "target_kept", "warning", {"instance": "i"}),
    (events.Verified(9, {"equal": 9}, 0, 0, 0, 0), "verified", "info", {"equal": 9}),
    (events.Verified(9, {"missing": 2}, 2, 1, 1, 0), "verified", "warning", {"missing": 2}),
    (events.Carried("i", {"labels": 1}), "carried", "debug", {"resource": "i", "labels": 1}),
    (
        events.CarryLeft("i", "1024", "foreign"),
        "carry_left",
        "warning",
        {"resource": "i", "name": "1024", "reason": "foreign"},
    ),
    (events.CarryLeft("i", "1030", "too_large"), "carry_left", "warning", {}),
    (events.CarryLeft("i", "labels", "no_labels"), "carry_left", "warning", {}),
    (events.CarryLeft("i", "Project", "unknown_name"), "carry_left", "warning", {}),
    (events.CarryFailed("i", "1024", "No."), "carry_failed", "warning", {"resource": "i"}),
    (events.Signed("i", "label"), "signed", "debug", {"instance": "i", "kind": "label"}),
    (events.SignLeft("i", "changed"), "sign_left", "warning", {"instance": "i"}),
    (events.SignLeft("i", "foreign"), "sign_left", "warning", {"reason": "foreign"}),
    (events.SignLeft("i", "no_labels"), "sign_left", "warning", {}),
    (events.SignLeft("i", "no_md5"), "sign_left", "warning", {}),
    (events.SignFailed("i", "No."), "sign_failed", "warning", {"instance": "i"}),
    (
        events.CarryRoundEnded(9, 2, 1),
        "carry_round",
        "info",
        {"resources": 9, "left": 2, "failed": 1},
    ),
    (StateFailed("The disk is full."), "state_failed", "error", {}),
    (StateRecovered(), "state_recovered", "info", {}),
    (FeedDoubted("It ends at 3."), "feed_doubted", "warning", {}),
    (FeedTrusted(), "feed_trusted", "info", {}),
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
    told_elsewhere = {
        events.ListCompared,  # on a bar
        events.SourceDeletes,  # these two in the audit file
        events.SourceKept,
        events.SourceSwept,
        events.SweepFailed,
        events.SweepWaits,
        events.SweepWorks,
        events.CarryStopped,  # by the thread, once for each reason
        events.CarryWorks,
        events.SignStopped,  # by the thread, once for each reason
        events.SignWorks,
        events.VerificationFailed,  # by the thread, once for each reason
        events.VerificationWorks,
    }
    assert set(get_args(Event)) - tried <= told_elsewhere


def test_a_start_tells_no_checkpoint_before_the_state_file_is_read(
    capsys: Capture,
) -> None:
    set_up_logging(log_format="text", level="info")
    watching = observer()
    watching.on_progress(Progress(phase="starting"))
    watching.on_progress(Progress(phase="following", checkpoint=17))
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(" starting")
    assert second.endswith(" following, checkpoint 17")


def test_a_pause_names_the_command_that_ends_it(capsys: Capture) -> None:
    set_up_logging(log_format="text", level="info")
    watching = observer()
    for hold in ("paused", "rate_limit", "quiet_hours", ""):
        watching.on_progress(Progress(phase="starting", hold=hold))
    told = capsys.readouterr().err.splitlines()[1:]
    assert [line.split(" hold ")[1].strip() for line in told] == [
        "nothing new is started: paused by an operator; to continue: orthanc-bridge resume",
        "resumed",
        "nothing new is started: waiting for the end of the quiet hours (BRIDGE_SCHEDULE)",
        "resumed",
    ]


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


def test_what_an_exception_said_that_ended_a_thread_is_not_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its text may quote a value: where it was raised is enough."""
    set_up_logging(log_format="text", level="info")

    def fails() -> None:
        raise ValueError("Doe^John")

    thread = threading.Thread(target=fails, name="a worker's thread")
    try:
        fails()
    except ValueError as exc:
        hook = threading.ExceptHookArgs((ValueError, exc, exc.__traceback__, thread))
        log_lines._thread_ended(hook)
    told = capsys.readouterr().err
    assert "a worker's thread ended: ValueError at test_logs.py:" in told
    assert "Doe" not in told


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_every_line_names_its_bridge_where_it_has_a_name(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    set_up_logging(log_format=log_format, level="info", bridge="Ward 7")
    log(logging.INFO, "phase", "following")
    (line,) = capsys.readouterr().err.splitlines()
    if log_format == "json":
        assert json.loads(line)["bridge"] == "Ward 7"
    else:
        assert line.endswith(" [Ward 7] following")
    set_up_logging(log_format=log_format, level="info")
    log(logging.INFO, "phase", "following")
    assert "bridge" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (events.CopyFound("i", "missing"), "the target lacks i"),
        (events.CopyFound("i", "damaged"), "the target's copy of i is wrong: damaged"),
        (
            events.CopyReplaces("i", "missing", "a", "b", ""),
            "sending i to the target, which lacks it",
        ),
        (
            events.CopyReplaces("i", "damaged", "a", "b", "c"),
            "deletes it, then sends the source's instance",
        ),
        (events.CopyRepaired("i", "missing"), "repaired i at the target; it was: missing"),
    ],
)
def test_a_repair_says_deletes_only_where_there_is_a_copy(
    event: Event, said: str, capsys: Capture
) -> None:
    set_up_logging(log_format="text", level="info")
    observer().on_event(event)
    assert said in capsys.readouterr().err


def test_a_receiver_of_events_that_is_down_is_told_of_once_a_minute(capsys: Capture) -> None:
    set_up_logging(log_format="text", level="info")
    now_s = [0.0]
    observer = LogObserver(steady_s=lambda: now_s[0])
    for second in range(200):
        now_s[0] = float(second)
        for way in ("webhook", "notify-1"):
            observer.on_event(NoticeFailed("parked", way, "it answered 500"))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 * 4
    assert sum("(webhook)" in line for line in lines) == 4


def test_what_our_own_deletions_took_along_is_no_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two changes of a mark were told as a loss, 2 s after each sweep."""
    set_up_logging(log_format="json", level="debug")
    told = LogObserver()
    deletes = SourceDeletes("i", "a", "b", "c", "d", 1.0)

    def line(missing: int) -> tuple[str, str]:
        capsys.readouterr()
        told.on_event(PageRead(1, 0, 99, missing))
        said = json.loads(capsys.readouterr().err)
        return said["level"], said["message"]

    level, text = line(2)
    assert level == "warning"
    assert "retention" not in text.lower()
    told.on_event(deletes)
    level, text = line(2)
    assert level == "debug"
    assert "2 changes MISSING" in text
    assert "This bridge deleted 1 instance there (BRIDGE_SOURCE_RETENTION): " in text
    assert text.endswith("the missing changes may all be theirs")
    # That page may have been on its way when it was deleted: the next one may lack its rows too.
    assert line(5)[0] == "debug"
    level, text = line(5)
    assert level == "warning"
    assert "BRIDGE_SOURCE_RETENTION" not in text
    told.on_event(deletes)
    told.on_event(deletes)
    level, text = line(11)
    assert level == "warning"
    assert text.endswith("the missing changes may partly be theirs")
    assert line(0)[0] == "debug"
