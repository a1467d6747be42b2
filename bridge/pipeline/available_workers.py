"""Who can work now, and since when nobody could."""

from __future__ import annotations

from typing import Protocol

from bridge.errors import ConfigurationError
from bridge.events import Workforce
from bridge.model import ExecutorFailed, Outcome, Task
from bridge.pipeline.runtime import Clock


class Executor(Protocol):
    """Runs tasks elsewhere."""

    def submit(self, task: Task) -> None:
        """Start a task; its outcome arrives where the executor was told to put it."""

    def workforce(self) -> Workforce:
        """Look after the workers and describe who works now.

        The thread that submits tasks calls this again and again while tasks are open: that is how
        lost tasks are found.
        """


EXECUTOR_ADVICE = "Instances lost no attempt. Run orthanc-bridge doctor."


class AvailableWorkers:
    """What the loop knows of the executor: who works, and whether attempts are being lost."""

    def __init__(self, executor: Executor, clock: Clock) -> None:
        self._executor = executor
        self._clock = clock
        self._unusable_since_s: float | None = None
        self._failed_s = self._failing_s = 0.0
        self.workforce: Workforce = executor.workforce()
        self.error = ""
        """What the executor said when it lost an attempt; "" once an attempt has ended well."""

    def refresh(self) -> None:
        """Ask who works now: a cluster grows, shrinks and may be away."""
        self.workforce = self._executor.workforce()
        if not self.workforce.problem:
            self._unusable_since_s = None
        elif self._unusable_since_s is None:
            self._unusable_since_s = self._clock.steady_s()

    def note(self, outcome: Outcome) -> None:
        """Learn from an outcome whether workers work."""
        if not isinstance(outcome, ExecutorFailed):
            self.error = ""
            return
        now_s = self._clock.steady_s()
        if not self.error:
            self.error = f"{outcome.message} {outcome.advice}".strip()
            self._failed_s = now_s
        # Counted up to this failure, not up to now: a task that is under way may yet succeed.
        self._failing_s = now_s - self._failed_s

    def trouble(self, patience_s: float, *, needed: bool) -> ConfigurationError | None:
        """Return why waiting longer is useless. ``needed``: something is still to be started."""
        if self._unusable_since_s is not None and needed:
            if self._clock.steady_s() - self._unusable_since_s < patience_s:
                return None
            return ConfigurationError(self.workforce.message, advice=self.workforce.advice)
        if self.error and self._failing_s >= patience_s:
            return ConfigurationError(self.error, advice=EXECUTOR_ADVICE)
        return None
