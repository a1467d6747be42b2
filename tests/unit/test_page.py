"""The page's files, its headers, and what it is fed with; tests/browser looks at it."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import httpx
import pytest

from bridge.board import Board
from bridge.core.events import InFlight, InstanceParked, InstanceRetried, Progress, Settled
from bridge.core.health import HealthLimits
from bridge.core.model import (
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
from bridge.health import application
from bridge.ledger import Ledger
from bridge.metrics import Metrics
from bridge.page import PAGE_FILES
from bridge.recent import FAILURES_MAX, INTERVAL_S, INTERVALS, Recent

MOVE = Move("an-instance", 7)
DELIVERED = Delivered("Success", Action.TRANSCODED, "1.2", "1.3", "1.4", 10, 500, StageTimes())


@pytest.fixture
def board(tmp_path: Path) -> Board:
    Ledger(tmp_path / "state.sqlite3").close()
    return Board(tmp_path / "state.sqlite3", HealthLimits())


def get(board: Board, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(application(board, Metrics(board)))
        async with httpx.AsyncClient(transport=transport, base_url="http://bridge") as client:
            return await client.get(path)

    return asyncio.run(ask())


@pytest.mark.parametrize("path", PAGE_FILES)
def test_the_browser_may_run_and_load_only_what_is_here(board: Board, path: str) -> None:
    answer = get(board, path)
    assert answer.status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = dict(
        directive.strip().split(" ", 1)
        for directive in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert set(policy.values()) == {"'none'", "'self'"}, "nothing inline, nothing from elsewhere"


def test_the_page_has_no_inline_code_and_only_relative_addresses() -> None:
    html = PAGE_FILES["/"][1]
    assert re.findall(r"<style|<script>|\sstyle=|\son\w+=|javascript:", html) == []
    links = re.findall(r'(?:href|src)="([^"]*)"', html)
    assert len(links) > 5
    assert [link for link in links if link.startswith("/") or ":" in link] == []
    script = PAGE_FILES["/page.js"][1]
    assert re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script) == []
    assert re.findall(r'fetch\("([^"]*)"', script) == ["api/status"]
    assert "url(" not in PAGE_FILES["/page.css"][1]


def test_every_identifier_that_the_script_names_is_in_the_page() -> None:
    html, script = PAGE_FILES["/"][1], PAGE_FILES["/page.js"][1]
    named = set(re.findall(r'(?:byId|write|list|station)\("([\w-]+)"', script))
    assert len(named) > 8
    for name in named:
        assert f'id="{name}"' in html, name


def test_what_the_page_is_fed_with(board: Board) -> None:
    board.on_event(Settled(MOVE, DELIVERED, 1))
    board.on_event(InstanceParked(MOVE, Reason.UNDECODABLE, "quoted patient data?", 2))
    flights = tuple(InFlight(f"i{n}", n, 100.0 - n, 1) for n in range(3))
    board.on_progress(Progress(in_flight=flights, phase="following", last_progress_at=time.time()))
    answer = get(board, "/api/status")
    status = answer.json()
    assert status["headline"].startswith("All is well")
    assert sum(status["throughput"]["instances"]) == 1
    assert [f["instance"] for f in status["in_flight"]] == ["i2", "i1", "i0"], "the oldest first"
    (failure,) = status["failures"]
    assert (failure["what"], failure["reason"], failure["sequence"]) == ("parked", "undecodable", 7)
    assert "patient" not in answer.text, "identifiers and reasons only"
    assert status["versions"]["imagecodecs"]
    assert "throughput" not in get(board, "/health").json()


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def test_throughput_goes_back_a_quarter_of_an_hour() -> None:
    clock = Clock()
    recent = Recent(now_s=clock, steady_s=clock)
    recent.on_event(Settled(MOVE, DELIVERED, 1))
    recent.on_event(Settled(MOVE, Skipped(Reason.GONE), 1))
    clock.s += INTERVAL_S
    recent.on_event(Settled(MOVE, DELIVERED, 1))
    recent.on_event(Settled(MOVE, DELIVERED, 1))
    found = recent.throughput()
    assert found.instances[-3:] == (0, 1, 2)
    assert found.target_bytes[-2:] == (500, 1000)
    clock.s += INTERVAL_S * (INTERVALS - 2)
    assert recent.throughput().instances[:3] == (1, 2, 0)
    clock.s += INTERVAL_S * INTERVALS * 1000
    found = recent.throughput()
    assert (len(found.instances), sum(found.instances)) == (INTERVALS, 0)


def test_failures_are_the_last_ones_and_outages_are_none() -> None:
    recent = Recent()
    down = SideFailed(SideName.TARGET, SideProblem.UNREACHABLE, "gone")
    recent.on_event(InstanceRetried(MOVE, down, 0, 1.0))
    assert recent.failures() == ()
    for number in range(FAILURES_MAX + 5):
        failed = InstanceFailed(Reason.TIMED_OUT, "slow")
        recent.on_event(InstanceRetried(Move(f"i{number}"), failed, 1, 1.0))
    failures = recent.failures()
    assert len(failures) == FAILURES_MAX
    assert failures[0].instance_id == f"i{FAILURES_MAX + 4}"
    assert {failure.what for failure in failures} == {"retried"}
