"""A bridge as a process against a source that replays a feed that is not in order.

It is killed at random moments and started again: every instance arrives, nothing is believed to be
deleted or another feed, and in the end all is well. By default one recording is replayed, ten times
as fast as it was; TRACE_TIMES=1 replays all, at their speed (minutes). tests/simulation replays all
of them at both speeds each time, with the same service on a simulated machine.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.ledger.store import Ledger
from tests.bridge_process import BridgeProcess, wait_until
from tests.fake_orthanc import FakeOrthanc
from tests.fake_pair import FakePair
from tests.feed_traces import Habits, Trace, TracedStore, TracedTarget, model_trace, read_trace
from tests.shared_samples import TRACES

TIMES = float(os.environ.get("TRACE_TIMES", "10"))
RECORDINGS = ["bursts.tsv.gz"]
if "TRACE_TIMES" in os.environ:
    RECORDINGS += ["one-orthanc-50-writers.tsv.gz", "four-orthancs-200-writers.tsv.gz"]
NEW = {"version": "1.13.0", "extended_changes": True}
POSTGRESQL = {"DatabaseBackendPlugin": "libOrthancPostgreSQLIndex.so"}
KILLS = 3
ARRIVE_S = 120.0


class Clock:
    """Milliseconds since ``begin``."""

    def __init__(self) -> None:
        self._begun_s: float | None = None

    def begin(self) -> None:
        if self._begun_s is None:
            self._begun_s = time.monotonic()

    def __call__(self) -> float:
        return 0.0 if self._begun_s is None else 1000 * (time.monotonic() - self._begun_s)


class Replay:
    """A source that replays a trace, a target, and a bridge between them."""

    def __init__(self, trace: Trace, home: Path, start: Callable[..., FakeOrthanc]) -> None:
        self.trace = trace
        self.clock = Clock()
        self.store, self.arrived = TracedStore(trace, self.clock), TracedTarget(trace)
        source, target = start(**NEW, system=POSTGRESQL), start(**NEW)
        source.store, target.store = self.store, self.arrived
        self.pair = FakePair(source.url, target.url, home, SERVERS_ARE_DISTINCT="true")

    def count(self) -> int:
        return len(self.arrived.arrivals)

    def run(self, draw: random.Random, *, kills: int) -> BridgeProcess:
        """Follow, with kills when a random part has arrived; return the bridge that lives."""
        all_of_them = len(self.trace.instances)
        moments = sorted(draw.sample(range(1, all_of_them), kills))
        bridge = self.pair.start("run")
        self.clock.begin()
        for moment in moments:
            wait_until(lambda wanted=moment: self.count() >= wanted, "some arrive", ARRIVE_S)  # type: ignore[misc]
            bridge.kill()
            bridge = self.pair.start("run")
        return bridge

    def checkpoint(self) -> int:
        with Ledger(self.pair.state_path, create=False) as ledger:
            return ledger.checkpoint() or 0


def assert_all_arrives(replay: Replay, bridge: BridgeProcess) -> None:
    wanted = set(replay.trace.instances)
    wait_until(lambda: set(replay.arrived.arrivals) >= wanted, "all arrives", ARRIVE_S)
    assert set(replay.arrived.arrivals.values()) == {1}
    newest = max(row.seq for _, row in replay.trace.rows)
    said = bridge.wait_health(
        lambda said: said["checkpoint"] == newest and said["caught_up"], "it is at the end"
    )
    assert said["reasons"] == []
    assert bridge.is_running
    assert bridge.logged("feed_reset") == []
    assert not any(line["missing"] for line in bridge.logged("page_read"))
    assert bridge.logged("instance_skipped") == []
    assert replay.pair.parked() == {}


@pytest.fixture
def replay_of(
    tmp_path: Path, fake_orthanc: Callable[..., FakeOrthanc]
) -> Iterator[Callable[[Trace], Replay]]:
    """Make a replay of a trace; its bridge ends with the test."""
    with ExitStack() as stack:

        def make(trace: Trace) -> Replay:
            replay = Replay(trace, tmp_path / "home", fake_orthanc)
            stack.callback(replay.pair.close)
            return replay

        yield make


@pytest.mark.traces
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording(name: str, replay_of: Callable[[Trace], Replay]) -> None:
    replay = replay_of(read_trace(TRACES / name).faster(TIMES))
    bridge = replay.run(random.Random(name), kills=KILLS)
    assert_all_arrives(replay, bridge)


@pytest.mark.parametrize("seed", [1])
def test_a_model(seed: int, replay_of: Callable[[Trace], Replay]) -> None:
    """Needs no recording; with transactions that are held for longer than a kill and a start."""
    habits = Habits(instances=250, writers=100, aborts=0.05, held=0.05, held_ms=8000.0, bursts=2)
    replay = replay_of(model_trace(seed, habits))
    bridge = replay.run(random.Random(seed), kills=KILLS)
    assert_all_arrives(replay, bridge)


def test_once_again_and_again(replay_of: Callable[[Trace], Replay]) -> None:
    """``run --once`` waits for what is still to become visible, and says with 3 what stays."""
    habits = Habits(instances=120, writers=60, aborts=0.05, held=0.05, held_ms=3000.0, stable=False)
    replay = replay_of(model_trace(5, habits))
    replay.clock.begin()
    codes = []
    while not replay.store.is_over() or set(replay.arrived.arrivals) < set(replay.trace.instances):
        codes.append(replay.pair.run("run", "--once", COMMAND_PATIENCE_S="2").exit_code)
        assert len(codes) < 20
    assert set(codes) <= {0, 3}
    assert set(replay.arrived.arrivals.values()) == {1}
