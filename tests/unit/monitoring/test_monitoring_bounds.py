"""Bounds of what the status page and /health tell, each at its edge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bridge.events import CameBack, Progress
from bridge.ledger.records import EndedAs, Entry, Parked, StudyNote
from bridge.ledger.store import Ledger
from bridge.model import Move, Reason, Study
from bridge.monitoring.board import PARKED_SHOWN_MAX, Board
from bridge.monitoring.health import CAME_BACK_TOLD_S, HealthLimits, judge
from bridge.monitoring.studies import PARKED_MAX, SEARCH_CHARACTERS_MAX, studies_page

NOW = 1_000_000.0
WELL = Progress(checkpoint=10, last=10, caught_up=True, last_progress_at=NOW, feed_read_at=NOW)
STUDY = Study("1." + "2" * (SEARCH_CHARACTERS_MAX - 2), "a")


@pytest.mark.parametrize(
    ("ago_s", "told"), [(0.0, 1), (CAME_BACK_TOLD_S, 1), (CAME_BACK_TOLD_S + 0.5, 0)]
)
def test_what_came_back_is_told_for_an_hour(ago_s: float, told: int) -> None:
    progress = replace(WELL, came_back=CameBack(3, "i", NOW - ago_s))
    found = judge(progress, {}, HealthLimits(stall_after_s=600.0), now=NOW)
    assert [one.code for one in found] == ["instances_came_back"] * told


def identifier(number: int) -> str:
    text = f"{number:040x}"
    return "-".join(text[start : start + 8] for start in range(0, 40, 8))


def park(path: Path, count: int) -> None:
    names = [identifier(number) for number in range(count)]
    notes = tuple(StudyNote(STUDY, name, EndedAs.PARKED, 100.0, 0.0) for name in names)
    rows = tuple(
        Parked(Move(name, n), Reason.UNDECODABLE, "why", 1, 1.0, 2.0 + n)
        for n, name in enumerate(names)
    )
    with Ledger(path) as ledger:
        ledger.commit(Entry(studies=notes, parked=rows))


@pytest.mark.parametrize("count", [3, PARKED_MAX, PARKED_MAX + 1])
def test_so_many_parked_instances_of_a_study_are_listed_and_that_there_are_more(
    tmp_path: Path, count: int
) -> None:
    park(tmp_path / "state", count)
    found = studies_page(tmp_path / "state", search=STUDY.uid)
    assert isinstance(found["parked"], list)
    assert len(found["parked"]) == min(count, 100)
    assert found["parked_more"] is (count > 100)


def test_a_search_is_no_longer_than_a_uid(tmp_path: Path) -> None:
    park(tmp_path / "state", 1)
    for text, count in ((STUDY.uid, 1), (STUDY.uid + "9", 0), (STUDY.uid + "9" * 5000, 0)):
        found = studies_page(tmp_path / "state", search=text)
        assert isinstance(found["studies"], list)
        assert len(found["studies"]) == count, (
            "what is longer names no study, and not its beginning"
        )


@pytest.mark.parametrize("count", [3, PARKED_SHOWN_MAX, PARKED_SHOWN_MAX + 1])
def test_the_page_shows_the_instances_that_were_parked_last(tmp_path: Path, count: int) -> None:
    park(tmp_path / "state", count)
    board = Board(tmp_path / "state", HealthLimits())
    shown = board.status()["parked_newest"]
    assert isinstance(shown, list)
    newest = [identifier(number) for number in reversed(range(count))]
    assert [one["instance"] for one in shown] == newest[:PARKED_SHOWN_MAX]
