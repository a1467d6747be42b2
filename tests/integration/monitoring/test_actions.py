"""Acting over HTTP on a real bridge between two real Orthancs."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.bridge_process import BridgeProcess, wait_until
from tests.dicom_samples import small_ct, small_series
from tests.integration.conftest import Pair, undecodable_ct

pytestmark = pytest.mark.orthanc

TOKEN = "anna-0123456789abcdef-0123456789"  # noqa: S105


def ask(bridge: BridgeProcess, action: str, body: dict[str, object]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(  # noqa: S310 (our own server)
        f"{bridge.url}/api/actions/{action}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 (our own server)
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def do(bridge: BridgeProcess, action: str, body: dict[str, object]) -> dict[str, Any]:
    status, told = ask(bridge, action, body)
    assert status == 409, told
    status, told = ask(bridge, action, body | {"confirm": told["confirm"]})
    assert status == 200, told
    return told


def command(bridge: BridgeProcess) -> dict[str, Any]:
    """Wait for the end of the command that runs beside it."""
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(bridge.get("/api/status")[1]["command_beside"] or {})
        return found.get("ended_at") is not None

    wait_until(ended, "the command has ended", 60.0)
    return found


def test_everything_that_a_person_can_do(pair: Pair) -> None:
    audit = pair.home / "audit.jsonl"
    sent = [pair.send(data) for data in small_series(4)]
    poison = pair.send(undecodable_ct())
    bridge = pair.start("run", ADMIN_TOKEN=f"anna:{TOKEN}", AUDIT_PATH=str(audit))
    bridge.wait_health(lambda health: health["checkpoint"] == pair.last(), "all is moved")
    # A replay is the command, beside: what was lost at the target is there again.
    assert pair.target.delete_instance(sent[1])
    assert "Started" in do(bridge, "replay", {"from": 0})["message"]
    ended = command(bridge)
    assert (ended["exit_code"], ended["summary"]["delivered"]) == (3, 1), ended
    assert sent[1] in pair.held()
    # A retry of what cannot be decoded leaves it parked, with one attempt more.
    do(bridge, "retry", {"instances": [poison]})
    assert command(bridge)["exit_code"] == 3
    assert sum(pair.parked().values()) == 1
    # Paused, nothing new is moved; resumed, it is.
    do(bridge, "pause", {})
    bridge.wait_health(lambda health: health["hold"] == "paused", "it is paused")
    new = pair.send(small_ct())
    do(bridge, "resume", {})
    wait_until(lambda: new in pair.held(), "it moves again")
    do(bridge, "drop", {"all": True})
    assert pair.parked() == {}
    status, told = ask(bridge, "replay", {"from": pair.last() + 1000})
    assert status == 409
    assert "confirm" not in told
    told_lines = [json.loads(line) for line in audit.read_text().splitlines()]
    actions = [line for line in told_lines if line["outcome"] == "action"]
    assert {line["who"] for line in actions} == {"anna"}
    order = [line["action"] for line in actions if line["result"] == "begins"]
    assert order == ["replay", "retry", "pause", "resume", "drop"]
    assert [line["who"] for line in bridge.logged("action", action="drop")] == ["anna", "anna"]
    assert TOKEN not in bridge.stderr + audit.read_text() + str(bridge.get("/api/status"))
    assert TOKEN not in str(bridge.get("/metrics"))
    assert [line for line in bridge.stderr.splitlines() if not line.startswith("{")] == []
    assert bridge.logged("command_said"), "the retry has left one parked, and says so"
