"""Which parked instance is tried again, and when: the policy of parked_policy.py at work.

One at a time, so many an hour, and only while nothing else waits. That an attempt begins is on
record before it does: neither a crash nor a restart has the same instance tried again and again.
"""

from __future__ import annotations

from typing import Protocol

from bridge.errors import StateError
from bridge.ledger.records import Due, Parked, TriedBy
from bridge.pipeline.parked_policy import due_kinds
from bridge.pipeline.runtime import Clock

NEXT_RETRY_KEY = "parked_retry_from"
"""Ledger: no parked instance is tried again by policy before this, epoch seconds."""
LOOK_EVERY_S = 60.0
"""So often the ledger is asked while nothing is due."""


class RetryLedger(Protocol):
    """What is needed of the ledger."""

    def meta(self, key: str) -> str | None:
        """Return a remembered text, or None. Raises StateError."""

    def first_due(self, due: Due) -> Parked | None:
        """Return the parked instance of this kind that was tried longest ago. Raises StateError."""

    def begin_retry(
        self, parked: Parked, *, now: float, meta: tuple[str, str] | None = None
    ) -> bool:
        """Note that it is about to be tried again; False if it is not to. Raises StateError."""


class ParkedRetries:
    """Hands out the parked instances that are due, one after the other has come to its end.

    ``per_hour``: so many at most. ``once``: for a job that ends: what was saved up of the hour is
    used without waits, and then it is over.
    """

    def __init__(
        self,
        ledger: RetryLedger,
        *,
        tried_by: TriedBy,
        per_hour: int,
        clock: Clock,
        once: bool = False,
    ) -> None:
        self._ledger = ledger
        self._tried_by = tried_by
        self._pause_s = 3600.0 / per_hour
        self._clock = clock
        self._once = once
        self._open: str | None = None
        """The one that is being tried again."""
        self._look_due_s = clock.steady_s()
        self._left = self._saved_up(per_hour) if once else 0
        """With ``once``: so many may still be tried."""
        self.over = False
        """Whether nothing more will be handed out; only with ``once``."""

    def take(self) -> Parked | None:
        """Return the next one that is to be tried now; None while there is none."""
        now_s = self._clock.steady_s()
        if self.over or self._open is not None or now_s < self._look_due_s:
            return None
        now, parked = self._clock.now_s(), None
        try:
            early_s = self._not_before(now) - now
            if early_s > 0 and not self._once:
                self._look_due_s = now_s + early_s
                return None
            parked = self._begin_next(now)
        except StateError:
            # The pipeline meets the same error when it writes, and reports it.
            pass
        if parked is None:
            self._look_due_s = now_s + LOOK_EVERY_S
            self.over = self._once
            return None
        self._open = parked.move.instance_id
        return parked

    def end(self, instance_id: str) -> None:
        """Note that the attempt at an instance has come to its end."""
        if self._open == instance_id:
            self._open = None

    def _begin_next(self, now: float) -> Parked | None:
        if self._once:
            if not self._left:
                return None
            self._left -= 1
        for due in due_kinds(now, self._tried_by):
            parked = self._ledger.first_due(due)
            if parked is None:
                continue
            begun = (NEXT_RETRY_KEY, str(self._next_from(now)))
            if self._ledger.begin_retry(parked, now=now, meta=begun):
                return parked
        return None

    def _not_before(self, now: float) -> float:
        """Return from when one may be tried; a clock that was set back does not hold it for long.

        A text that makes no sense is no time to wait for.
        """
        try:
            return min(float(self._ledger.meta(NEXT_RETRY_KEY) or 0.0), now + self._pause_s)
        except ValueError:
            return 0.0

    def _next_from(self, now: float) -> float:
        return max(now, self._not_before(now)) + self._pause_s

    def _saved_up(self, per_hour: int) -> int:
        try:
            saved_s = self._clock.now_s() - self._not_before(self._clock.now_s())
        except StateError:
            return 0
        return max(0, min(per_hour, 1 + int(saved_s // self._pause_s)))
