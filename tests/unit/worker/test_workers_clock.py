"""A clock that is set while tasks run costs no instance an attempt."""

from __future__ import annotations

import queue
import time

import pytest

from bridge.model import InstanceFailed, Outcome, Reason, Skipped
from bridge.worker.pool import LocalExecutor
from tests.integration.worker.test_workers import task
from tests.worker_functions import misbehave


def _outcomes(monkeypatch: pytest.MonkeyPatch, *, clock_set_by_s: float) -> dict[str, Outcome]:
    """What becomes of one that hangs, and of one in good health, when the clock is set."""
    ended: queue.Queue[tuple[str, Outcome]] = queue.Queue()
    executor = LocalExecutor(
        lambda task, outcome: ended.put((task.move.instance_id, outcome)),
        workers=2,
        memory_bytes=512 * 1024 * 1024,
        function=misbehave,
    )
    try:
        executor.submit(task("hang", timeout_s=2.0))
        executor.submit(task("good-1"))
        first = ended.get(timeout=30)
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + clock_set_by_s)
        begun_s = time.monotonic()
        seen = dict([first, ended.get(timeout=30)])
        assert time.monotonic() - begun_s > 1.0, "its time was not over"
        return seen
    finally:
        executor.close()


@pytest.mark.slow
@pytest.mark.parametrize("clock_set_by_s", [3600.0, -3600.0, 0.0])
def test_a_task_has_its_time_whatever_the_clock_says(
    monkeypatch: pytest.MonkeyPatch, clock_set_by_s: float
) -> None:
    """A machine that was asleep, or the first answer of a time server after a boot."""
    seen = _outcomes(monkeypatch, clock_set_by_s=clock_set_by_s)
    assert isinstance(seen["good-1"], Skipped)
    assert isinstance(seen["hang"], InstanceFailed)
    assert seen["hang"].reason is Reason.TIMED_OUT
