"""The throughput of an hour, a day and a month: counted, bounded, and kept over restarts."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.events import Progress, Settled, SideView
from bridge.ledger.store import CELL_CHARACTERS_MAX, Ledger
from bridge.model import Move
from bridge.monitoring.board import Board
from bridge.monitoring.health import HealthLimits
from bridge.monitoring.throughput_history import (
    HISTORY_KEY,
    REPORT_GAP_S,
    SAVE_EVERY_S,
    SPANS,
    ThroughputHistory,
)
from tests.pipeline_bench import DELIVERED

UP = Progress(phase="following", source=SideView(up=True), target=SideView(up=True))


class Clock:
    def __init__(self, s: float = 1_700_000_000.0) -> None:
        self.s = s

    def __call__(self) -> float:
        return self.s


def history(clock: Clock) -> ThroughputHistory:
    return ThroughputHistory(now_s=clock, steady_s=clock)


def test_what_is_delivered_counts_in_each_span() -> None:
    clock = Clock()
    counted = history(clock)
    for _ in range(3):
        counted.delivered(100)
        clock.s += 3600.0
    spans = counted.spans()
    assert {name: sum(span.instances) for name, span in spans.items()} == {
        "quarter_hour": 0, "hour": 0, "day": 3, "month": 3,
    }  # fmt: skip
    assert sum(spans["month"].target_bytes) == 300
    for name, (interval_s, count) in SPANS.items():
        assert (spans[name].interval_s, len(spans[name].instances)) == (interval_s, count)
    assert spans["day"].instances[-13::4] == (1, 1, 1, 0)


def test_what_held_everything_is_told_with_how_long_and_so_is_that_nothing_ran() -> None:
    clock = Clock()
    counted = history(clock)
    for held in ("", "paused", "paused", "target_down", "", "paused"):
        counted.reported(held)
        clock.s += 2.0
    clock.s += 1000.0
    counted.reported("paused")
    hour, day = counted.spans()["hour"], counted.spans()["day"]
    assert max(day.held_s) <= 8.0 + REPORT_GAP_S, "between two reports nobody looked"
    assert "paused" in day.held
    assert set(hour.held) == {"not_running", "paused"}
    assert hour.held[0] == "not_running"


def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        for run in range(3):
            counted = history(clock)
            with counted.kept_in(ledger):
                counted.delivered(10)
                counted.reported("")
                assert sum(counted.spans()["month"].instances) == run + 1
            clock.s += 3 * 86_400.0
        killed = history(clock)
        with contextlib.ExitStack() as never_left:
            never_left.enter_context(killed.kept_in(ledger))
            killed.delivered(10)
            clock.s += SAVE_EVERY_S
            killed.reported("")
            never_left.pop_all()
        again = history(clock)
        with again.kept_in(ledger):
            assert sum(again.spans()["month"].instances) == 4
            clock.s += 40 * 86_400.0
            assert sum(again.spans()["month"].instances) == 0


@pytest.mark.slow
def test_it_stays_small_however_long_it_runs(tmp_path: Path) -> None:
    clock = Clock()
    counted = history(clock)
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        with counted.kept_in(ledger):
            for number in range(4000):
                clock.s += 900.0
                counted.delivered(500_000_000)
                counted.reported(("paused", "source_down", "target_down", "")[number % 4])
        text = ledger.meta(HISTORY_KEY)
    assert text is not None
    assert len(text) < CELL_CHARACTERS_MAX / 4


@pytest.mark.parametrize(
    "kept", ["", "x", "[]", "7", '{"hour": 7}', '{"hour": {"x": [1, 2, {}]}}',
             '{"hour": {"1": [-1, 2, {}]}}', '{"hour": {"1": [1, 2]}}']
)  # fmt: skip
def test_what_cannot_be_understood_is_forgotten(tmp_path: Path, kept: str) -> None:
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        ledger.set_meta(HISTORY_KEY, kept)
        counted = history(Clock())
        with counted.kept_in(ledger):
            assert sum(counted.spans()["hour"].instances) == 0


def sums(counted: ThroughputHistory) -> dict[str, int]:
    return {name: sum(span.instances) for name, span in counted.spans().items()}


@pytest.mark.parametrize("step_s", [-365 * 86_400.0, -3600.0, 7.0, 3600.0, 86_400.0, 1e9])
def test_a_clock_that_is_set_empties_nothing(tmp_path: Path, step_s: float) -> None:
    """Neither what this process has counted nor what was kept, and nothing counts twice."""
    wall, steady = Clock(), Clock(50.0)
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        before = ThroughputHistory(now_s=wall, steady_s=steady)
        with before.kept_in(ledger):
            for _ in range(3):
                before.delivered(1)
                wall.s += 120.0
                steady.s += 120.0
        after = ThroughputHistory(now_s=wall, steady_s=steady)
        with after.kept_in(ledger):
            after.delivered(1)
            assert set(sums(after).values()) == {4}
            wall.s += step_s
            after.delivered(1)
            after.reported("")
            assert sums(after)["quarter_hour"] >= 2, "what it has counted is as old as it is"
            steady.s += 60.0
            wall.s += 60.0
            after.delivered(1)
        # It was saved with the wrong clock, and the next process begins with it.
        last = ThroughputHistory(now_s=wall, steady_s=steady)
        with last.kept_in(ledger):
            assert sums(last)["hour"] >= 3
            wall.s -= step_s
            last.delivered(1)
            # What was saved by the wrong clock lies out of sight where it was far away.
            assert sums(last)["month"] in {4, 7}
            assert sums(last)["hour"] >= 4, "what was kept is there again"


def test_what_a_wrong_clock_has_left_does_not_count_when_its_time_comes(tmp_path: Path) -> None:
    wall, steady = Clock(), Clock(50.0)
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        wall.s += 3600.0
        wrong = ThroughputHistory(now_s=wall, steady_s=steady)
        with wrong.kept_in(ledger):
            for _ in range(300):
                wrong.delivered(1)
        wall.s -= 3600.0
        right = ThroughputHistory(now_s=wall, steady_s=steady)
        with right.kept_in(ledger):
            for _ in range(90):
                right.delivered(1)
                wall.s += 60.0
                steady.s += 60.0
                assert max(right.spans()["hour"].instances) == 1


def test_the_last_quarter_of_an_hour_goes_on_after_a_restart(tmp_path: Path) -> None:
    path, wall, steady = tmp_path / "state.sqlite3", Clock(), Clock(50.0)
    done = Settled(Move("i", 1), DELIVERED, 1)
    for run in range(3):
        board = Board(path, HealthLimits(), now_s=wall, steady_s=steady)
        with Ledger(path) as ledger, board.kept_in(ledger):
            board.on_event(done)
            for _ in range(20):
                board.on_progress(replace(UP, hold="paused" if run == 0 else ""))
                wall.s += 5.0
                steady.s += 5.0
            told = board.status()["throughput"]
            assert isinstance(told, dict)
            assert (len(told["instances"]), sum(told["instances"])) == (90, run + 1)
            assert sum(told["target_bytes"]) == (run + 1) * DELIVERED.target_bytes
            assert 10 <= told["held"].count("paused") <= 11
        wall.s += 100.0
        steady.s += 700.0  # what the clocks show while none runs does not matter
    wall.s += 400.0
    board = Board(path, HealthLimits(), now_s=wall, steady_s=steady)
    with Ledger(path) as ledger, board.kept_in(ledger):
        board.on_event(done)
        for passed, left in ((0.0, 3), (250.0, 2), (200.0, 1), (900.0, 0)):
            wall.s += passed
            steady.s += passed
            told = board.status()["throughput"]
            assert isinstance(told, dict)
            assert sum(told["instances"]) == left


def test_no_more_than_twice_what_is_shown_is_kept(tmp_path: Path) -> None:
    """However often the clock was set: what is nearest to now stays."""
    wall, steady = Clock(), Clock(50.0)
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        for _ in range(4):
            wall.s += 30 * 86_400.0
            counted = ThroughputHistory(now_s=wall, steady_s=steady)
            with counted.kept_in(ledger):
                for _ in range(100):
                    counted.delivered(1)
                    wall.s += 60.0
                    steady.s += 60.0
        rows = json.loads(ledger.meta(HISTORY_KEY) or "")
    assert {name: len(of) for name, of in rows.items()}["hour"] == 2 * SPANS["hour"][1]
    newest = int(wall.s // 60)
    assert max(map(int, rows["hour"])) == newest - 1
