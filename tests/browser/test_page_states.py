"""The page in states that are hard to bring about: full of work, hostile, held, in trouble."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.board import Board
from bridge.core.events import InFlight, InstanceParked, Progress, SideView
from bridge.core.health import HealthLimits
from bridge.core.model import Move, Reason
from bridge.core.pacing import Allowance
from bridge.entry import Entry, Parked
from bridge.health import MonitoringServer, application
from bridge.ledger import Ledger
from bridge.metrics import Metrics
from tests.browser.chromium import Browser, Page
from tests.browser.conftest import Photographer

Showing = Callable[[Progress], Page]
HOSTILE = "<img src=x onerror=\"document.title='taken over'\"><script>alert(1)</script>"
WELL = Progress(
    checkpoint=123_456,
    last=123_456,
    caught_up=True,
    phase="following",
)
"""As of no moment: whoever shows it sets the two times."""


def busy(count: int) -> Progress:
    now = time.time()
    flights = tuple(
        InFlight(
            f"{n:08x}-92e4bb83-c8ec1f4a-b1f1f41b-9da4f7fa", 123_457 + n, now - 5 * n, 1 + n % 3
        )
        for n in range(count)
    )
    date = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now - 7500))
    return replace(
        WELL,
        last=2_000_000,
        caught_up=False,
        oldest_open=123_457,
        oldest_changed_at=date,
        waiting=98_765,
        in_flight=flights,
        last_progress_at=now,
        feed_read_at=now,
    )


@pytest.fixture
def board(tmp_path: Path) -> Board:
    Ledger(tmp_path / "state.sqlite3").close()
    return Board(tmp_path / "state.sqlite3", HealthLimits())


@pytest.fixture
def showing(board: Board, browser: Browser) -> Iterator[Showing]:
    """Serve the board with that progress and open the page."""
    server = MonitoringServer(application(board, Metrics(board)), host="127.0.0.1", port=0)
    server.start()
    with browser.page() as page:

        def show(progress: Progress) -> Page:
            board.on_progress(progress)
            page.go(f"{server.url}/")
            page.wait("document.getElementById('versions')?.textContent")
            return page

        yield show
        assert page.errors == []
    server.stop()


def test_full_of_work(showing: Showing, photograph: Photographer) -> None:
    page = showing(busy(50))
    assert page.text("#verdict") == (
        "All is well: 1,876,544 changes to go, the oldest 2 h 5 min old."
    )
    rows = page.ask("[...document.querySelectorAll('#flight tr')].map((r) => r.innerText)")
    assert len(rows) == 10
    assert rows[0].split()[1].startswith("00000031-"), "the oldest first"
    assert rows[0].split()[0] == "123,506"
    assert page.text("#flight-more") == "and 40 younger ones"
    assert page.text("#figures").startswith("Lag 1,876,544 changes Oldest of them 2 h 5 min")
    photograph(page, "busy")


def test_what_a_server_says_cannot_become_markup(
    showing: Showing, board: Board, photograph: Photographer
) -> None:
    down = SideView(False, problem=HOSTILE, message=HOSTILE, advice=HOSTILE, down_since=1.0)
    board.on_event(InstanceParked(Move(HOSTILE, 1), Reason.INTERNAL, HOSTILE, 1))
    flight = (InFlight(HOSTILE, None, time.time(), 1),)
    page = showing(replace(busy(0), source=down, in_flight=flight, phase=HOSTILE))
    assert HOSTILE in page.ask("document.getElementById('verdict').textContent")
    assert page.ask("document.querySelectorAll('img, script:not([src])').length") == 0
    assert "taken over" not in page.ask("document.title")
    photograph(page, "hostile")


@pytest.mark.parametrize(
    ("hold", "shown"), [("quiet_hours", "quiet hours"), ("rate_limit", "at its rate limit")]
)
def test_held_on_purpose(showing: Showing, hold: str, shown: str) -> None:
    page = showing(replace(busy(0), hold=hold))
    assert page.text("#bridge .state") == f"{shown} (following)"
    assert page.text("#verdict").startswith("All is well: ")
    assert not page.ask("document.querySelector('#bridge .state').classList.contains('bad')")


def test_limits_are_told(tmp_path: Path, browser: Browser) -> None:
    Ledger(tmp_path / "state.sqlite3").close()
    allowance = Allowance(instances_s=2.5, mbit_s=80.0, quiet_hours="sat 01:00-02:00 UTC")
    board = Board(tmp_path / "state.sqlite3", HealthLimits(), allowance)
    server = MonitoringServer(application(board, Metrics(board)), host="127.0.0.1", port=0)
    server.start()
    with browser.page() as page:
        page.go(f"{server.url}/")
        page.wait_text("#bridge .detail", "At most 2.5 instances and 80 Mbit a second.")
        assert page.text("#bridge .detail").endswith("Quiet hours: sat 01:00-02:00 UTC.")
    server.stop()


def test_several_troubles_are_all_told(showing: Showing, tmp_path: Path) -> None:
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        parked = Parked(Move("i"), Reason.TIMED_OUT, "no", 1, 1.0, 1.0)
        ledger.commit(Entry(parked=(parked,)))
    down = SideView(False, problem="storage_full", message="It says 507.", down_since=time.time())
    page = showing(replace(busy(3), target=down, state_error="The disk is full."))
    assert page.text("#verdict").startswith("Attention (2 more below): It says 507. Make room")
    codes = page.ask("[...document.querySelectorAll('#reasons code')].map((c) => c.textContent)")
    assert codes == ["target_storage_full", "state_unwritable", "parked"]
    assert page.text("#bridge .state") == "in trouble (following)"
    assert page.text("#target .state").endswith(": storage full")
    assert page.text("#parked code.command") == "orthanc-bridge parked retry --reason timed_out"


def test_the_page_is_a_document_for_those_who_do_not_see_it(showing: Showing) -> None:
    page = showing(busy(2))
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if "role" in n]
    assert [role for role, _ in roles if role in {"banner", "main", "contentinfo"}] == [
        "banner",
        "main",
        "contentinfo",
    ]
    regions = [name for role, name in roles if role == "region"]
    assert regions == [
        "From source to target",
        "Delivered in the last 15 minutes",
        "Parked",
        "In flight",
        "Last failures",
    ]
    (chart,) = [name for role, name in roles if role in {"image", "img"}]
    assert chart == "No instance was delivered."
    assert [role for role, _ in roles].count("status") == 1
    headers = [name for role, name in roles if role == "columnheader"]
    assert headers[-5:] == ["Change", "Instance", "Stage", "Attempt", "Age"]
