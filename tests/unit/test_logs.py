"""Log lines: what each event says, that docs/logs.md tells it, and that a line is one line."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.core.events import (
    Abandoned,
    Draining,
    Event,
    FeedReset,
    InstanceParked,
    InstanceRetried,
    PageRead,
    Progress,
    Settled,
    SideDown,
    SideStillDown,
    SideUp,
    SourceSwept,
    StateFailed,
    StateRecovered,
    WorkerLost,
)
from bridge.core.model import (
    Action,
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    Move,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    StageTimes,
)
from bridge.core.syntaxes import EXPLICIT_LE, RLE
from bridge.logs import FOREIGN_EVENT, LOGGER, LogObserver, log, set_up_logging

ROOT = Path(__file__).resolve().parents[2]
COMMON = {"time", "level", "event", "message"}
MOVE = Move("an-instance", 7)
DOWN = SideFailed(SideName.TARGET, SideProblem.UNREACHABLE, "It is not there.", "Start it.")
FAILED = InstanceFailed(Reason.TIMED_OUT, "It took too long.")
DELIVERED = Delivered(
    "Success", Action.TRANSCODED, RLE, EXPLICIT_LE, "1.2", 10, 30, StageTimes(0.001, 0.02, 0.3)
)
EVENTS: dict[str, Event] = {
    "instance_delivered": Settled(MOVE, DELIVERED, 1),
    "instance_skipped": Settled(MOVE, Skipped(Reason.GONE), 1),
    "instance_parked": InstanceParked(MOVE, Reason.UNDECODABLE, "No.", 1),
    "instance_retried": InstanceRetried(MOVE, FAILED, 1, 5.0),
    "executor_failed": InstanceRetried(MOVE, ExecutorFailed("lost"), 0, 5.0),
    "worker_lost": WorkerLost(MOVE, FAILED),
    "page_read": PageRead(5, 2, 9),
    "side_down": SideDown(DOWN),
    "side_still_down": SideStillDown(DOWN, 61.0),
    "side_up": SideUp(SideName.TARGET, 12.3),
    "source_swept": SourceSwept(3, 1),
    "state_failed": StateFailed("The disk is full."),
    "state_recovered": StateRecovered(),
    "feed_reset": FeedReset("It ends at 3."),
    "draining": Draining(2),
    "abandoned": Abandoned(1),
}
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Put back what set_up_logging changes for the whole process."""
    root, level = list(logging.root.handlers), logging.root.level
    ours = (list(LOGGER.handlers), LOGGER.propagate, LOGGER.level)
    yield
    logging.captureWarnings(capture=False)
    logging.root.handlers, LOGGER.handlers, LOGGER.propagate = root, ours[0], ours[1]
    logging.root.setLevel(level)
    LOGGER.setLevel(ours[2])


@pytest.fixture(scope="module")
def documented() -> dict[str, set[str]]:
    """Event -> fields, as docs/logs.md tells them."""
    table = (ROOT / "docs" / "logs.md").read_text("utf-8").partition("## Events")[2]
    rows = re.findall(r"^\| `(\w+)` \|.*\|(.*)\|$", table.partition("\n## ")[0], re.M)
    return {event: set(re.findall(r"`(\w+)`", fields)) for event, fields in rows}


def names_in_the_code() -> set[str]:
    """The second argument of every call of log()."""
    found: set[str] = set()
    for path in sorted((ROOT / "bridge").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "log":
                name = node.args[1]
                assert isinstance(name, ast.Constant), f"{path}: {ast.unparse(node)}"
                found.add(str(name.value))
    return found


def test_every_event_is_documented_and_no_other(documented: dict[str, set[str]]) -> None:
    assert documented.keys() == names_in_the_code() | {FOREIGN_EVENT}


@pytest.mark.parametrize("name", EVENTS)
def test_a_line_has_the_documented_fields(
    name: str, documented: dict[str, set[str]], capsys: Capture
) -> None:
    set_up_logging(log_format="json", level="debug")
    LogObserver().on_event(EVENTS[name])
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert said["event"] == name
    assert said.keys() == COMMON | documented[name]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said["time"])


def test_what_a_delivery_says(capsys: Capture) -> None:
    set_up_logging(log_format="json", level="info")
    LogObserver().on_event(EVENTS["instance_delivered"])
    said = json.loads(capsys.readouterr().err)
    assert (said["level"], said["sequence"], said["instance"]) == ("info", 7, "an-instance")
    assert (said["source_syntax"], said["target_syntax"]) == (RLE, EXPLICIT_LE)
    assert (said["source_bytes"], said["target_bytes"]) == (10, 30)
    assert (said["fetch_ms"], said["transcode_ms"], said["deliver_ms"]) == (1.0, 20.0, 300.0)


def test_text_is_in_columns(capsys: Capture) -> None:
    set_up_logging(log_format="text", level="info")
    for event in EVENTS.values():
        LogObserver().on_event(event)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(EVENTS)
    for line in lines:
        pattern = r"\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d{4} (INFO   |WARNING|ERROR  ) [a-z_]+ +\S.*"
        assert re.fullmatch(pattern, line)
        assert (line[51], line[52] == " ") == (" ", False), "the message has its column"
    (delivered,) = [line for line in lines if "instance_delivered" in line]
    assert delivered.endswith(
        " INFO    instance_delivered transcoded #7 an-instance "
        "RLELossless -> ExplicitVRLittleEndian 10 -> 30 B in 321 ms"
    )


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_one_event_is_one_line_whatever_it_quotes(log_format: str, capsys: Capture) -> None:
    set_up_logging(log_format=log_format, level="info")
    text = "it said\r\n2026-01-01 ERROR forged\x1b[31m\x85\u2028end"
    log(logging.ERROR, "side_down", text)
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", said)
    assert "forged" in said


def test_changes_of_phase_and_hold_are_said_once(capsys: Capture) -> None:
    set_up_logging(log_format="json", level="info")
    observer = LogObserver()
    for progress in (
        Progress(phase="starting"),
        Progress(phase="following", checkpoint=5),
        Progress(phase="following", checkpoint=6),
        Progress(phase="following", checkpoint=6, hold="rate_limit"),
        Progress(phase="following", checkpoint=6, hold="paused"),
        Progress(phase="following", checkpoint=6, hold="paused"),
        Progress(phase="following", checkpoint=6),
    ):
        observer.on_progress(progress)
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line.get("phase", line.get("hold"))) for line in said] == [
        ("phase", "starting"),
        ("phase", "following"),
        ("hold", "paused"),
        ("hold", ""),
    ]


def test_a_lasting_outage_is_said_once_a_minute(capsys: Capture) -> None:
    set_up_logging(log_format="json", level="info")
    now_s = 0.0
    observer = LogObserver(steady_s=lambda: now_s)
    observer.on_event(SideDown(DOWN))
    for now_s in range(1, 200):
        observer.on_event(SideStillDown(DOWN, now_s))
    said = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert said == ["side_down"] + 3 * ["side_still_down"]
