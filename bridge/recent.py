"""What happened lately: finished instances by interval, and the last failures.

An observer; everything is bounded and forgotten with the process. Identifiers and reasons only.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from bridge.core.events import Event, InstanceParked, InstanceRetried, Progress, Settled
from bridge.core.model import Delivered, InstanceFailed, Move, Reason

INTERVAL_S = 10
INTERVALS = 90
"""How far back: a quarter of an hour."""
FAILURES_MAX = 20


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed. ``at`` is in epoch seconds; ``what``: parked or retried."""

    at: float
    what: str
    instance_id: str
    sequence: int | None
    reason: Reason
    attempts: int


@dataclass(frozen=True, slots=True)
class Throughput:
    """Finished instances and delivered bytes of each interval, the oldest first.

    The last interval is the one that is under way.
    """

    interval_s: int
    instances: tuple[int, ...]
    target_bytes: tuple[int, ...]


class Recent:
    """Remembers the last quarter of an hour. Read from other threads."""

    def __init__(
        self,
        *,
        now_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now_s = now_s
        self._steady_s = steady_s
        self._lock = threading.Lock()
        self._current = self._interval()
        self._instances: deque[int] = deque([0] * INTERVALS, maxlen=INTERVALS)
        self._bytes: deque[int] = deque([0] * INTERVALS, maxlen=INTERVALS)
        self._failures: deque[Failure] = deque(maxlen=FAILURES_MAX)

    def on_progress(self, progress: Progress) -> None:
        """Remember nothing: only what ended counts."""

    def on_event(self, event: Event) -> None:
        """Remember a delivery or a failure."""
        match event:
            case Settled(outcome=Delivered(target_bytes=size)):
                with self._lock:
                    self._advance()
                    self._instances[-1] += 1
                    self._bytes[-1] += size
            case InstanceParked(move=move, reason=reason, attempts=attempts):
                self._fail("parked", move, reason, attempts)
            case InstanceRetried(
                move=move, outcome=InstanceFailed(reason=reason), attempts=attempts
            ):
                self._fail("retried", move, reason, attempts)
            case _:
                pass

    def throughput(self) -> Throughput:
        """Return what was finished in each of the last intervals."""
        with self._lock:
            self._advance()
            return Throughput(INTERVAL_S, tuple(self._instances), tuple(self._bytes))

    def failures(self) -> tuple[Failure, ...]:
        """Return the last failures, the newest first."""
        with self._lock:
            return tuple(reversed(self._failures))

    def _fail(self, what: str, move: Move, reason: Reason, attempts: int) -> None:
        failure = Failure(self._now_s(), what, move.instance_id, move.sequence, reason, attempts)
        with self._lock:
            self._failures.append(failure)

    def _interval(self) -> int:
        return int(self._steady_s() // INTERVAL_S)

    def _advance(self) -> None:
        """Begin the intervals that have come since; the oldest fall out."""
        now = self._interval()
        for _ in range(min(now - self._current, INTERVALS)):
            self._instances.append(0)
            self._bytes.append(0)
        self._current = now
