"""A limit on the rate of something, as arithmetic: a token bucket that may go into debt.

This file must not know: sockets, files, clocks, logging, settings.
Time enters as an argument, in seconds of any steady clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.core.schedule import Schedule

BITS_A_MEGABIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much may be moved: 0 means without limit. ``mbit_s`` counts both directions.

    ``quiet_hours``: the schedule as it was written.
    """

    instances_s: float = 0.0
    mbit_s: float = 0.0
    schedule: Schedule | None = None
    quiet_hours: str = ""


class Bucket:
    """Lets through ``rate_s`` units a second on average; 0 means no limit.

    What something costs may be known only afterwards (the size of an instance), so a charge can
    make the level negative; then nothing is let through until the debt is paid.
    """

    def __init__(self, rate_s: float, *, now_s: float) -> None:
        self._rate_s = rate_s
        self._level = rate_s
        self._at_s = now_s

    def ready_in_s(self, *, now_s: float) -> float:
        """Seconds until the next one may pass; 0 means now."""
        if not self._rate_s:
            return 0.0
        self._refill(now_s)
        return 0.0 if self._level > 0 else (1e-9 - self._level) / self._rate_s

    def charge(self, amount: float, *, now_s: float) -> None:
        """Pay for something."""
        if self._rate_s:
            self._refill(now_s)
            self._level -= amount

    def _refill(self, now_s: float) -> None:
        # At most one second's worth is saved up: after a pause there is no burst.
        earned = (now_s - self._at_s) * self._rate_s
        self._level = min(max(self._rate_s, 1.0), self._level + earned)
        self._at_s = now_s
