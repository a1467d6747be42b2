"""The page's files, its headers, and what it is fed with; tests/browser looks at it."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from bridge.events import (
    Event,
    FeedDoubted,
    FeedReset,
    FeedTrusted,
    InFlight,
    InstanceParked,
    InstanceRetried,
    Progress,
    Settled,
    SideDown,
    SideUp,
    SideView,
    StateFailed,
    StateRecovered,
    SweepFailed,
    SweepWorks,
)
from bridge.ledger.records import Entry, Parked
from bridge.ledger.store import Ledger
from bridge.model import (
    Action,
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    Move,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    StageTimes,
)
from bridge.monitoring.board import FAILURES_MAX, INTERVAL_S, INTERVALS, Board, Recent
from bridge.monitoring.health import HealthLimits
from bridge.monitoring.metrics import Metrics
from bridge.monitoring.names import BridgeNames
from bridge.monitoring.page_files import PAGE_FILES
from bridge.monitoring.server import application

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
    scripts = {path: text for path, (_, text) in PAGE_FILES.items() if path.endswith(".js")}
    assert len(scripts) == 4
    script = "".join(scripts.values())
    assert re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script) == []
    assert re.findall(r'fetch\("([^"]*)"', script) == ["api/throughput", "api/status"]
    assert re.findall(r"document\.cookie|(?:local|session)Storage", script) == []
    assert "url(" not in PAGE_FILES["/page.css"][1]


def test_every_identifier_that_the_script_names_is_in_the_page() -> None:
    html, script = PAGE_FILES["/"][1], PAGE_FILES["/page.js"][1]
    named = set(re.findall(r'(?:byId|write|list|fill|station)\("([\w-]+)"', script))
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


def test_failures_are_the_last_ones() -> None:
    recent = Recent()
    for number in range(FAILURES_MAX + 5):
        failed = InstanceFailed(Reason.TIMED_OUT, "slow")
        recent.on_event(InstanceRetried(Move(f"i{number}"), failed, 1, 1.0))
    failures = recent.failures()
    assert len(failures) == FAILURES_MAX
    assert failures[0].instance_id == f"i{FAILURES_MAX + 4}"
    assert {failure.what for failure in failures} == {"retried"}


SOURCE_DOWN = SideFailed(SideName.SOURCE, SideProblem.TIMED_OUT, "slow")
TARGET_DOWN = SideFailed(SideName.TARGET, SideProblem.UNREACHABLE, "gone")
OUTAGES: list[tuple[str, Event, Event | None]] = [
    ("source_timed_out", SideDown(SOURCE_DOWN), SideUp(SideName.SOURCE, 9.0)),
    ("target_unreachable", SideDown(TARGET_DOWN), SideUp(SideName.TARGET, 9.0)),
    ("state_unwritable", StateFailed("full"), StateRecovered()),
    ("retention_failing", SweepFailed("no"), SweepWorks()),
    ("feed_went_backwards", FeedReset("another"), None),
    ("feed_in_doubt", FeedDoubted("another"), FeedTrusted()),
]


@pytest.mark.parametrize(("code", "begins", "ends"), OUTAGES)
def test_an_outage_is_a_failure_and_tells_how_long_it_lasted(
    code: str, begins: Event, ends: Event | None
) -> None:
    clock = Clock()
    recent = Recent(now_s=clock, steady_s=clock)
    for _ in range(2):
        recent.on_event(begins)
        clock.s += 7.0
        if ends is not None:
            recent.on_event(ends)
            recent.on_event(ends)
    told = [(one.what, one.reason, one.instance_id, one.lasted_s) for one in recent.failures()]
    assert told == [("outage", code, "", 7.0 if ends else None)] * 2


def test_two_outages_at_once_and_one_that_goes_on_are_kept_apart() -> None:
    clock = Clock()
    recent = Recent(now_s=clock, steady_s=clock)
    recent.on_event(SideDown(SOURCE_DOWN))
    clock.s += 1.0
    recent.on_event(SideDown(TARGET_DOWN))
    recent.on_event(StateFailed("full"))
    clock.s += 1.0
    recent.on_event(SideUp(SideName.TARGET, 1.0))
    recent.on_event(SweepFailed("no"))
    recent.on_event(SweepFailed("no"))
    assert [(one.reason, one.lasted_s) for one in recent.failures()] == [
        ("retention_failing", None),
        ("state_unwritable", None),
        ("target_unreachable", 1.0),
        ("source_timed_out", None),
    ]


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (TARGET_DOWN, "target_unreachable"),
        (ExecutorFailed("no room"), "workers_failing"),
        (InstanceFailed(Reason.TIMED_OUT, "slow"), "timed_out"),
    ],
)
def test_whatever_is_tried_again_is_told(outcome: Outcome, reason: str) -> None:
    recent = Recent()
    recent.on_event(InstanceRetried(MOVE, outcome, 0, 1.0))
    assert [(one.what, one.reason) for one in recent.failures()] == [("retried", reason)]


def test_what_the_backlog_did_and_what_held_it() -> None:
    clock = Clock()
    recent = Recent(now_s=clock, steady_s=clock)
    going = Progress(checkpoint=100, last=1000, phase="following")
    down = SideView(up=False, problem="unreachable")
    reports = [
        [going],
        [replace(going, checkpoint=150, last=1020)],
        # What is behind the last instance is rows of other types: caught up, nothing is to go.
        [replace(going, checkpoint=1010, last=1020, caught_up=True)],
        [
            replace(going, checkpoint=1010, last=1100),
            replace(going, checkpoint=1010, last=1100, hold="paused"),
        ],
        [],
        [replace(going, checkpoint=1010, last=1100, target=down)],
        [replace(going, checkpoint=1100, last=1100, hold="rate_limit", caught_up=True)],
        [],
    ]
    for told in reports:
        for progress in told:
            recent.on_progress(progress)
        clock.s += INTERVAL_S
    assert [(step.done, step.new) for step in recent.steps()[-8:]] == [
        (0, 0), (50, 20), (870, 0), (0, 80), (0, 0), (0, 0), (90, 0), (0, 0),
    ]  # fmt: skip
    # One that begins in an outage was held too, though the first report of it tells of its end.
    assert recent.throughput().held[-10:] == (
        "not_running", "", "", "", "paused", "paused", "target_down", "target_down", "", "",
    )  # fmt: skip
    able = [step.able for step in recent.steps()]
    assert able == [not held for held in recent.throughput().held[:-1]]


def test_the_page_is_told_which_bridge_it_is_and_what_to_type(tmp_path: Path) -> None:
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        for number in range(12):
            one = Parked(Move(f"i{number}", number), Reason.TIMED_OUT, "slow", 1, 1.0, 2.0 + number)
            ledger.commit(Entry(parked=(one,)))
        other = Parked(Move("other", 99), Reason.VIDEO, "video", 1, 1.0, 7.5)
        ledger.commit(Entry(parked=(other,)))
    names = BridgeNames("Ward 7", "http://s", "http://t", "http://ps", "", "docker exec b")
    board = Board(tmp_path / "state.sqlite3", HealthLimits(), names=names)
    status = get(board, "/api/status").json()
    assert (status["name"], status["standing"]) == ("Ward 7", "needs_person")
    assert (status["source"]["url"], status["target"]["url"]) == ("http://s", "http://t")
    assert status["public_urls"] == {"source": "http://ps", "target": ""}
    newest = [one["instance"] for one in status["parked_newest"]]
    assert newest == ["i11", "i10", "i9", "i8", "i7", "i6", "other", "i5", "i4", "i3"]
    advice = {reason["code"]: reason["advice"] for reason in status["reasons"]}
    assert advice["parked"] == "To see why: docker exec b orthanc-bridge parked list."
    metrics = Metrics(board).render().decode()
    info = 'orthanc_bridge_bridge_info{name="Ward 7",source="http://s",target="http://t"} 1.0'
    assert info in metrics
    assert 'orthanc_bridge_standing{standing="needs_person"} 1.0' in metrics
    assert 'orthanc_bridge_standing{standing="well"} 0.0' in metrics


def test_the_time_left_is_told_while_work_goes_on_only(tmp_path: Path) -> None:
    Ledger(tmp_path / "state.sqlite3").close()
    clock = Clock()
    board = Board(tmp_path / "state.sqlite3", HealthLimits(), steady_s=clock)
    going = Progress(checkpoint=0, last=1000, phase="following", last_progress_at=time.time())
    for turn in range(4):
        board.on_progress(replace(going, checkpoint=100 * turn))
        clock.s += INTERVAL_S
    assert get(board, "/health").json()["time_left"] == {"from_s": 93.3, "to_s": 93.3}
    assert "about 2 min left" in get(board, "/health").json()["headline"]
    for held in (replace(going, hold="paused"), replace(going, phase="snapshot")):
        board.on_progress(replace(held, checkpoint=300))
        assert get(board, "/health").json()["time_left"] is None
