"""SIGKILL of the whole bridge in mid-run: every instance arrives, exactly once."""

from __future__ import annotations

import os
import signal
from functools import partial

import pytest

from tests.bridge_process import is_alive, wait_until
from tests.dicom_samples import small_series
from tests.integration.conftest import Pair

pytestmark = pytest.mark.orthanc

INSTANCES = 200
KILLS_AFTER = (3, 10, 1, 15)
"""Deliveries of a run after which it is killed."""
RATE_S = 20
"""Of each run that is killed; so many go at once, and then it is slow: this process may be late."""


def _all_dead(pids: list[int]) -> bool:
    return not any(map(is_alive, pids))


def test_killed_again_and_again_it_delivers_everything_exactly_once(pair: Pair) -> None:
    sent = [pair.send(data) for data in small_series(INSTANCES, rows=128, columns=128)]
    checkpoints = [0]
    for deliveries in KILLS_AFTER:
        bridge = pair.start("run", MAX_INSTANCES_S=str(RATE_S))
        bridge.wait_logged("instance_delivered", deliveries)
        workers = bridge.workers()
        assert workers
        bridge.send(signal.SIGKILL)
        assert bridge.wait() == -signal.SIGKILL
        wait_until(partial(_all_dead, workers), "the workers die too")
        assert len(pair.held()) < INSTANCES, "killed in mid-run"
        checkpoints.append(pair.checkpoint())
    assert checkpoints == sorted(checkpoints), "the checkpoint never goes back"
    done = pair.run("run", "--once", "--json")
    assert done.exit_code == 0, done.stderr
    assert done.json["parked"] == {}
    assert sorted(pair.arrivals()) == sorted(sent), "one NewInstance for each at the target"
    assert pair.held() == set(sent)
    assert pair.checkpoint() == pair.last()
    assert pair.parked() == {}


def test_what_was_settled_before_the_kill_is_not_done_again(pair: Pair) -> None:
    sent = [pair.send(data) for data in small_series(60)]
    bridge = pair.start("run", WORKERS="1")
    bridge.wait_logged("instance_delivered", 20)
    bridge.send(signal.SIGKILL)
    bridge.wait()
    with pair.ledger() as ledger:
        remembered = len(ledger.settled_above())
        checkpoint = ledger.checkpoint() or 0
    rows = [c for c in pair.source.changes(0, 1000).changes if c.change_type == "NewInstance"]
    remembered += sum(row.sequence <= checkpoint for row in rows)
    done = pair.run("run", "--once", "--json")
    assert done.exit_code == 0
    again = done.json["already_there"]
    assert again + done.json["delivered"] == len(sent) - remembered, "what was settled is not"
    assert again <= 6, "what was under way"


def test_a_killed_worker_costs_nobody_but_an_attempt(pair: Pair) -> None:
    bridge = pair.start("run")
    first = [pair.send(data) for data in small_series(5)]
    wait_until(lambda: set(first) <= pair.held(), "the first ones arrive")
    for pid in bridge.workers():
        os.kill(pid, signal.SIGKILL)
    more = [pair.send(data) for data in small_series(20)]
    wait_until(lambda: set(more) <= pair.held(), "the others arrive")
    bridge.wait_health(lambda health: health["checkpoint"] == pair.last(), "all is settled")
    assert pair.parked() == {}
    assert sorted(pair.arrivals()) == sorted(first + more)
