from __future__ import annotations

from pathlib import Path

import pytest

from bridge.ledger.store import Ledger
from bridge.model import Action, Delivered, StageTimes
from bridge.pipeline.holds import LOOK_EVERY_S, PAUSED_KEY, Hold, OperatorThrottle
from bridge.pipeline.pacing import Allowance, parse_schedule

NOON = 1_795_348_800.0  # 2026-11-22T12:00:00Z, a Sunday


class HandClock:
    def __init__(self) -> None:
        self.s = 0.0

    def now_s(self) -> float:
        return NOON + self.s

    def steady_s(self) -> float:
        return self.s


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite3")


def _delivered(size: int) -> Delivered:
    return Delivered("Success", Action.UNCHANGED, "", "", "", size, size, StageTimes())


def test_a_pause_is_obeyed_within_a_second_and_survives_a_restart(ledger: Ledger) -> None:
    clock = HandClock()
    throttle = OperatorThrottle(Allowance(), ledger=ledger, clock=clock)
    assert throttle.hold() is Hold.NONE
    with Ledger(ledger.path) as another_process:
        another_process.set_meta(PAUSED_KEY, "1")
    clock.s += LOOK_EVERY_S
    assert throttle.hold() is Hold.PAUSED
    assert 0 < throttle.hold_s() <= LOOK_EVERY_S
    assert OperatorThrottle(Allowance(), ledger=ledger, clock=clock).hold() is Hold.PAUSED
    ledger.set_meta(PAUSED_KEY, None)
    clock.s += LOOK_EVERY_S
    assert throttle.hold() is Hold.NONE


def test_quiet_hours_begin_and_end(ledger: Ledger) -> None:
    clock = HandClock()
    allowance = Allowance(schedule=parse_schedule("sun 12:30-13:00"))
    throttle = OperatorThrottle(allowance, ledger=ledger, clock=clock)
    seen = []
    for minute in (0, 29, 30, 59, 60):
        clock.s = 60.0 * minute
        seen.append(throttle.hold())
    quiet = Hold.QUIET_HOURS
    assert seen == [Hold.NONE, Hold.NONE, quiet, quiet, Hold.NONE]


def test_what_a_person_started_is_not_held_by_pause_or_quiet_hours(ledger: Ledger) -> None:
    ledger.set_meta(PAUSED_KEY, "1")
    allowance = Allowance(schedule=parse_schedule("00:00-24:00"))
    throttle = OperatorThrottle(allowance, ledger=None, clock=HandClock())
    assert throttle.hold() is Hold.NONE


def test_the_rates_hold_for_everybody() -> None:
    clock = HandClock()
    throttle = OperatorThrottle(Allowance(instances_s=2, mbit_s=8), ledger=None, clock=clock)
    for _ in range(2):
        assert throttle.hold() is Hold.NONE
        throttle.started()
    assert throttle.hold() is Hold.RATE_LIMIT
    assert throttle.hold_s() == pytest.approx(0.0, abs=0.6)
    clock.s = 10.0
    assert throttle.hold() is Hold.NONE
    # 2 x 1.5 MB are 24 Mbit: at 8 a second that is two seconds of debt.
    throttle.ended(_delivered(1_500_000))
    assert throttle.hold() is Hold.RATE_LIMIT
    assert throttle.hold_s() == pytest.approx(2.0, abs=0.01)
