"""A real Prometheus scrapes a real bridge: every panel has an answer, and an alert begins."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from tests.bridge_process import wait_until
from tests.dicom_samples import small_series
from tests.integration.conftest import Pair, undecodable_ct
from tests.prometheus_tools import DASHBOARD, PROMETHEUS, require_tool

pytestmark = pytest.mark.orthanc


class Prometheus:
    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=10)

    def query(self, expression: str) -> list[Any]:
        answer = self._client.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        result: list[Any] = answer["data"]["result"]
        return result

    def alerts(self) -> set[str]:
        found = self._client.get("/api/v1/alerts").json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in found}

    def ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def prometheus(home: Path, bridge_url: str) -> Iterator[Prometheus]:
    """Run it with our configuration, but faster and with this bridge's address."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {
        "scrape_interval": "250ms",
        "scrape_timeout": "250ms",
        "evaluation_interval": "250ms",
    }
    config["rule_files"] = [str(PROMETHEUS / "alerts.yml")]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [urlsplit(bridge_url).netloc]}]
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    path = home / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    with (home / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                require_tool("prometheus"),
                f"--config.file={path}",
                f"--storage.tsdb.path={home / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        server = Prometheus(f"http://127.0.0.1:{port}")
        wait_until(server.ready, "Prometheus is ready")
        yield server
    finally:
        process.kill()
        process.wait()


NOTHING_HAPPENED = {
    "retried: {{reason}}",
    "fallback from {{decoder}}",
    "{{side}} {{problem}}",
    "held: {{reason}}",
}
SWITCHED_OFF = {
    # Retention, verification, events, and what is carried.
    "delivered, and not at the target any more",
    "since it began",
    "{{state}}",
    "{{event}}",
    "{{way}}",
    "failed: {{way}}",
    "lag",
    "waiting",
}


def silent_panels(server: Prometheus) -> set[str]:
    """The series of the dashboard that have no answer, by their legend."""
    silent = set()
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "1m")
            if not server.query(expression.replace("$instance", ".*")):
                silent.add(target["legendFormat"])
    return silent


def test_every_panel_has_an_answer_and_an_outage_becomes_an_alert(
    pair: Pair, tmp_path: Path
) -> None:
    require_tool("prometheus")
    for data in small_series(5):
        pair.send(data)
    pair.send(undecodable_ct())
    bridge = pair.start("run")
    with prometheus(tmp_path, bridge.url) as server:
        delivered = 'orthanc_bridge_instances_total{outcome="delivered"} == 5'
        wait_until(lambda: bool(server.query(delivered)), "Prometheus has seen the deliveries")
        wait_until(lambda: "OrthancBridgeParked" in server.alerts(), "the parked one is told")
        assert "OrthancBridgeServerDown" not in server.alerts()
        # A rate needs two scrapes; what has not happened, or is switched off, has none.
        silent = NOTHING_HAPPENED | SWITCHED_OFF
        wait_until(lambda: silent_panels(server) == silent, "every panel has an answer")
        pair.target_server.kill()
        wait_until(lambda: "OrthancBridgeServerDown" in server.alerts(), "the outage is told")
