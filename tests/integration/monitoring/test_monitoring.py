"""Outages of real servers, as /health and /readyz tell them; nothing is parked by any."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.demo.orthanc_server import OrthancServer
from tests.bridge_process import BridgeProcess
from tests.dicom_samples import small_series
from tests.fault_proxy import FaultProxy, Hang
from tests.integration.conftest import Pair

pytestmark = pytest.mark.orthanc

SIDES = ["source", "target"]


def _server(pair: Pair, side: str) -> OrthancServer:
    return pair.source_server if side == "source" else pair.target_server


def _all_arrives(pair: Pair, bridge: BridgeProcess, sent: list[str]) -> None:
    bridge.wait_health(
        lambda health: health["status"] == "ok" and health["checkpoint"] == pair.last(),
        "all is well and moved",
    )
    assert bridge.get("/readyz")[0] == 200
    assert sorted(pair.arrivals()) == sorted(sent)
    assert pair.parked() == {}
    with pair.ledger() as ledger:
        assert ledger.attempts() == {}


@pytest.mark.parametrize("side", SIDES)
def test_a_server_that_is_down_at_the_start(pair: Pair, side: str) -> None:
    sent = [pair.send(data) for data in small_series(5)]
    _server(pair, side).kill()
    bridge = pair.start("run")
    bridge.wait_reason(f"{side}_unreachable")
    bridge.wait_unready(lambda codes: codes == [f"{side}_unreachable"], "this reason alone")
    assert bridge.get("/livez") == (200, "ok\n")
    assert bridge.get("/health")[0] == 503
    assert f'orthanc_bridge_side_up{{side="{side}"}} 0.0' in bridge.get("/metrics")[1]
    _server(pair, side).start()
    _all_arrives(pair, bridge, sent)
    assert f'orthanc_bridge_side_up{{side="{side}"}} 1.0' in bridge.get("/metrics")[1]


@pytest.mark.parametrize("side", SIDES)
def test_a_server_that_dies_in_the_middle(pair: Pair, side: str) -> None:
    sent = [pair.send(data) for data in small_series(60)]
    bridge = pair.start("run", ATTEMPTS="1")
    bridge.wait_logged("instance_delivered", 5)
    _server(pair, side).kill()
    bridge.wait_reason(f"{side}_unreachable")
    assert bridge.is_running
    assert bridge.logged("side_down", side=side)
    _server(pair, side).start()
    _all_arrives(pair, bridge, sent)
    assert bridge.logged("side_up", side=side)


@pytest.mark.parametrize("side", SIDES)
def test_a_server_that_answers_nothing_for_a_while(
    pair: Pair, side: str, fault_proxy: Callable[[int], FaultProxy]
) -> None:
    proxy = fault_proxy(_server(pair, side).http_port)
    proxy.strike(Hang())
    sent = [pair.send(data) for data in small_series(3)]
    url = {f"{side.upper()}_URL": proxy.url}
    bridge = pair.start("run", HTTP_TIMEOUT_S="0.5", **url)
    bridge.wait_reason(f"{side}_timed_out")
    proxy.heal()
    _all_arrives(pair, bridge, sent)


def test_a_target_that_hangs_while_the_bridge_starts_is_used_again_later(
    pair: Pair, fault_proxy: Callable[[int], FaultProxy]
) -> None:
    """The start has phases; a call that hangs in the first must not spoil those of the next."""
    proxy = fault_proxy(pair.target_server.http_port)
    proxy.strike(Hang())
    bridge = pair.start("run", START="now", HTTP_TIMEOUT_S="1", TARGET_URL=proxy.url)
    bridge.wait_health(lambda health: health["phase"] == "following", "the second phase")
    bridge.wait_reason("target_timed_out")
    proxy.heal()
    for _ in range(3):  # together longer than any deadline that may have been left behind
        bridge.wait_health(lambda health: health["status"] == "ok", "it works")
        proxy.strike(Hang())
        bridge.wait_reason("target_timed_out")
        proxy.heal()
    sent = pair.send(small_series(1)[0])
    bridge.wait_logged("instance_delivered", instance=sent)


def test_a_wrong_password_is_an_outage_that_is_explained(
    pair: Pair, orthanc: Callable[..., OrthancServer]
) -> None:
    locked = orthanc("locked", username="bridge", password="right")  # noqa: S106
    sent = [pair.send(data) for data in small_series(2)]
    secret = pair.home / "password"
    secret.write_text("wrong\n")
    bridge = pair.start(
        "run",
        TARGET_URL=locked.url,
        TARGET_USERNAME="bridge",
        TARGET_PASSWORD_FILE=str(secret),
    )
    bridge.wait_reason("target_login_refused")
    assert "BRIDGE_TARGET_PASSWORD" in str(bridge.get("/health")[1]["reasons"])
    assert "wrong" not in bridge.stderr
    secret.write_text("right\n")
    bridge.wait_logged("instance_delivered", len(sent))
    assert pair.parked() == {}
