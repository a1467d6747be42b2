"""docs/monitoring.md: its check script against a server, its examples against the code."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from bridge.model import SideProblem
from bridge.monitoring.actions import Actions
from bridge.monitoring.health import HealthLimits, judge
from bridge.monitoring.server import application
from tests.unit.monitoring.test_server import DOWN, Monitored, well

ROOT = Path(__file__).resolve().parents[3]
MONITORING = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
CHECK = ROOT / "scripts" / "check_orthanc_bridge.py"


class _Health(http.server.BaseHTTPRequestHandler):
    answer: ClassVar[tuple[int, str]] = (200, "{}")

    def do_GET(self) -> None:
        status, body = self.answer if self.path == "/prefix/health" else (404, "")
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


Answering = Callable[[int, str], str]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """Start a server that answers so at /prefix/health; its URL."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Health) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def answer(status: int, body: str) -> str:
            monkeypatch.setattr(_Health, "answer", (status, body))
            return f"http://127.0.0.1:{server.server_port}"

        yield answer
        server.shutdown()
        thread.join()


@pytest.fixture
def monitored(tmp_path: Path) -> Monitored:
    watched = Monitored(tmp_path / "state.sqlite3", HealthLimits())
    watched.park(0)
    return watched


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(CHECK), *arguments],
        env={"http_proxy": "http://192.0.2.1:9"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("down", "parked", "expected"),
    [
        (False, 0, (0, "BRIDGE OK - Working on it: 10 changes to go")),
        (False, 2, (1, "BRIDGE WARNING - Attention: 2 instances are parked.")),
        (True, 0, (2, "BRIDGE CRITICAL - Attention: It said 401. Log in.")),
        (True, 2, (2, "BRIDGE CRITICAL - Attention (1 more below): It said 401. Log in.")),
    ],
)
def test_the_check_tells_what_health_says(
    monitored: Monitored, answering: Answering, down: bool, parked: int, expected: tuple[int, str]
) -> None:
    monitored.park(parked)
    monitored.board.on_progress(well(target=DOWN) if down else well())
    said = monitored.ask("/health")
    done = check(f"{answering(said.status, said.body)}/prefix/")
    assert (done.returncode, done.stderr) == (expected[0], "")
    assert done.stdout.startswith(expected[1])
    assert done.stdout.count("\n") == 1
    data = dict(item.split("=") for item in done.stdout.rpartition(" | ")[2].split())
    assert data.keys() == {"lag_changes", "lag", "parked", "in_flight", "waiting"}
    assert data["parked"] == str(parked)


@pytest.mark.parametrize("code", ["feed_incomplete", "feed_gaps_given_up", "instances_came_back"])
def test_what_can_wait_is_a_warning_and_is_described(
    monitored: Monitored, answering: Answering, code: str
) -> None:
    health = json.loads(monitored.ask("/health").body) | {"reasons": [{"code": code}]}
    done = check(f"{answering(503, json.dumps(health))}/prefix/")
    described = MONITORING.partition("(WARNING: only")[2].partition(")")[0]
    assert done.returncode == (1 if f"`{code}`" in described else 2)


@pytest.mark.parametrize(
    ("status", "body", "path"),
    [
        (200, "<html>", "/prefix"),
        (200, '{"status": "ok"}', "/prefix"),
        (200, "[]", "/prefix"),
        (503, "Bad gateway", "/prefix"),
        (200, "{}", "/elsewhere"),
    ],
)
def test_the_check_does_not_take_something_else_for_the_bridge(
    answering: Answering, status: int, body: str, path: str
) -> None:
    done = check(f"{answering(status, body)}{path}")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.startswith("BRIDGE UNKNOWN - ")


def test_no_answer_is_critical() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Health) as server:
        free = f"http://127.0.0.1:{server.server_port}"
    done = check(free, "--timeout", "2")
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("BRIDGE CRITICAL - the bridge does not answer: ")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", MONITORING, re.M | re.S)


def test_the_probes_ask_what_exists(monitored: Monitored) -> None:
    (pod, scrape) = [yaml.safe_load(block) for block in blocks("yaml")]
    probes = [pod[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")]
    assert [probe["path"] for probe in probes] == ["/livez", "/readyz"]
    assert {probe["port"] for probe in probes} == {pod["ports"][0]["name"]}
    for probe in probes:
        assert monitored.ask(probe["path"]).status == 200
    (job,) = scrape["scrape_configs"]
    ours = yaml.safe_load((ROOT / "compose/prometheus/prometheus.yml").read_text())
    assert job["job_name"] == ours["scrape_configs"][0]["job_name"]


def test_the_example_of_health_has_fields_that_exist(monitored: Monitored) -> None:
    (example,) = [json.loads(block) for block in blocks("json")]
    said = monitored.ask("/health").json
    assert example.keys() <= said.keys()
    (reason,) = example["reasons"]
    found = judge(well(target=DOWN), {}, HealthLimits(), now=0.0)
    assert reason.keys() == {"code", "message", "advice"} == set(found[0].__slots__)
    assert reason["code"].removeprefix("target_") in set(SideProblem)


def test_every_path_is_described(monitored: Monitored) -> None:
    told = MONITORING + (ROOT / "docs/actions.md").read_text("utf-8")
    described = re.findall(r"^\| `(/[\w/.]*)` \|", told, re.M)
    actions = Actions(
        {}, state_path=Path(), newest=lambda: None, verifies=True, count=lambda *_: None
    )
    app = application(monitored.board, monitored.metrics, None, actions)
    routes: list[Any] = list(app.routes)
    served = {route.path for route in routes if not route.path.startswith("/page.")}
    assert set(described) == served


def test_every_reason_is_described_and_has_an_alert() -> None:
    code_texts = [
        (ROOT / "bridge" / name).read_text("utf-8")
        for name in ("monitoring/health.py", "monitoring/board.py")
    ]
    codes = set(re.findall(r"Problem\(\s*\"(\w+)\"", "".join(code_texts)))
    assert len(codes) > 8
    operations = (ROOT / "docs/operations.md").read_text("utf-8")
    table = operations.partition("## What do the reasons")[2].partition("\n## ")[0]
    described = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]+)\|", table, re.M))))
    assert codes <= described
    (group,) = yaml.safe_load((ROOT / "compose/prometheus/alerts.yml").read_text())["groups"]
    rules = {rule["alert"]: rule["expr"] for rule in group["rules"]}
    other = rules.pop("OrthancBridgeOtherReason")
    (left_out,) = re.findall(r'code!~"([^"]+)"', other)
    own_rule = set(re.findall(r'code=~?"([^"]+)"', " ".join(rules.values())))
    own_rule = {code for codes in own_rule for code in codes.split("|")}
    by_metric = {"(source|target)_.*", "state_unwritable", "parked", "instances_refused"}
    by_metric |= {"delivered_lacking"}
    names = set(left_out.replace("(source|target)_.*|", "").split("|")) | {"(source|target)_.*"}
    assert names == own_rule | by_metric


def test_every_alert_is_described() -> None:
    (group,) = yaml.safe_load((ROOT / "compose/prometheus/alerts.yml").read_text())["groups"]
    rules = {rule["alert"]: rule["labels"]["severity"] for rule in group["rules"]}
    assert dict(re.findall(r"^\| `(OrthancBridge\w+)` \| (\w+) \|", MONITORING, re.M)) == rules


def test_every_heading_is_listed_at_the_top() -> None:
    assert re.findall(r"^- \[(.+)\]\(#", MONITORING, re.M) == re.findall(
        r"^## (.+)$", MONITORING, re.M
    )
