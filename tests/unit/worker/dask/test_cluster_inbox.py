"""The inbox of the cluster's executor: a burst loses nothing."""

from __future__ import annotations

import time

import pytest

from bridge.model import Endpoint, ExecutorFailed, Job, Move, Outcome, SideName, Task

executor_module = pytest.importorskip("bridge.worker.dask.executor")

JOB = Job(Endpoint(SideName.SOURCE, "http://a"), Endpoint(SideName.TARGET, "http://b"), "1.2")


@pytest.mark.parametrize("more", [-1, 0, 1, 2, 1500])
def test_every_task_of_a_burst_has_an_end(more: int) -> None:
    """Without a worker each is given back: the one after the last of a batch as well."""
    ended: list[int] = []

    def done(task: Task, outcome: Outcome) -> None:
        assert isinstance(outcome, ExecutorFailed)
        ended.append(task.number)

    made = executor_module.DaskExecutor(done, address="tcp://127.0.0.1:9", tls=None)
    count = executor_module.TAKE_MAX + more
    for number in range(count):
        made.submit(Task(Move(f"i{number}"), JOB, number))
    while len(ended) < count:
        before = len(ended)
        made._take(time.monotonic())
        assert len(ended) > before, f"{count - len(ended)} were lost"
    assert ended == list(range(count))
