"""Two bridges between two real servers that both overwrite: A to B and B to A."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bridge_process import BridgeProcess, wait_until
from tests.dicom_samples import small_series
from tests.fault_bench import Bench
from tests.integration.conftest import Between
from tests.transfer_world import rle

pytestmark = pytest.mark.orthanc

OVERWRITES = {"OverwriteInstances": True}
LAPS = 5
"""So often both bridges must have read to the end of their feeds, and nothing has arrived."""


@dataclass
class Both:
    """Two bridges that run against each other, each with a state of its own."""

    benches: tuple[Bench, Bench]
    bridges: list[BridgeProcess]

    def start(self) -> None:
        self.bridges = [bench.start("run") for bench in self.benches]

    def end(self, number: signal.Signals) -> None:
        for bridge in self.bridges:
            bridge.send(number)
        for bridge in self.bridges:
            bridge.wait()

    def ends(self) -> tuple[int, ...]:
        return tuple(bench.last() for bench in self.benches)

    def await_rest(self) -> None:
        """Wait until nothing moves: both feeds stay as they are while both bridges read them."""
        rests = 0

        def read_to(bridge: BridgeProcess, last: int) -> None:
            bridge.wait_health(
                lambda said: (said["checkpoint"] or 0) >= last, f"it has read to {last}"
            )

        def at_rest() -> bool:
            nonlocal rests
            before = self.ends()
            for bridge, last in zip(self.bridges, before, strict=True):
                read_to(bridge, last)
            rests = rests + 1 if self.ends() == before else 0
            return rests == LAPS

        wait_until(at_rest, "moves stop", 60.0)


@pytest.fixture
def both(between: Between, tmp_path: Path) -> Iterator[Both]:
    bench, first, second = between(source=OVERWRITES, target=OVERWRITES)
    home = tmp_path / "back"
    home.mkdir()
    with ExitStack() as stack:
        back = stack.enter_context(Bench(second.url, first.url, home))
        yield Both((bench, back), [])


@pytest.mark.timeout(300)
def test_moves_stop_and_it_is_said_and_restarts_begin_nothing_anew(both: Both) -> None:
    """Proves C2. Without the recall from the ledger a restart sends what comes again once more."""
    there, back = both.benches
    both.start()
    files = [rle(), *small_series(2)]
    sent = {there.send(data) for data in files}
    wait_until(lambda: there.held() == sent, "all is delivered")
    both.await_rest()
    forth, _ = both.bridges
    assert len(forth.logged("instance_skipped", reason="came_back")) >= len(sent)
    assert forth.wait_reason("instances_came_back")
    _, metrics = forth.get("/metrics")
    told = [line for line in str(metrics).splitlines() if line.startswith("orthanc_bridge_came")]
    assert [float(line.split()[1]) >= len(sent) for line in told] == [True]

    at_a, at_b = both.ends()
    both.end(signal.SIGTERM)
    both.start()
    both.await_rest()
    assert both.ends() == (at_a, at_b), "at rest a restart moves nothing"

    for number in (signal.SIGKILL, signal.SIGTERM):
        # While they run, and between two lives.
        for data in files:
            there.send(data)
        both.end(number)
        for data in files:
            there.send(data)
        both.start()
        both.await_rest()
        assert both.ends()[0] > at_a
        assert both.ends()[1] == at_b, "what the target holds just so is not sent once more"
        at_a = both.ends()[0]
    for bench in both.benches:
        assert bench.held() == sent
        assert bench.parked() == {}
    assert back.attempts() == {}
