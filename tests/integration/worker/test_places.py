"""Places that workers share: bounded, given back by the dead, and nobody is blamed for waiting."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator

import pytest

from bridge.model import Delivered, InstanceFailed, Outcome, Reason, Task
from bridge.worker.pool import LocalExecutor
from tests.integration.worker.test_workers import WAIT_S, task
from tests.worker_functions import WORK_S, in_a_place

MEMORY_BYTES = 512 * 1024 * 1024
TRANSFERS = 6


class Crowd:
    """An executor of which many tasks are under way, and few have a place."""

    def __init__(self, places: int) -> None:
        self.ended: queue.Queue[tuple[Task, Outcome]] = queue.Queue()
        self.executor = LocalExecutor(
            lambda task, outcome: self.ended.put((task, outcome)),
            workers=TRANSFERS,
            places=places,
            memory_bytes=MEMORY_BYTES,
            function=in_a_place,
        )

    def run(self, *tasks: Task) -> dict[str, Outcome]:
        for each in tasks:
            self.executor.submit(each)
        found: dict[str, Outcome] = {}
        while len(found) < len(tasks):
            ended, outcome = self.ended.get(timeout=WAIT_S)
            found[ended.move.instance_id] = outcome
        return found


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    made = Crowd(places=1)
    made.run(*(task(f"work-{number}") for number in range(TRANSFERS)))
    yield made
    made.executor.close()


def test_one_place_is_for_one_at_a_time(crowd: Crowd) -> None:
    count = 2 * TRANSFERS
    begun_s = time.monotonic()
    ended = crowd.run(*(task(f"work-{number}") for number in range(count)))
    assert time.monotonic() - begun_s >= count * WORK_S
    assert all(isinstance(outcome, Delivered) for outcome in ended.values())


@pytest.mark.parametrize("name", ["segfault", "exit", "eat"])
@pytest.mark.parametrize("at", [0, 3, 6], ids=["first", "middle", "last"])
def test_who_dies_in_a_place_leaves_it_to_the_next(crowd: Crowd, name: str, at: int) -> None:
    names = [f"work-{number}" for number in range(6)]
    names.insert(at, name)
    ended = crowd.run(*map(task, names))
    assert isinstance(ended.pop(name), InstanceFailed)
    assert all(isinstance(outcome, Delivered) for outcome in ended.values()), ended


@pytest.mark.parametrize("at", [0, 2, 4], ids=["first", "middle", "last"])
def test_who_waits_for_one_that_hangs_is_not_out_of_time(crowd: Crowd, at: int) -> None:
    """Each has 1.5 s of its own, and those behind two that hang wait for 3."""
    names = [f"work-{number}" for number in range(4)]
    hanging = ["hang", "hang-in-c"]
    names[at:at] = hanging
    ended = crowd.run(*(task(name, timeout_s=1.5) for name in names))
    for name in hanging:
        outcome = ended.pop(name)
        assert isinstance(outcome, InstanceFailed)
        assert outcome.reason is Reason.TIMED_OUT
    assert all(isinstance(outcome, Delivered) for outcome in ended.values()), ended


@pytest.mark.parametrize("at", [0, 4, 8], ids=["first", "middle", "last"])
def test_nobody_waits_for_one_that_hangs_while_others_come_free(at: int) -> None:
    """Two places: one is blocked for a minute, the other is for all that wait."""
    made = Crowd(places=2)
    try:
        made.run(*(task(f"work-{number}") for number in range(TRANSFERS)))
        names = [f"work-{number}" for number in range(8)]
        names.insert(at, "hang")
        for each in names:
            made.executor.submit(task(each, timeout_s=60.0))
        begun_s = time.monotonic()
        ended = {made.ended.get(timeout=WAIT_S)[0].move.instance_id for _ in range(8)}
        assert ended == {*names} - {"hang"}
        assert time.monotonic() - begun_s < 30.0
    finally:
        made.executor.close()
