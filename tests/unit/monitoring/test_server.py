"""The monitoring server: what each address answers, that it only reads, and its port."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge.errors import ConfigurationError
from bridge.events import FeedDoubted, FeedReset, FeedTrusted, InFlight, Progress, SideView
from bridge.ledger.records import Entry, Parked
from bridge.ledger.store import Ledger
from bridge.model import Move, Reason
from bridge.monitoring.board import Board
from bridge.monitoring.health import HealthLimits
from bridge.monitoring.metrics import Metrics
from bridge.monitoring.server import MonitoringServer, application
from tests.metrics_page import METRIC_NAMES

DOWN = SideView(up=False, problem="login_refused", message="It said 401.", advice="Log in.")
ADDRESSES = ("/livez", "/readyz", "/health", "/metrics", "/api/status", "/")
HEALTH_FIELDS = {
    "status",
    "reasons",
    "checkpoint",
    "last",
    "lag_changes",
    "lag_s",
    "oldest_unfinished",
    "in_flight",
    "parked",
    "parked_total",
}


def well(**differently: Any) -> Progress:
    """Make a report of a bridge that works, as of now: the suite may have begun long ago."""
    now = time.time()
    progress = Progress(
        checkpoint=90,
        last=100,
        oldest_open=91,
        oldest_changed_at="20200101T120000",
        waiting=2,
        delayed=1,
        in_flight=(InFlight("an-instance", 91, 1.0, 2),),
        last_progress_at=now,
        feed_read_at=now,
        phase="following",
    )
    return replace(progress, **differently)


class Asked:
    """An answer."""

    def __init__(self, status: int, body: str, content_type: str) -> None:
        self.status, self.body, self.content_type = status, body, content_type

    @property
    def json(self) -> dict[str, object]:
        value: dict[str, object] = json.loads(self.body)
        return value

    @property
    def codes(self) -> list[str]:
        reasons = self.json["reasons"]
        assert isinstance(reasons, list)
        return [reason["code"] for reason in reasons]


class Monitored:
    def __init__(self, state_path: Path, limits: HealthLimits) -> None:
        self.state_path = state_path
        self.board = Board(state_path, limits)
        self.board.on_progress(well())
        self.metrics = Metrics(self.board)
        self.app = application(self.board, self.metrics)

    def ask(self, path: str, method: str = "GET", accept: str = "*/*") -> Asked:
        return asyncio.run(self._ask(path, method, accept))

    async def _ask(self, path: str, method: str, accept: str) -> Asked:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://bridge") as client:
            answer = await client.request(method, path, headers={"Accept": accept})
        return Asked(answer.status_code, answer.text, answer.headers.get("content-type", ""))

    def park(self, count: int) -> None:
        with Ledger(self.state_path) as ledger:
            parked = tuple(
                Parked(Move(f"i{number}"), Reason.UNDECODABLE, "no", 1, 1.0, 1.0)
                for number in range(count)
            )
            ledger.commit(Entry(parked=parked))


@pytest.fixture
def monitored(tmp_path: Path) -> Monitored:
    path = tmp_path / "state.sqlite3"
    Ledger(path).close()
    return Monitored(path, HealthLimits())


def test_all_is_well(monitored: Monitored) -> None:
    for path in ADDRESSES:
        assert monitored.ask(path).status == 200, path
    health = monitored.ask("/health").json
    assert health.keys() >= HEALTH_FIELDS
    assert health["status"] == "ok"
    assert health["reasons"] == []
    assert (health["checkpoint"], health["last"], health["lag_changes"]) == (90, 100, 10)
    assert (health["in_flight"], health["oldest_unfinished"]) == (1, 91)
    assert health["waiting"] == 3
    assert monitored.ask("/readyz").json == {"ready": True, "reasons": []}
    flights = monitored.ask("/api/status").json["in_flight"]
    assert isinstance(flights, list)
    assert (flights[0]["instance"], flights[0]["attempt"]) == ("an-instance", 2)


def test_before_anything_was_asked_it_is_not_ready(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    Ledger(path).close()
    watched = Monitored(path, HealthLimits())
    watched.board.progress = Board(path, HealthLimits()).progress
    assert watched.ask("/livez").status == 200
    assert watched.ask("/readyz").status == 503
    assert watched.ask("/health").codes == ["source_not_contacted", "target_not_contacted"]


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_server_that_is_down_is_named(monitored: Monitored, side: str) -> None:
    down = well(source=DOWN) if side == "source" else well(target=DOWN)
    monitored.board.on_progress(down)
    assert monitored.ask("/livez").status == 200, "restarting the bridge would not help"
    for path in ("/readyz", "/health"):
        answer = monitored.ask(path)
        assert answer.status == 503
        assert answer.codes == [f"{side}_login_refused"]
        assert "It said 401." in answer.body
        assert "Log in." in answer.body
    assert monitored.ask("/api/status").status == 200, "the page must show it"


def test_a_state_that_cannot_be_written(monitored: Monitored) -> None:
    monitored.board.on_progress(well(state_error="The disk is full."))
    assert monitored.ask("/readyz").codes == ["state_unwritable"]
    assert monitored.ask("/health").status == 503


def test_a_state_that_cannot_be_read(monitored: Monitored) -> None:
    monitored.state_path.write_bytes(b"no database at all " * 100)
    answer = monitored.ask("/health")
    assert answer.status == 503
    assert answer.codes == ["state_unreadable"]


def test_parked_instances_make_it_unhealthy_but_not_unready(monitored: Monitored) -> None:
    monitored.park(3)
    answer = monitored.ask("/health")
    assert answer.status == 503
    assert answer.codes == ["parked"]
    assert answer.json["parked"] == {"undecodable": 3}
    assert answer.json["parked_total"] == 3
    assert monitored.ask("/readyz").status == 200


def test_so_many_parked_instances_are_borne_as_the_setting_says(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    watched = Monitored(path, HealthLimits(parked_limit=3))
    watched.park(3)
    assert not watched.board.problems()
    watched = Monitored(path, HealthLimits(parked_limit=2))
    assert [finding.code for finding in watched.board.problems()] == ["parked"]


def test_a_feed_in_doubt_is_said_until_it_is_known_again(monitored: Monitored) -> None:
    for doubted in ("It ends at 3.", "It ends at 4."):
        monitored.board.on_event(FeedDoubted(doubted))
        assert monitored.ask("/health").codes == ["feed_in_doubt"]
    monitored.board.on_event(FeedTrusted())
    assert monitored.ask("/health").codes == []
    monitored.board.on_event(FeedDoubted("It ends at 3."))
    monitored.board.on_event(FeedReset("It ends at 3."))
    assert monitored.ask("/health").codes == ["feed_went_backwards"]


def test_a_feed_that_went_backwards_is_said_until_a_snapshot_is_over(monitored: Monitored) -> None:
    monitored.board.on_event(FeedReset("It ends at 3."))
    assert monitored.ask("/health").codes == ["feed_went_backwards"]
    monitored.board.on_progress(well(phase="snapshot"))
    assert monitored.ask("/health").codes == ["feed_went_backwards"]
    monitored.board.on_progress(well(phase="following"))
    assert monitored.ask("/health").status == 200


def test_no_progress_with_work_left_is_a_stall(monitored: Monitored) -> None:
    long_ago = time.time() - 10_000
    monitored.board.on_progress(well(last_progress_at=long_ago))
    assert monitored.ask("/health").codes == ["stalled"]


def test_lag_above_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    Ledger(path).close()
    board = Board(path, HealthLimits(lag_limit_s=60))
    board.on_progress(well())
    assert [finding.code for finding in board.problems()] == ["lag_above_limit"]


@pytest.mark.parametrize("path", ADDRESSES)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_it_only_reads(monitored: Monitored, path: str, method: str) -> None:
    assert monitored.ask(path, method).status == 405


@pytest.mark.parametrize("path", ADDRESSES)
def test_head_is_get_without_a_body(monitored: Monitored, path: str) -> None:
    answer = monitored.ask(path, "HEAD")
    assert answer.status == 200
    assert answer.body == ""


@pytest.mark.parametrize("path", ["/nothing", "/api", "/livez/", "/docs", "/openapi", "/.env"])
def test_nothing_else_is_there(monitored: Monitored, path: str) -> None:
    assert monitored.ask(path).status in {404, 307}


def test_metrics_can_be_parsed_and_are_those_that_are_documented(monitored: Monitored) -> None:
    answer = monitored.ask("/metrics")
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    shown = set()
    for family in text_string_to_metric_families(answer.body):
        name = family.name + ("_total" if family.type == "counter" else "")
        shown.add(name)
        for sample in family.samples:
            assert sample.name.startswith("orthanc_bridge_")
    only_when_known = {
        "delivered_lacking",
        "lag_bytes",
        "max_instances_per_second",
        "max_bytes_per_second",
    }
    assert shown == set(METRIC_NAMES) - {f"orthanc_bridge_{name}" for name in only_when_known}


def test_the_page_needs_no_internet(monitored: Monitored) -> None:
    page = monitored.ask("/")
    assert page.content_type.startswith("text/html")
    assert "http://" not in page.body.replace("http://www.w3.org/", "")
    assert "https://" not in page.body


def test_the_server_answers_at_the_address_that_it_tells(monitored: Monitored) -> None:
    server = MonitoringServer(monitored.app, host="127.0.0.1", port=0)
    address = f"{server.url}/livez"
    server.start()
    try:
        answer = httpx.get(address, timeout=10, trust_env=False)
        assert (answer.status_code, answer.text) == (200, "ok\n")
        assert "server" not in answer.headers, "no need to tell what we are"
    finally:
        server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(address, timeout=10, trust_env=False)


def test_a_port_in_use_names_the_setting(monitored: Monitored) -> None:
    first = MonitoringServer(monitored.app, host="127.0.0.1", port=0)
    port = int(first.url.rsplit(":", 1)[1])
    with pytest.raises(ConfigurationError) as refused:  # even before the first one serves
        MonitoringServer(monitored.app, host="127.0.0.1", port=port)
    assert refused.value.exit_code == 2
    assert f"BRIDGE_HEALTH_PORT {port}" in str(refused.value)
    assert "Address already in use" in str(refused.value)
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass  # the address is there as soon as it can be printed
    first.start()
    first.stop()


@pytest.mark.parametrize("host", ["256.1.1.1", "no.such.host.invalid", "a..b", "x" * 70 + ".y"])
def test_a_host_that_is_none_names_the_setting(tmp_path: Path, host: str) -> None:
    board = Board(tmp_path / "state.sqlite3", HealthLimits())
    with pytest.raises(ConfigurationError, match="BRIDGE_HEALTH_HOST"):
        MonitoringServer(application(board, Metrics(board)), host=host, port=0)


def test_an_ipv6_address_is_printed_in_brackets(tmp_path: Path) -> None:
    board = Board(tmp_path / "state.sqlite3", HealthLimits())
    try:
        server = MonitoringServer(application(board, Metrics(board)), host="::1", port=0)
    except ConfigurationError:
        pytest.skip("this machine has no IPv6")
    assert server.url.startswith("http://[::1]:")
    server.start()
    server.stop()


def test_metrics_are_openmetrics_for_who_asks_for_them(monitored: Monitored) -> None:
    """As Prometheus asks: with what it would rather have first. It finds the same series."""
    asked = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
    answer = monitored.ask("/metrics", accept=asked)
    assert answer.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.body.endswith("# EOF\n")
    plain = monitored.ask("/metrics")
    assert plain.content_type.startswith("text/plain")
    series = [
        {line.rsplit(" ", 1)[0] for line in body.splitlines() if not line.startswith("#")}
        for body in (answer.body, plain.body)
    ]
    assert series[0] == series[1]
