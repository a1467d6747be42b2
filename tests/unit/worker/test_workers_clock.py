"""A clock that is set while tasks run costs no instance an attempt."""

from __future__ import annotations

import queue
import time
import types

import pebble.pool.process
import pytest

from bridge.model import ExecutorFailed, InstanceFailed, Outcome, Reason
from bridge.worker.pool import LocalExecutor
from tests.integration.worker.test_workers import task
from tests.worker_functions import misbehave


def _outcome_after(
    monkeypatch: pytest.MonkeyPatch, *, timeout_s: float, clock_set_by_s: float
) -> Outcome:
    ended: queue.Queue[Outcome] = queue.Queue()
    executor = LocalExecutor(
        lambda _, outcome: ended.put(outcome),
        workers=1,
        memory_bytes=512 * 1024 * 1024,
        function=misbehave,
    )
    try:
        executor.submit(task("hang", timeout_s=timeout_s))
        while not any(opened.future.running() for opened in executor._open.values()):
            time.sleep(0.01)
        late = types.SimpleNamespace(time=lambda: time.time() + clock_set_by_s, sleep=time.sleep)
        monkeypatch.setattr(pebble.pool.process, "time", late)
        return ended.get(timeout=30)
    finally:
        executor.close()


@pytest.mark.slow
def test_a_clock_that_is_set_while_a_task_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was asleep, or the first answer of a time server after a boot."""
    outcome = _outcome_after(monkeypatch, timeout_s=300.0, clock_set_by_s=3600.0)
    assert isinstance(outcome, ExecutorFailed), outcome


@pytest.mark.slow
def test_a_task_that_really_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = _outcome_after(monkeypatch, timeout_s=0.5, clock_set_by_s=0.0)
    assert isinstance(outcome, InstanceFailed)
    assert outcome.reason is Reason.TIMED_OUT
