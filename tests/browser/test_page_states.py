"""The page in states that are hard to bring about: full of work, hostile, held, in trouble."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.events import InFlight, InstanceParked, Progress, SideView, Workforce
from bridge.ledger.records import Entry, Parked
from bridge.ledger.store import Ledger
from bridge.model import Move, Reason
from bridge.monitoring.board import NOT_CONTACTED, Board
from bridge.monitoring.health import HealthLimits
from bridge.monitoring.metrics import Metrics
from bridge.monitoring.names import BridgeNames
from bridge.monitoring.server import MonitoringServer, application
from bridge.pipeline.pacing import Allowance
from tests.browser.chromium import Browser, Page
from tests.browser.conftest import Photographer

Showing = Callable[[Progress], Page]
CLASSES = "['ok', 'bad'].map((one) => document.getElementById('verdict').classList.contains(one))"
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
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
        "Working on it: 1,876,544 changes to go, the oldest 2 h 5 min old."
    )
    assert page.ask("document.title").startswith("… ")
    rows = page.ask("[...document.querySelectorAll('#flight tr')].map((r) => r.innerText)")
    assert len(rows) == 10, "and none of the two that are under way for less than 10 s"
    assert rows[0].split()[1].startswith("00000031-"), "the oldest first"
    assert rows[0].split()[0] == "123,506"
    assert page.text("#flight-more") == "and 38 more"
    assert page.text("#figures").startswith("Lag 1,876,544 changes Oldest change 2 h 5 min")
    photograph(page, "busy")


@pytest.mark.parametrize(
    ("most", "told"), [(32, "At once 14 transfers (at most 32)"), (0, "At once 14 transfers")]
)
def test_it_says_how_many_transfers_were_found(showing: Showing, most: int, told: str) -> None:
    found = Workforce(threads=14, workers=4, threads_max=most)
    figures = showing(replace(busy(3), workforce=found)).text("#figures")
    assert f"{told} Parked" in figures


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
    ("hold", "shown"), [("quiet_hours", "quiet hours"), ("rate_limit", "at the rate limit")]
)
def test_held_on_purpose(showing: Showing, hold: str, shown: str) -> None:
    page = showing(replace(busy(0), hold=hold))
    assert page.text("#bridge .state") == f"{shown} (following)"
    lead = {"quiet_hours": "Quiet hours (BRIDGE_SCHEDULE): ", "rate_limit": "Working on it: "}
    assert page.text("#verdict").startswith(lead[hold])
    assert not page.ask("document.querySelector('#bridge .state').classList.contains('bad')")


def test_limited(tmp_path: Path, browser: Browser, photograph: Photographer) -> None:
    """The rate is what somebody wanted: working, not in trouble, and the page says how fast."""
    Ledger(tmp_path / "state.sqlite3").close()
    allowance = Allowance(instances_s=2.5, mbit_s=80.0, quiet_hours="sat 01:00-02:00 UTC")
    board = Board(tmp_path / "state.sqlite3", HealthLimits(), allowance)
    board.on_progress(replace(busy(0), hold="rate_limit"))
    server = MonitoringServer(application(board, Metrics(board)), host="127.0.0.1", port=0)
    server.start()
    with browser.page(width=375, height=740) as page:
        page.go(f"{server.url}/")
        page.wait_text("#bridge .detail", "At most 2.5 instances/s and 80 Mbit/s.")
        assert page.text("#bridge .detail").endswith("Quiet hours: sat 01:00-02:00 UTC.")
        verdict = page.text("#verdict")
        assert verdict.startswith("Working on it: 1,876,544 changes to go")
        assert verdict.endswith("limited to 2.5 instances/s and 80 Mbit/s.")
        assert page.ask(CLASSES) == [False, False], "neither well nor in trouble"
        assert page.ask("document.title").startswith("… ")
        assert page.ask("document.getElementById('reasons').hidden")
        assert page.ask(FITS), "nothing reaches beyond the window"
        photograph(page, "limited")
        assert page.errors == []
    server.stop()


@pytest.mark.parametrize("side", ["source", "target"])
def test_down(showing: Showing, photograph: Photographer, side: str) -> None:
    """One server cannot be used: red, which one, for how long, what to do, and nothing is lost."""
    down = SideView(
        up=False,
        problem="unreachable",
        message=f"The {side} does not answer.",
        down_since=time.time() - 7200,
    )
    other = {"source": "target", "target": "source"}[side]
    progress = replace(busy(0), source=down) if side == "source" else replace(busy(0), target=down)
    page = showing(progress)
    verdict = page.text("#verdict")
    assert verdict.startswith(f"Attention: The {side} does not answer. Start that server or fix")
    assert verdict.endswith("Nothing is lost; the bridge resumes automatically.")
    assert page.ask(CLASSES) == [False, True]
    assert page.ask("document.title").startswith("! ")
    assert page.text(f"#{side} .state").startswith("down for 2 h")
    assert page.text(f"#{other} .state") == "up"
    codes = page.ask("[...document.querySelectorAll('#reasons code')].map((c) => c.textContent)")
    assert codes == [f"{side}_unreachable"]
    assert page.text("#figures").startswith("Lag 1,876,544 changes"), "what waits is still told"
    photograph(page, f"down-{side}")


def test_just_started_is_nothing_wrong(showing: Showing, photograph: Photographer) -> None:
    """Neither server was asked yet: the colour, the words and the list say the same."""
    page = showing(NOT_CONTACTED)
    assert page.text("#verdict") == (
        "The bridge is starting: it has not asked the source and the target yet."
    )
    assert page.ask(CLASSES) == [False, False]
    assert page.ask("document.title").startswith("… ")
    assert page.ask("document.getElementById('reasons').hidden")
    bad = "[...document.querySelectorAll('.bad')].map((one) => one.textContent)"
    assert page.ask(bad) == []
    photograph(page, "started")


def test_several_troubles_are_all_told(showing: Showing, tmp_path: Path) -> None:
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        parked = Parked(Move("i"), Reason.TIMED_OUT, "no", 1, 1.0, 1.0)
        ledger.commit(Entry(parked=(parked,)))
    down = SideView(False, problem="storage_full", message="It says 507.", down_since=time.time())
    page = showing(replace(busy(3), target=down, state_error="The disk is full."))
    assert page.text("#verdict").startswith("Attention (2 more below): It says 507. Free storage")
    codes = page.ask("[...document.querySelectorAll('#reasons code')].map((c) => c.textContent)")
    assert codes == ["target_storage_full", "state_unwritable", "parked"]
    assert page.text("#bridge .state") == "in trouble (following)"
    assert page.text("#target .state").endswith(": storage full")
    assert page.text("#parked code.command") == "orthanc-bridge parked retry --reason timed_out"
    assert page.text("#parked-last td[data-label=Why]") == "timed_out: no"
    assert page.text("#parked-last code.command") == "orthanc-bridge parked show i"


def test_the_page_is_a_document_for_those_who_do_not_see_it(showing: Showing) -> None:
    page = showing(busy(5))
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
        "In progress for a long time",
        "Delivered",
        "Last failures",
    ]
    (chart,) = [name for role, name in roles if role in {"image", "img"}]
    assert chart == "No instance was delivered."
    assert [role for role, _ in roles].count("status") == 1
    headers = [name for role, name in roles if role == "columnheader"]
    assert headers == ["Change", "Instance", "Stage", "Attempt", "Age"]


COLOUR = "getComputedStyle(document.getElementById('verdict')).getPropertyValue('--tone')"


def test_three_colours_and_never_well_while_paused(showing: Showing, tmp_path: Path) -> None:
    page = showing(replace(WELL, last_progress_at=time.time(), feed_read_at=time.time()))
    page.wait_text("#verdict", "All is well")
    seen = {page.ask(COLOUR)}
    page = showing(replace(busy(0), hold="paused"))
    page.wait_text("#verdict", "Paused by an operator: 1,876,544 changes to go")
    assert page.text("#command code") == "orthanc-bridge resume"
    seen.add(page.ask(COLOUR))
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        ledger.commit(Entry(parked=(Parked(Move("i"), Reason.TIMED_OUT, "no", 1, 1.0, 1.0),)))
    page.wait_text("#verdict", "Attention: 1 instance is parked.")
    assert page.text("#command code") == "orthanc-bridge parked list"
    seen.add(page.ask(COLOUR))
    assert len(seen) == 3


NAMES = BridgeNames(
    bridge="Ward <b>7",
    source_url="http://source:8042",
    target_url="https://target/dicom",
    source_public_url="https://pacs.example/source",
    command_prefix="docker compose exec bridge",
)


def test_which_bridge_it_is_what_to_do_first_and_how(
    tmp_path: Path, browser: Browser, photograph: Photographer
) -> None:
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        many = [
            Parked(Move(f"i{n:02}"), Reason.TIMED_OUT, "too slow", 1, 1.0, n) for n in range(12)
        ]
        ledger.commit(Entry(parked=tuple(many)))
    board = Board(tmp_path / "state.sqlite3", HealthLimits(), names=NAMES)
    board.on_progress(busy(5))
    server = MonitoringServer(application(board, Metrics(board)), host="127.0.0.1", port=0)
    server.start()
    with browser.page(width=375, height=740) as page:
        page.go(f"{server.url}/")
        page.wait_text("#verdict", "Attention: 12 instances are parked.")
        assert page.ask("document.title") == "! Ward <b>7 · orthanc-bridge"
        assert page.text("#source .address") == "http://source:8042"
        assert page.text("#target .address") == "https://target/dicom"
        shown = ["#verdict", "#command", "#parked-title", "#figures", "#flow", "#flight-title",
                 "#chart", "#failures-title"]  # fmt: skip
        tops = [page.ask(f"document.querySelector('{one}').getBoundingClientRect().top")
                for one in shown]  # fmt: skip
        assert tops == sorted(tops), "what needs a person comes before progress and the rest"
        newest = "[...document.querySelectorAll('#parked-last td[data-label=Instance]')]"
        assert page.ask(f"{newest}.map((cell) => cell.innerText)") == [
            f"i{n:02}" for n in range(11, 1, -1)
        ]
        more = "and 2 more: docker compose exec bridge orthanc-bridge parked list"
        assert page.text("#parked-more") == more
        assert page.ask("document.querySelector('#parked-last a').href") == (
            "https://pacs.example/source/app/explorer.html#instance?uuid=i11"
        )
        # What has the focus stays, however often the page is updated.
        page.ask("document.querySelector('#parked .copy').focus()")
        page.ask("window.pressed = document.activeElement; null")
        before = len([url for url in page.requests if url.endswith("/api/status")])
        until = time.monotonic() + 30
        while len([url for url in page.requests if url.endswith("/api/status")]) < before + 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert page.ask("document.activeElement === window.pressed && window.pressed.isConnected")
        page.ask("navigator.clipboard.writeText = (text) => { window.copied = text; }; null")
        page.ask("window.pressed.click()")
        page.wait_text("#parked .copy", "Copied")
        assert page.ask("window.copied") == (
            "docker compose exec bridge orthanc-bridge parked retry --reason timed_out"
        )
        photograph(page, "named")
        assert page.errors == []
    server.stop()


def test_a_pause_is_marked_where_the_throughput_is(showing: Showing) -> None:
    page = showing(replace(busy(0), hold="paused"))
    page.wait("document.querySelectorAll('#chart rect[data-held=paused]').length === 1")
    assert page.text("#chart-text").endswith("Stripe at the top: paused for 10 s.")


def test_the_last_quarter_of_an_hour_is_there_after_a_restart(
    tmp_path: Path, browser: Browser
) -> None:
    path, began = tmp_path / "state.sqlite3", time.time() - 300.0
    before = Board(path, HealthLimits(), now_s=lambda: began, steady_s=lambda: 50.0)
    with Ledger(path) as ledger, before.kept_in(ledger):
        for _ in range(7):
            before.history.delivered(1_000_000)
    board = Board(path, HealthLimits())
    with Ledger(path) as ledger, board.kept_in(ledger):
        board.on_progress(replace(WELL, last_progress_at=time.time(), feed_read_at=time.time()))
        server = MonitoringServer(application(board, Metrics(board)), host="127.0.0.1", port=0)
        server.start()
        with browser.page() as page:
            page.go(f"{server.url}/")
            page.wait_text("#chart-text", "7 instances, 7.0 MB in all; 0 in the last full minute.")
            assert "since the start" not in page.text("#chart-text")
            counts = "[...document.querySelectorAll('#chart rect[data-count]')]"
            bars = page.ask(f"{counts}.map((bar) => Number(bar.dataset.count))")
            assert (len(bars), max(bars), sum(bars)) == (90, 7, 7)
            assert bars.index(7) in range(56, 61), "five minutes ago"
            assert page.errors == []
        server.stop()


def test_the_throughput_of_longer_spans_with_what_held_it(
    showing: Showing, board: Board, photograph: Photographer
) -> None:
    for _ in range(7):
        board.history.delivered(1_000_000)
    board.history.reported("paused")
    page = showing(replace(busy(0), hold="paused"))
    page.ask(
        "document.getElementById('span').value = 'day';"
        "document.getElementById('span').dispatchEvent(new Event('change')); null"
    )
    page.wait_text("#chart-text", "7 instances, 7.0 MB in all. Highest bar: 7 in 15 min 0 s.")
    assert "paused for" in page.text("#chart-text")
    assert "not running for 23 h" in page.text("#chart-text")
    assert page.ask("document.querySelectorAll('#chart rect[data-count]').length") == 96
    assert page.ask("document.querySelectorAll('#chart rect[data-held]').length") == 1
    assert page.text("#axis-begin") == "24 hours ago"
    photograph(page, "history")
