"""What was delivered in the last hour, day and month, and what held it up: kept over restarts.

Counts in intervals, three lists of bounded length; as one text of a few KB in the ledger. An
interval in which the bridge did not run is missing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from bridge.errors import StateError
from bridge.events import Event, Settled
from bridge.ledger.store import Ledger
from bridge.model import Delivered

HISTORY_KEY = "throughput_history"
"""Ledger: what was delivered, as JSON."""
SAVE_EVERY_S = 60.0
REPORT_GAP_S = 10.0
"""A hold counts between two reports, for so long at most."""
SPANS = {"hour": (60, 60), "day": (900, 96), "month": (6 * 3600, 120)}
"""Name -> seconds of an interval, and how many of them."""
WHYS_MAX = 8
COUNT_MAX = 2**53


@dataclass(slots=True)
class Interval:
    """What happened in one. ``held_s``: seconds in which everything was held, by what held it."""

    instances: int = 0
    target_bytes: int = 0
    held_s: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ThroughputOf:
    """One span, the oldest interval first; the last one is under way.

    ``held``: what held everything up for longest in it, "" for nothing, "not_running" where there
    was no bridge. ``held_s``: for how long, all causes together.
    """

    interval_s: int
    instances: tuple[int, ...]
    target_bytes: tuple[int, ...]
    held: tuple[str, ...]
    held_s: tuple[float, ...]


class ThroughputHistory:
    """Counts, and keeps the counts. Read from other threads."""

    def __init__(
        self,
        *,
        now_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now_s = now_s
        self._steady_s = steady_s
        self._lock = threading.Lock()
        self._spans: dict[str, dict[int, Interval]] = {name: {} for name in SPANS}
        self._ledger: Ledger | None = None
        self._saved_s = steady_s()
        self._reported_s: float | None = None

    @contextmanager
    def kept_in(self, ledger: Ledger) -> Iterator[None]:
        """Go on from what the ledger has, and save to it, until the block ends."""
        with self._lock:
            self._spans = _read(ledger.meta(HISTORY_KEY))
        self._ledger = ledger
        try:
            yield
            self._save()
        finally:
            self._ledger = None

    def on_event(self, event: Event) -> None:
        """Count a delivery; nothing else is one."""
        if isinstance(event, Settled) and isinstance(event.outcome, Delivered):
            self.delivered(event.outcome.target_bytes)

    def delivered(self, target_bytes: int) -> None:
        """Count a delivery."""
        with self._lock:
            for interval in self._present():
                interval.instances += 1
                interval.target_bytes += target_bytes

    def reported(self, held: str) -> None:
        """Note that the bridge runs, and what holds everything now; "" for nothing."""
        now_s = self._steady_s()
        before_s, self._reported_s = self._reported_s, now_s
        with self._lock:
            for interval in self._present():
                if held and before_s is not None and len(interval.held_s) < WHYS_MAX:
                    lasted_s = min(now_s - before_s, REPORT_GAP_S)
                    interval.held_s[held] = interval.held_s.get(held, 0.0) + lasted_s
        if now_s - self._saved_s >= SAVE_EVERY_S:
            self._save()

    def spans(self) -> dict[str, ThroughputOf]:
        """Return all spans, up to now."""
        with self._lock:
            return {name: self._span(name) for name in SPANS}

    def _span(self, name: str) -> ThroughputOf:
        interval_s, count = SPANS[name]
        last = int(self._now_s() // interval_s)
        found = [self._spans[name].get(number) for number in range(last - count + 1, last + 1)]
        return ThroughputOf(
            interval_s,
            tuple(one.instances if one else 0 for one in found),
            tuple(one.target_bytes if one else 0 for one in found),
            tuple(_longest(one) for one in found),
            tuple(round(sum(one.held_s.values()), 1) if one else 0.0 for one in found),
        )

    def _present(self) -> list[Interval]:
        """Return the interval of each span that is under way; the oldest are dropped."""
        present = []
        for name, (interval_s, count) in SPANS.items():
            intervals, number = self._spans[name], int(self._now_s() // interval_s)
            if number not in intervals:
                # Only those of the span: a clock that was set leaves none behind.
                for other in [n for n in intervals if not number - count < n < number]:
                    del intervals[other]
            present.append(intervals.setdefault(number, Interval()))
        return present

    def _save(self) -> None:
        self._saved_s = self._steady_s()
        if self._ledger is None:
            return
        with self._lock:
            rows = {
                name: {
                    str(number): [
                        one.instances,
                        one.target_bytes,
                        {why: round(seconds, 1) for why, seconds in one.held_s.items()},
                    ]
                    for number, one in intervals.items()
                }
                for name, intervals in self._spans.items()
            }
        # The pipeline meets the same trouble with its own records, and reports it.
        with suppress(StateError):
            self._ledger.set_meta(HISTORY_KEY, json.dumps(rows, separators=(",", ":")))


def _longest(interval: Interval | None) -> str:
    if interval is None:
        return "not_running"
    return max(interval.held_s, key=lambda why: interval.held_s[why], default="")


def _read(text: str | None) -> dict[str, dict[int, Interval]]:
    """Read what was kept; nothing where it cannot be understood: it is a convenience."""
    try:
        rows = json.loads(text or "{}")
        return {
            name: {
                int(number): Interval(
                    _count(instances),
                    _count(size),
                    {str(why): float(seconds) for why, seconds in held.items()},
                )
                for number, (instances, size, held) in list(rows.get(name, {}).items())[-count:]
            }
            for name, (_, count) in SPANS.items()
        }
    except (ValueError, TypeError, AttributeError):
        return {name: {} for name in SPANS}


def _count(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        raise ValueError("not a count")
    return value
