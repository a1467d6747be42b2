"""What a command did, counted and printed."""

from __future__ import annotations

import json

import pytest

from bridge.commands.output import moment, print_summary, print_table
from bridge.summary import Summary

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


def test_as_json(capsys: Capture) -> None:
    print_summary(_summary(), as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "delivered": 3,
        "already_there": 2,
        "skipped": {"gone": 4},
        "parked": {"video": 1, "undecodable": 2},
        "abandoned": 1,
        "interrupted": True,
    }


def test_as_text(capsys: Capture) -> None:
    print_summary(_summary(), as_json=False)
    said = capsys.readouterr().out
    assert "delivered      3\n" in said
    assert "skipped        4 (gone: 4)\n" in said
    assert "parked         3 (undecodable: 2, video: 1)\n" in said
    assert "1 instances unfinished" in said


def test_nothing_is_said_as_nothing(capsys: Capture) -> None:
    print_summary(Summary(), as_json=False)
    assert "parked         0\n" in capsys.readouterr().out


def test_a_table_is_aligned(capsys: Capture) -> None:
    print_table(("A", "LONG NAME"), [("a long value", 1), ("b", 22)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["A             LONG NAME", "a long value  1", "b             22"]


def test_times_are_told_in_utc() -> None:
    assert moment(0.0) == "1970-01-01T00:00:00Z"
