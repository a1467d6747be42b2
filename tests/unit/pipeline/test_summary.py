"""What a command did, counted and printed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields, replace
from typing import Any

import pytest

from bridge.commands.output import moment, print_summary, print_table
from bridge.events import (
    Abandoned,
    Draining,
    Event,
    InstanceParked,
    ListCompared,
    PageRead,
    Settled,
    Summary,
)
from bridge.model import Move, Reason, Skipped
from tests.pipeline_bench import DELIVERED

Capture = pytest.CaptureFixture[str]


def _summary() -> Summary:
    summary = Summary(delivered=3, already_there=2, abandoned=1, stopped=True)
    summary.skipped["gone"] += 4
    summary.parked["video"] += 1
    summary.parked["undecodable"] += 2
    return summary


def test_settled_is_everything_that_came_to_an_end() -> None:
    assert Summary().settled == 0
    assert _summary().settled == 3 + 2 + 4 + 3


def _counted(summary: Summary) -> dict[str, Any]:
    values = {one.name: getattr(summary, one.name) for one in fields(summary)}
    return {name: value for name, value in values.items() if value}


THERE = replace(DELIVERED, status="AlreadyStored")
MOVE = Move("an-instance", 7)


@pytest.mark.parametrize(
    ("event", "counted"),
    [
        (Settled(MOVE, DELIVERED, 1), {"delivered": 1}),
        (Settled(MOVE, THERE, 1), {"already_there": 1}),
        (Settled(MOVE, Skipped(Reason.GONE), 1), {"skipped": {"gone": 1}}),
        (InstanceParked(MOVE, Reason.VIDEO, "", 1), {"parked": {"video": 1}}),
        (PageRead(9, 2, 100, missing=3, refused=4), {"late": 2, "missing": 3}),
        (ListCompared(10, 3), {"present": 7}),
        (Abandoned(5), {"abandoned": 5}),
        (Draining(5), {}),
    ],
    ids=["delivered", "there", "skipped", "parked", "page", "present", "abandoned", "draining"],
)
def test_what_each_event_counts_for(event: Event, counted: dict[str, Any]) -> None:
    summary = Summary()
    summary.count(event)
    assert _counted(summary) == counted
    summary.count(event)
    summary.count(event)
    thrice = [
        one.total() if isinstance(one, Counter) else one for one in _counted(summary).values()
    ]
    once = [sum(one.values()) if isinstance(one, dict) else one for one in counted.values()]
    assert thrice == [3 * one for one in once]
    assert not summary.stopped
    summary.stop()
    assert summary.stopped


def test_as_json(capsys: Capture) -> None:
    print_summary(_summary(), as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "delivered": 3,
        "already_there": 2,
        "present": 0,
        "skipped": {"gone": 4},
        "parked": {"video": 1, "undecodable": 2},
        "gaps": 0,
        "abandoned": 1,
        "interrupted": True,
    }


def test_as_text(capsys: Capture) -> None:
    print_summary(_summary(), as_json=False)
    said = capsys.readouterr().out
    assert "delivered      3\n" in said
    assert "skipped        4 (gone: 4)\n" in said
    assert "parked         3 (undecodable: 2, video: 1)\n" in said
    assert "interrupted with 1 instance in progress" in said


def test_nothing_is_said_as_nothing(capsys: Capture) -> None:
    print_summary(Summary(), as_json=False)
    assert "parked         0\n" in capsys.readouterr().out


def test_a_dry_run_is_not_told_as_work_that_was_done(capsys: Capture) -> None:
    summary = Summary(dry_run=True)
    summary.skipped.update({"dry_run": 3, "gone": 1})
    summary.would.update({"transcoded": 2, "skipped": 1})
    print_summary(summary, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "dry run: nothing was moved",
        "would be skipped       1",
        "would be transcoded    2",
        "deleted at the source  1",
    ]
    print_summary(summary, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["would_be"] == {"transcoded": 2, "skipped": 1}


def test_a_table_is_aligned(capsys: Capture) -> None:
    print_table(("A", "LONG NAME"), [("a long value", 1), ("b", 22)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["A             LONG NAME", "a long value  1", "b             22"]


def test_times_are_told_in_utc() -> None:
    assert moment(0.0) == "1970-01-01T00:00:00Z"
