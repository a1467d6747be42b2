"""What was delivered in the last quarter of an hour, hour, day and month, and what held it up.

Counts in intervals, lists of bounded length; as one text of a few KB in the ledger, so that they
are kept over restarts. An interval in which the bridge did not run is missing.

What this process counts has the age that a clock shows which nobody sets. What was kept before is
placed by the clock on the wall, the only one that both know of. So a clock that is set, either way,
empties nothing: what is kept is out of sight while that clock is wrong, and is there again.
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
QUARTER_HOUR = "quarter_hour"
SPANS = {QUARTER_HOUR: (10, 90), "hour": (60, 60), "day": (900, 96), "month": (6 * 3600, 120)}
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


def since_boot_s() -> float:
    """Return seconds since the machine started, its sleep included; never set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Intervals:
    """One list of intervals. ``now`` and ``steady``: seconds, the second by a clock nobody sets."""

    def __init__(self, interval_s: int, count: int) -> None:
        self.interval_s = interval_s
        self._count = count
        self._own: dict[int, Interval] = {}
        """What this process has counted, by number of the interval on the clock nobody sets."""
        self._kept: dict[int, Interval] = {}
        """What was kept before, by number on the wall."""
        self._first: int | None = None
        """The first of its own: what is kept of a later one was noted by another clock."""

    def present(self, *, steady: float) -> Interval:
        """Return the interval that is under way."""
        number = self._number(steady)
        if self._first is None:
            self._first = number
        if number not in self._own:
            for old in [n for n in self._own if n <= number - self._count]:
                del self._own[old]
        return self._own.setdefault(number, Interval())

    def told(self, *, now: float, steady: float) -> ThroughputOf:
        """Return the intervals up to now."""
        ahead, last = self._ahead(now, steady), self._number(now)
        shown = range(last - self._count + 1, last + 1)
        found = [
            self._at(number, ahead)
            if self._may_be_kept(number - ahead)
            else self._own.get(number - ahead)
            for number in shown
        ]
        return ThroughputOf(
            self.interval_s,
            tuple(one.instances if one else 0 for one in found),
            tuple(one.target_bytes if one else 0 for one in found),
            tuple(_longest(one) for one in found),
            tuple(round(sum(one.held_s.values()), 1) if one else 0.0 for one in found),
        )

    def rows(self, *, now: float, steady: float) -> dict[str, list[object]]:
        """Return what is to be kept, JSON-ready, by number on the wall.

        No more than twice what is shown: what lies out of sight now may be seen again.
        """
        ahead, last = self._ahead(now, steady), self._number(now)
        numbers = self._kept.keys() | {number + ahead for number in self._own}
        nearest = sorted(numbers, key=lambda number: abs(last - number))[: 2 * self._count]
        rows: dict[str, list[object]] = {}
        for number in sorted(nearest):
            if (one := self._at(number, ahead)) is not None:
                held = {why: round(seconds, 1) for why, seconds in one.held_s.items()}
                rows[str(number)] = [one.instances, one.target_bytes, held]
        return rows

    def begin_with(self, kept: dict[int, Interval]) -> None:
        """Go on from what was kept."""
        self._kept = kept

    def _may_be_kept(self, own_number: int) -> bool:
        return self._first is None or own_number <= self._first

    def _number(self, seconds: float) -> int:
        return int(seconds // self.interval_s)

    def _ahead(self, now: float, steady: float) -> int:
        """Return how much larger a number on the wall is than the same one on the other clock."""
        return self._number(now) - self._number(steady)

    def _at(self, number: int, ahead: int) -> Interval | None:
        own, kept = self._own.get(number - ahead), self._kept.get(number)
        if own is None or kept is None or not self._may_be_kept(number - ahead):
            return own or kept
        both = Interval(own.instances + kept.instances, own.target_bytes + kept.target_bytes)
        for why in own.held_s.keys() | kept.held_s.keys():
            both.held_s[why] = own.held_s.get(why, 0.0) + kept.held_s.get(why, 0.0)
        return both


class ThroughputHistory:
    """Counts, and keeps the counts. Read from other threads."""

    def __init__(
        self,
        *,
        now_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = since_boot_s,
    ) -> None:
        self._now_s = now_s
        self._steady_s = steady_s
        self._lock = threading.Lock()
        # From the clock on the wall on, so that intervals of both clocks begin at the same moments
        # until the first is set.
        self._ahead_s = now_s() - steady_s()
        self._spans = {name: Intervals(*lengths) for name, lengths in SPANS.items()}
        self._ledger: Ledger | None = None
        self._saved_s = steady_s()
        self._reported_s: float | None = None

    @contextmanager
    def kept_in(self, ledger: Ledger) -> Iterator[None]:
        """Go on from what the ledger has, and save to it, until the block ends."""
        with self._lock:
            for name, kept in _read(ledger.meta(HISTORY_KEY)).items():
                self._spans[name].begin_with(kept)
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
            now, steady = self._clocks()
            return {name: span.told(now=now, steady=steady) for name, span in self._spans.items()}

    def _clocks(self) -> tuple[float, float]:
        return self._now_s(), self._steady_s() + self._ahead_s

    def _present(self) -> list[Interval]:
        """Return the interval of each span that is under way."""
        steady = self._clocks()[1]
        return [span.present(steady=steady) for span in self._spans.values()]

    def _save(self) -> None:
        self._saved_s = self._steady_s()
        if self._ledger is None:
            return
        with self._lock:
            now, steady = self._clocks()
            rows = {name: span.rows(now=now, steady=steady) for name, span in self._spans.items()}
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
        kept = {
            name: list(rows.get(name, {}).items())[-2 * count :]
            for name, (_, count) in SPANS.items()
        }
        return {
            name: {
                int(number): Interval(
                    _count(instances),
                    _count(size),
                    {str(why): float(seconds) for why, seconds in held.items()},
                )
                for number, (instances, size, held) in intervals
            }
            for name, intervals in kept.items()
        }
    except (ValueError, TypeError, AttributeError):
        return {name: {} for name in SPANS}


def _count(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        raise ValueError("not a count")
    return value
