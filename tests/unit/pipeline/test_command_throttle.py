"""Commands beside a running bridge give way to it, and never stand still."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.ledger.store import Ledger
from bridge.model import Reason, Skipped
from bridge.monitoring.ask_running_bridge import AskedBridge, ask_running
from bridge.pipeline.holds import (
    LOOK_EVERY_S,
    MONITOR_KEY,
    CommandThrottle,
    Hold,
    OperatorThrottle,
)
from bridge.pipeline.pacing import Allowance
from tests.bridge_process import wait_until
from tests.unit.pipeline.test_holds import HandClock

URL = "http://127.0.0.1:1"
GONE = Skipped(Reason.GONE, "")


class Running:
    """A running bridge that says what the test wants."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] | None = {"in_flight": [{"sequence": 7}]}
        self.asked: list[str | None] = []

    def look(self, url: str | None) -> dict[str, Any] | None:
        self.asked.append(url)
        return self.answer


@pytest.fixture
def told() -> Running:
    return Running()


@pytest.fixture
def running(told: Running) -> Iterator[AskedBridge]:
    with AskedBridge(told.look, every_s=0.01) as made:
        yield made


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite3")


def throttle(ledger: Ledger, running: AskedBridge, allowance: Allowance) -> CommandThrottle:
    clock = HandClock()
    inner = OperatorThrottle(allowance, ledger=None, clock=clock)
    return CommandThrottle(inner, running, ledger=ledger, clock=clock)


def test_one_at_a_time_while_the_running_bridge_has_work(
    ledger: Ledger, running: AskedBridge, told: Running
) -> None:
    ledger.set_meta(MONITOR_KEY, URL)
    courteous = throttle(ledger, running, Allowance())
    assert courteous.hold() is Hold.NONE
    wait_until(lambda: running.busy, "it has looked")
    assert told.asked[0] == URL
    assert courteous.hold() is Hold.NONE, "one may always move"
    courteous.started()
    assert courteous.hold() is Hold.GIVES_WAY
    assert courteous.hold_s() == LOOK_EVERY_S
    courteous.ended(GONE)
    assert courteous.hold() is Hold.NONE
    courteous.started()
    told.answer = {"in_flight": []}
    wait_until(lambda: not running.busy, "it has looked again")
    assert courteous.hold() is Hold.NONE


def test_alone_it_gives_way_to_nobody_and_starts_no_thread(
    ledger: Ledger, running: AskedBridge, told: Running
) -> None:
    courteous = throttle(ledger, running, Allowance())
    for _ in range(20):
        assert courteous.hold() is Hold.NONE
        courteous.started()
    assert told.asked == []


def test_the_rates_hold_as_well(ledger: Ledger, running: AskedBridge) -> None:
    courteous = throttle(ledger, running, Allowance(instances_s=1.0))
    for _ in range(10):
        courteous.started()
    assert courteous.hold() is Hold.RATE_LIMIT
    assert courteous.hold_s() > 0


def test_a_bridge_that_does_not_answer_is_none() -> None:
    assert ask_running(None) is None
    assert ask_running(URL) is None
