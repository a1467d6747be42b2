"""Who can work now, and since when nobody could."""

from __future__ import annotations

from bridge.core.crew import Crew
from bridge.core.errors import ConfigurationError
from bridge.core.model import ExecutorFailed, Outcome
from bridge.runtime import Clock
from bridge.workers import Executor

EXECUTOR_ADVICE = "Instances lost no attempt. Run orthanc-bridge doctor."


class Hands:
    """An executor's state, as the loop must know it."""

    def __init__(self, executor: Executor, clock: Clock) -> None:
        self._executor = executor
        self._clock = clock
        self._unusable_since_s: float | None = None
        self._failed_s = self._failing_s = 0.0
        self.crew: Crew = executor.crew()
        self.error = ""
        """Of the attempt that was lost last, when none has come back since."""

    def look(self) -> None:
        """See who is there: a cluster grows, shrinks and may be away."""
        self.crew = self._executor.crew()
        if not self.crew.problem:
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
        # Up to this failure, not up to now: a task that is still under way may yet succeed.
        self._failing_s = now_s - self._failed_s

    def trouble(self, patience_s: float, *, needed: bool) -> ConfigurationError | None:
        """Return why it is hopeless to wait longer. ``needed``: something is to be started yet."""
        if self._unusable_since_s is not None and needed:
            if self._clock.steady_s() - self._unusable_since_s < patience_s:
                return None
            return ConfigurationError(self.crew.message, advice=self.crew.advice)
        if self.error and self._failing_s >= patience_s:
            return ConfigurationError(self.error, advice=EXECUTOR_ADVICE)
        return None
