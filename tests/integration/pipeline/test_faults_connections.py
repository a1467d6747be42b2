"""Connections that break, crawl or lose the answer, in both directions (G1, G4)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from tests.dicom_samples import small_series
from tests.fault_bench import FOLLOWING_ONLY, Bench, assert_few_words, endure
from tests.fault_proxy import Direction, Drip, DropAnswer, FaultProxy, Hang, Reset

pytestmark = pytest.mark.orthanc

Orthancs = Callable[..., OrthancServer]
Proxies = Callable[[int], FaultProxy]

SIZE = 256
"""Rows and columns: a file of 131 kB, so that a body can break in its middle."""
INSIDE_BODY = 40_000


@pytest.fixture
def line(orthanc: Orthancs, fault_proxy: Proxies) -> dict[str, tuple[OrthancServer, FaultProxy]]:
    """Return both servers by side, each with a proxy before it."""
    servers = {side: orthanc(side, config=FOLLOWING_ONLY) for side in ("source", "target")}
    return {side: (server, fault_proxy(server.http_port)) for side, server in servers.items()}


Line = dict[str, tuple[OrthancServer, FaultProxy]]


def _bench(line: Line, home: Path, **settings: str) -> Bench:
    urls = {f"{side.upper()}_URL": proxy.url for side, (_, proxy) in line.items()}
    return Bench(line["source"][0].url, line["target"][0].url, home, urls | settings)


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("direction", Direction, ids=str)
def test_a_reset_in_the_middle_of_a_body(
    line: Line, tmp_path: Path, side: str, direction: Direction
) -> None:
    """The body goes up to the target and down from the source; the other way it is the answer's
    or the request's head that is cut.
    """
    bodies_pass = (side == "target") == (direction is Direction.UP)
    fault = Reset(direction, after_bytes=INSIDE_BODY if bodies_pass else 100)
    with _bench(line, tmp_path) as bench:
        sent = bench.send_all(small_series(12, rows=SIZE, columns=SIZE))
        proxy = line[side][1]
        proxy.strike(fault, times=8)
        bridge = bench.start("run")
        proxy.wait_struck(8)
        bench.await_all(sent)
        bench.await_settled(bridge)
        bench.assert_delivered_once(sent)


@pytest.mark.parametrize("side", ["source", "target"])
def test_every_body_breaks_for_a_while(line: Line, tmp_path: Path, side: str) -> None:
    direction = Direction.UP if side == "target" else Direction.DOWN
    with _bench(line, tmp_path) as bench:
        sent = bench.send_all(small_series(12, rows=SIZE, columns=SIZE))
        proxy = line[side][1]
        proxy.strike(Reset(direction, after_bytes=INSIDE_BODY))
        bridge = bench.start("run")
        proxy.wait_struck(10)
        endure(bench, bridge, f"{side}_unreachable", proxy.heal)
        bench.await_all(sent)
        bench.await_settled(bridge)
        bench.assert_delivered_once(sent)
        assert_few_words(bridge, outages=1)


def test_the_answer_is_lost_after_the_target_has_stored(line: Line, tmp_path: Path) -> None:
    with _bench(line, tmp_path) as bench:
        proxy = line["target"][1]
        bridge = bench.start("run")
        bench.await_settled(bridge)
        proxy.strike(DropAnswer(), times=6)
        sent = bench.send_all(small_series(12))
        proxy.wait_struck(6)
        bench.await_all(sent)
        bench.await_settled(bridge)
        bench.assert_delivered_once(sent)
        assert bridge.logged("instance_delivered", status="AlreadyStored"), "it was sent again"


@pytest.mark.parametrize("side", ["source", "target"])
def test_accepted_and_never_answered(line: Line, tmp_path: Path, side: str) -> None:
    with _bench(line, tmp_path) as bench:
        sent = bench.send_all(small_series(8))
        proxy = line[side][1]
        proxy.strike(Hang())
        bridge = bench.start("run")
        endure(bench, bridge, f"{side}_timed_out", proxy.heal, hang_s=4.0)
        bench.await_all(sent)
        bench.await_settled(bridge)
        bench.assert_delivered_once(sent)
        assert_few_words(bridge, outages=1)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_slow_drip(line: Line, tmp_path: Path, side: str) -> None:
    """No silence is ever longer than BRIDGE_HTTP_TIMEOUT_S: only the time for the whole ends it."""
    with _bench(line, tmp_path, TASK_TIMEOUT_S="4", HTTP_TIMEOUT_S="1") as bench:
        bridge = bench.start("run")
        bench.await_settled(bridge)
        proxy = line[side][1]
        proxy.strike(Drip(Direction.DOWN if side == "source" else Direction.UP))
        sent = bench.send_all(small_series(6, rows=64, columns=64))
        endure(bench, bridge, f"{side}_timed_out", proxy.heal, hang_s=4.0)
        bench.await_all(sent)
        bench.await_settled(bridge)
        bench.assert_delivered_once(sent)
        assert_few_words(bridge, outages=1)
