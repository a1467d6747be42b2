"""Signals: the first drains, the second leaves at once; nothing is lost by either."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.bridge_process import BridgeProcess, is_alive, wait_until
from tests.dicom_samples import small_series
from tests.fault_proxy import FaultProxy, Hang
from tests.integration.conftest import Pair

pytestmark = pytest.mark.orthanc

INSTANCES = 12
WINDOW = 4


class Held:
    """A bridge with WINDOW instances on their way to a target that does not answer for now."""

    def __init__(self, pair: Pair, proxy: FaultProxy) -> None:
        self.pair, self.proxy = pair, proxy
        self.sent: list[str] = []

    def start(self, *arguments: str, **settings: str) -> BridgeProcess:
        names = {"WINDOW": str(WINDOW), "TARGET_URL": self.proxy.url} | settings
        bridge = self.pair.start("run", *arguments, **names)
        first = self.pair.send(small_series(1)[0])
        # Not only held: its answer must have come back before answers hang.
        bridge.wait_logged("instance_delivered")
        assert first in self.pair.held(), "it works"
        self.proxy.strike(Hang())
        self.sent = [first, *(self.pair.send(data) for data in small_series(INSTANCES))]
        bridge.wait_health(lambda health: health["in_flight"] == WINDOW, "the window is full")
        return bridge

    def finish(self) -> None:
        """Everything arrives in the end, once."""
        self.proxy.heal()
        done = self.pair.run("run", "--once", "--json")
        assert done.exit_code == 0, done.stderr
        assert sorted(self.pair.arrivals()) == sorted(self.sent)
        assert self.pair.checkpoint() == self.pair.last()
        with self.pair.ledger() as ledger:
            assert ledger.attempts() == {}
            assert ledger.parked_by_reason() == {}


@pytest.fixture
def held(pair: Pair, fault_proxy: Callable[[int], FaultProxy]) -> Held:
    return Held(pair, fault_proxy(pair.target_server.http_port))


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_drains(held: Held, number: signal.Signals, exit_code: int) -> None:
    bridge = held.start()
    bridge.send(number)
    assert bridge.wait_logged("draining")[0]["in_flight"] == WINDOW
    held.proxy.heal()
    done = bridge.finish()
    assert done.exit_code == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(held.pair.held()) == 1 + WINDOW, "what ran has finished, nothing new was started"
    assert len(bridge.logged("instance_delivered")) == 1 + WINDOW
    held.finish()


def test_a_drain_is_bounded_and_says_what_it_abandons(held: Held) -> None:
    bridge = held.start(SHUTDOWN_TIMEOUT_S="0.5")
    bridge.send(signal.SIGTERM)
    done = bridge.finish()
    assert done.exit_code == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert bridge.logged("abandoned")[0]["in_flight"] == WINDOW
    held.finish()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_leaves_at_once(held: Held, number: signal.Signals) -> None:
    bridge = held.start()
    workers = bridge.workers()
    bridge.send(number)
    bridge.wait_logged("draining")
    bridge.send(number)
    assert bridge.wait(timeout_s=5) == 130
    wait_until(lambda: not any(map(is_alive, workers)), "the workers end with it")
    held.finish()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_drains_too(held: Held, number: signal.Signals) -> None:
    """Ctrl-C in a terminal and systemd's KillMode=control-group reach the workers as well."""
    bridge = held.start(ATTEMPTS="1")
    bridge.send_to_group(number)
    bridge.wait_logged("draining")
    held.proxy.heal()
    done = bridge.finish()
    assert bridge.logged("worker_lost") == []
    assert len(bridge.logged("instance_delivered")) == 1 + WINDOW, done.stderr
    held.finish()


def test_once_that_is_stopped_has_not_done_its_job(held: Held) -> None:
    held.sent = [held.pair.send(data) for data in small_series(INSTANCES)]
    # One a second: the machine may be slow between the first delivery and the signal.
    slowly = {"WINDOW": "1", "WORKERS": "1", "MAX_INSTANCES_S": "1"}
    bridge = held.pair.start("run", "--once", TARGET_URL=held.proxy.url, **slowly)
    bridge.wait_logged("instance_delivered")
    bridge.send(signal.SIGTERM)
    assert bridge.wait() == 130
    assert len(held.pair.held()) < INSTANCES
    held.finish()


def test_a_bridge_that_waits_for_a_server_ends_at_once(held: Held) -> None:
    held.proxy.refuse()
    bridge = held.pair.start("run", SOURCE_URL=held.proxy.url)
    bridge.wait_logged("side_down")
    bridge.send(signal.SIGTERM)
    assert bridge.wait(timeout_s=5) == 0
    assert "Traceback" not in bridge.stderr


@pytest.mark.parametrize("side", ["SOURCE_URL", "TARGET_URL"])
def test_a_server_that_never_answers_does_not_hold_the_end_up(held: Held, side: str) -> None:
    held.proxy.strike(Hang())
    bridge = held.pair.start("run", **{side: held.proxy.url})
    held.proxy.wait_struck(1)
    bridge.send(signal.SIGTERM)
    assert bridge.wait(timeout_s=5) == 0
    assert "Traceback" not in bridge.stderr
