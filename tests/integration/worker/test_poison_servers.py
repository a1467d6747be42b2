"""Instances that a server dies of: found out, parked, and never an endless loop of restarts.

A real Orthanc behind the fault proxy is killed whenever a marked instance passes, and started
again as a container engine would do it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from bridge.model import Reason
from tests.bridge_process import BridgeProcess, wait_until
from tests.dicom_samples import identity_of, small_ct, small_series
from tests.fault_bench import FOLLOWING_ONLY, Bench
from tests.fault_proxy import FaultProxy, OnMarker

pytestmark = pytest.mark.orthanc

ATTEMPTS = 2
OUTAGES_UNTIL_SUSPECT = 2
DEATHS_MAX = OUTAGES_UNTIL_SUSPECT + ATTEMPTS
"""Two before it is suspected, then one for each attempt that it makes alone."""
REASONS = {"source": Reason.SOURCE_DIED, "target": Reason.TARGET_DIED}
PATIENCE_S = 60.0
HANG_S = 4.0
SETTINGS = {"ATTEMPTS": str(ATTEMPTS), "HTTP_TIMEOUT_S": "1"}


class Supervisor:
    """Starts a server again some time after it has died. Until then its port is closed."""

    def __init__(self, server: OrthancServer, proxy: FaultProxy) -> None:
        self.deaths = 0
        self.restart_after_s = 1.0
        self._server = server
        self._proxy = proxy
        self._busy = threading.Lock()

    def kill(self) -> None:
        """Let it die at once; the caller does not wait for its return."""
        self._busy.acquire()
        self.deaths += 1
        self._server.kill()
        self._proxy.refuse()
        threading.Timer(self.restart_after_s, self._restart).start()

    def hang(self) -> None:
        """Let it fall silent until it is killed and started; the caller waits for that."""
        with self._busy:
            self.deaths += 1
            self._server.suspend()
            threading.Event().wait(HANG_S)
            self._server.kill()
            self._server.start()

    def settle(self) -> None:
        """Wait until the server is up."""
        with self._busy:
            assert self._server.is_running

    def _restart(self) -> None:
        try:
            self._server.start()
            self._proxy.accept()
        finally:
            self._busy.release()


@dataclass(frozen=True, slots=True)
class Scene:
    """A bridge between two servers, one of which dies of the poison."""

    side: str
    bench: Bench
    proxy: FaultProxy
    supervisor: Supervisor
    poison: bytes

    def strike(self, action: Callable[[], object]) -> None:
        """Do this whenever the poison is uploaded, or asked for."""
        identity = identity_of(self.poison)
        marker = f"GET /instances/{identity.orthanc_id}/file"
        if self.side == "target":
            marker = identity.sop_uid
        self.proxy.strike(OnMarker(marker.encode(), action))

    def assert_found_out(self, bridge: BridgeProcess, bad: str, others: list[str]) -> None:
        """The poison alone is parked, for what it does, after few deaths; the others arrive."""
        bridge.wait_logged("instance_parked", timeout_s=PATIENCE_S)
        self.supervisor.settle()
        self.bench.await_all(others)
        bridge.wait_health(lambda said: said["caught_up"], "everything settled")
        parked = self.bench.parked()
        assert {i: p.reason for i, p in parked.items()} == {bad: REASONS[self.side]}
        assert parked[bad].attempts == ATTEMPTS
        assert self.bench.attempts() == {}
        assert sorted(self.bench.arrivals()) == sorted(others), "each once"
        assert self.supervisor.deaths <= DEATHS_MAX


@pytest.fixture(params=["target", "source"])
def scene(
    request: pytest.FixtureRequest,
    orthanc: Callable[..., OrthancServer],
    fault_proxy: Callable[[int], FaultProxy],
    tmp_path: Path,
) -> Iterator[Scene]:
    side = str(request.param)
    servers = {name: orthanc(name, config=FOLLOWING_ONLY) for name in REASONS}
    proxy = fault_proxy(servers[side].http_port)
    settings = SETTINGS | {f"{side.upper()}_URL": proxy.url}
    with Bench(servers["source"].url, servers["target"].url, tmp_path, settings) as bench:
        supervisor = Supervisor(servers[side], proxy)
        yield Scene(side, bench, proxy, supervisor, small_ct())
        proxy.heal()
        supervisor.settle()  # a restart under way must end before the server is taken away


def test_it_is_parked_after_a_bounded_number_of_deaths(scene: Scene) -> None:
    bench = scene.bench
    before = bench.send_all(small_series(6))
    bad = bench.send(scene.poison)
    others = before + bench.send_all(small_series(6))
    scene.strike(scene.supervisor.kill)
    bridge = bench.start("run")
    scene.assert_found_out(bridge, bad, others)
    bench.await_all(bench.send_all(small_series(3)))
    bench.await_settled(bridge, but=["parked"])
    assert scene.supervisor.deaths <= DEATHS_MAX, "it is not sent again"


def test_alone_in_the_feed(scene: Scene) -> None:
    bad = scene.bench.send(scene.poison)
    scene.strike(scene.supervisor.kill)
    bridge = scene.bench.start("run")
    scene.assert_found_out(bridge, bad, [])


def test_a_server_that_hangs_on_it(scene: Scene) -> None:
    """It falls silent with the request in hand, and its supervisor kills it after a while."""
    bench = scene.bench
    before = bench.send_all(small_series(6))
    bad = bench.send(scene.poison)
    others = before + bench.send_all(small_series(6))
    scene.strike(scene.supervisor.hang)
    bridge = bench.start("run")
    scene.assert_found_out(bridge, bad, others)


def test_a_server_that_is_back_at_once(scene: Scene) -> None:
    """Alone in the feed there is nobody else to be served: only its deaths tell."""
    scene.supervisor.restart_after_s = 0.0
    bad = scene.bench.send(scene.poison)
    scene.strike(scene.supervisor.kill)
    bridge = scene.bench.start("run")
    wait_until(
        lambda: bool(bridge.logged("instance_parked")) or scene.supervisor.deaths > DEATHS_MAX,
        "an end of it",
        PATIENCE_S,
    )
    assert scene.supervisor.deaths <= DEATHS_MAX
    scene.assert_found_out(bridge, bad, [])
