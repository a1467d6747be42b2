"""The throughput of an hour, a day and a month: counted, bounded, and kept over restarts."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from bridge.ledger.store import CELL_CHARACTERS_MAX, Ledger
from bridge.monitoring.throughput_history import (
    HISTORY_KEY,
    REPORT_GAP_S,
    SAVE_EVERY_S,
    SPANS,
    ThroughputHistory,
)


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
        "hour": 0, "day": 3, "month": 3,
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


def test_a_clock_that_was_set_leaves_nothing_behind() -> None:
    clock = Clock()
    counted = history(clock)
    counted.delivered(1)
    clock.s -= 365 * 86_400.0
    counted.delivered(1)
    assert sum(counted.spans()["month"].instances) == 1
    clock.s += 365 * 86_400.0
    assert sum(counted.spans()["month"].instances) == 0
