"""Metrics, alert rules and dashboard, as Prometheus' own tool and our documentation see them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.dicom.syntaxes import EXPLICIT_LE, RLE
from bridge.events import (
    FeedReset,
    InFlight,
    InstanceParked,
    InstanceRetried,
    MissedFound,
    PageRead,
    Progress,
    Recounted,
    RecountFailed,
    Settled,
    SideDown,
    SideView,
    SourceSwept,
    SweepFailed,
    WorkerLost,
)
from bridge.ledger.store import Ledger
from bridge.model import (
    Action,
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    Move,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    StageTimes,
)
from bridge.monitoring.board import Board
from bridge.monitoring.health import HealthLimits
from bridge.monitoring.metrics import Metrics
from bridge.pipeline.pacing import Allowance
from tests.metrics_page import METRIC_NAMES
from tests.prometheus_tools import DASHBOARD, PROMETHEUS, ROOT, promtool, used_metrics
from tests.unit.test_docs import anchors

HISTOGRAMS = frozenset({"orthanc_bridge_stage_seconds"})
MOVE = Move("an-instance", 7)
FAILED = InstanceFailed(Reason.TIMED_OUT, "It took too long.")
DOWN = SideFailed(SideName.TARGET, SideProblem.UNREACHABLE, "It is not there.")
DELIVERED = Delivered(
    status="Success",
    action=Action.TRANSCODED,
    source_syntax=RLE,
    target_syntax=EXPLICIT_LE,
    sop_instance_uid="1.2",
    source_bytes=1000,
    target_bytes=3000,
    stages=StageTimes(0.1, 0.2, 0.3, 0.0),
    fallbacks=("pylibjpeg-rle",),
)
EVENTS = (
    Settled(MOVE, DELIVERED, 1),
    Settled(MOVE, Skipped(Reason.GONE), 1),
    InstanceParked(MOVE, Reason.UNDECODABLE, "No.", 1),
    InstanceRetried(MOVE, FAILED, 1, 5.0),
    InstanceRetried(MOVE, DOWN, 0, 5.0),
    InstanceRetried(MOVE, ExecutorFailed("lost"), 0, 5.0),
    WorkerLost(MOVE, FAILED),
    PageRead(5, 2, 9),
    SourceSwept(3, 1),
    SweepFailed("It says 403."),
    Recounted(10, 1),
    MissedFound(MOVE),
    RecountFailed("It says 403."),
    FeedReset("It ends at 3."),
    SideDown(DOWN),
)
BUSY = Progress(
    checkpoint=6,
    last=9,
    oldest_open=7,
    oldest_changed_at="20200101T120000",
    in_flight=(InFlight("an-instance", 7, 1.0, 2),),
    target=SideView(up=False, problem="unreachable"),
    hold="paused",
    last_progress_at=1.0,
    feed_read_at=1.0,
    phase="following",
)


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return loaded


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    """After one event of every kind."""
    Ledger(tmp_path / "state.sqlite3").close()
    allowance = Allowance(instances_s=5.0, mbit_s=100.0)
    board = Board(tmp_path / "state.sqlite3", HealthLimits(retains=True), allowance)
    found = Metrics(board)
    found.on_progress(replace(BUSY, checkpoint=1))
    board.on_progress(BUSY)
    for event in EVENTS:
        board.on_event(event)
        found.on_event(event)
    found.on_progress(BUSY)
    return found


def test_promtool_has_nothing_to_say_about_the_metrics(metrics: Metrics) -> None:
    text = metrics.render().decode()
    assert {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")} == set(
        METRIC_NAMES
    )
    assert promtool("check", "metrics", stdin=text) == (0, "")
    assert promtool("check", "metrics", stdin=f"{text}x_total{{}} 1\n")[0] != 0, "it sees nothing"


@pytest.mark.parametrize(
    "line",
    [
        f'orthanc_bridge_instances_total{{outcome="delivered",syntax="{RLE}"}} 1.0',
        'orthanc_bridge_instances_total{outcome="skipped_gone",syntax=""} 1.0',
        'orthanc_bridge_instances_total{outcome="parked_undecodable",syntax=""} 1.0',
        "orthanc_bridge_source_bytes_total 1000.0",
        "orthanc_bridge_target_bytes_total 3000.0",
        'orthanc_bridge_stage_seconds_count{stage="transcode"} 1.0',
        'orthanc_bridge_retries_total{reason="timed_out"} 1.0',
        'orthanc_bridge_retries_total{reason="server"} 1.0',
        'orthanc_bridge_retries_total{reason="executor"} 1.0',
        'orthanc_bridge_decoder_fallbacks_total{decoder="pylibjpeg-rle"} 1.0',
        'orthanc_bridge_worker_losses_total{reason="timed_out"} 1.0',
        'orthanc_bridge_worker_losses_total{reason="worker_died"} 0.0',
        "orthanc_bridge_late_changes_total 2.0",
        "orthanc_bridge_source_deletions_total 3.0",
        "orthanc_bridge_feed_resets_total 1.0",
        'orthanc_bridge_side_outages_total{problem="unreachable",side="target"} 1.0',
        'orthanc_bridge_side_outages_total{problem="timed_out",side="source"} 0.0',
        'orthanc_bridge_side_up{side="target"} 0.0',
        'orthanc_bridge_reason{code="feed_went_backwards"} 1.0',
        'orthanc_bridge_reason{code="target_unreachable"} 1.0',
        'orthanc_bridge_hold{reason="paused"} 1.0',
        "orthanc_bridge_healthy 0.0",
        "orthanc_bridge_oldest_unfinished_sequence 7.0",
        "orthanc_bridge_lag_changes 3.0",
    ],
)
def test_every_event_is_counted(metrics: Metrics, line: str) -> None:
    assert line in metrics.render().decode().splitlines()


def test_a_sender_cannot_invent_label_values(metrics: Metrics) -> None:
    before = metrics.render().decode()
    for number in range(3):
        skipped = Skipped(Reason.RULE, source_syntax=f"1.2.3.{number}")
        metrics.on_event(Settled(MOVE, skipped, 1))
    after = metrics.render().decode()
    assert 'outcome="skipped_rule",syntax="other"} 3.0' in after
    assert len(after.splitlines()) == len(before.splitlines()) + 1


def test_the_build_tells_the_decoders(metrics: Metrics) -> None:
    (line,) = re.findall(
        r"^orthanc_bridge_build_info\{(.*)\} 1\.0$", metrics.render().decode(), re.M
    )
    labels = dict(re.findall(r'(\w+)="([^"]+)"', line))
    assert labels.keys() >= {"version", "python", "pydicom", "imagecodecs", "pylibjpeg_openjpeg"}


def test_the_configuration_and_the_rules_are_valid() -> None:
    code, said = promtool("check", "config", "prometheus.yml")
    assert code == 0, said
    code, said = promtool("check", "rules", "alerts.yml")
    assert code == 0, said


@pytest.mark.slow
def test_the_rules_do_what_their_tests_say(rules: list[dict[str, Any]]) -> None:
    code, said = promtool("test", "rules", "alerts_test.yml")
    assert code == 0, said
    cases = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    alerts = {rule["alert"] for rule in rules}
    fired: set[str] = set()
    silent: set[str] = set()
    for case in cases:
        for expected in case["alert_rule_test"]:
            (fired if expected.get("exp_alerts") else silent).add(expected["alertname"])
    assert fired == alerts, "each alert fires in a test"
    assert silent == alerts, "and is silent in another"


def test_rules_and_dashboard_use_metrics_that_exist(
    rules: list[dict[str, Any]], dashboard: dict[str, Any]
) -> None:
    for expression in [*(rule["expr"] for rule in rules), *expressions(dashboard)]:
        used = used_metrics(expression, HISTOGRAMS)
        assert used <= set(METRIC_NAMES), expression
        assert used or "up{" in expression, expression


def test_every_alert_has_a_runbook_that_exists(rules: list[dict[str, Any]]) -> None:
    for rule in rules:
        file, _, heading = rule["annotations"]["runbook"].partition("#")
        assert heading in anchors(ROOT / file), rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_the_dashboard_is_provisioned(dashboard: dict[str, Any]) -> None:
    grafana = DASHBOARD.parents[1]
    (source,) = yaml.safe_load((grafana / "provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    (provider,) = yaml.safe_load(
        (grafana / "provisioning/dashboards/orthanc-bridge.yaml").read_text()
    )["providers"]
    services = yaml.safe_load((ROOT / "compose/compose.yaml").read_text())["services"]
    mounts = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts
    assert "prometheus" in services
    assert source["url"] == "http://prometheus:9090"
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == source["uid"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {source["uid"]}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_no_panel_of_the_dashboard_lies_on_another(dashboard: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [
        (column, row)
        for place in places
        for column in range(place["x"], place["x"] + place["w"])
        for row in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < 24, "Grafana has 24 columns"


SHOWN = ("studies", "event", "copies", "copy_", "carr", "verif", "repairs_held")


def test_studies_events_verifications_and_what_is_carried_are_on_the_dashboard(
    dashboard: dict[str, Any],
) -> None:
    """Fails when one of their metrics is on no panel; that of instances is told by another."""
    used = set().union(*(used_metrics(e, HISTOGRAMS) for e in expressions(dashboard)))
    wanted = {
        name for name in METRIC_NAMES if name.removeprefix("orthanc_bridge_").startswith(SHOWN)
    }
    assert len(wanted) == 18
    assert wanted - used == {"orthanc_bridge_verified_instances"}
