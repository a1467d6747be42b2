"""Commands beside a running bridge give way to it, and never stand still."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.brake import LOOK_EVERY_S, CourteousBrake, Hold, OperatorsBrake
from bridge.core.model import Reason, Skipped
from bridge.core.pacing import Allowance
from bridge.ledger import Ledger
from bridge.neighbour import MONITOR_KEY, Neighbour, ask
from tests.bridge_process import wait_until
from tests.unit.test_brake import HandClock

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
def running() -> Running:
    return Running()


@pytest.fixture
def neighbour(running: Running) -> Iterator[Neighbour]:
    with Neighbour(running.look, every_s=0.01) as made:
        yield made


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite3")


def brake(ledger: Ledger, neighbour: Neighbour, allowance: Allowance) -> CourteousBrake:
    clock = HandClock()
    inner = OperatorsBrake(allowance, ledger=None, clock=clock)
    return CourteousBrake(inner, neighbour, ledger=ledger, clock=clock)


def test_one_at_a_time_while_the_running_bridge_has_work(
    ledger: Ledger, neighbour: Neighbour, running: Running
) -> None:
    ledger.set_meta(MONITOR_KEY, URL)
    courteous = brake(ledger, neighbour, Allowance())
    assert courteous.hold() is Hold.NONE
    wait_until(lambda: neighbour.busy, "it has looked")
    assert running.asked[0] == URL
    assert courteous.hold() is Hold.NONE, "one may always move"
    courteous.started()
    assert courteous.hold() is Hold.GIVES_WAY
    assert courteous.hold_s() == LOOK_EVERY_S
    courteous.ended(GONE)
    assert courteous.hold() is Hold.NONE
    courteous.started()
    running.answer = {"in_flight": []}
    wait_until(lambda: not neighbour.busy, "it has looked again")
    assert courteous.hold() is Hold.NONE


def test_alone_it_gives_way_to_nobody_and_starts_no_thread(
    ledger: Ledger, neighbour: Neighbour, running: Running
) -> None:
    courteous = brake(ledger, neighbour, Allowance())
    for _ in range(20):
        assert courteous.hold() is Hold.NONE
        courteous.started()
    assert running.asked == []


def test_the_rates_hold_as_well(ledger: Ledger, neighbour: Neighbour) -> None:
    courteous = brake(ledger, neighbour, Allowance(instances_s=1.0))
    for _ in range(10):
        courteous.started()
    assert courteous.hold() is Hold.RATE_LIMIT
    assert courteous.hold_s() > 0


def test_a_bridge_that_does_not_answer_is_none() -> None:
    assert ask(None) is None
    assert ask(URL) is None
