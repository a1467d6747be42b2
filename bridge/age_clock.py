"""A clock to measure ages by, for whoever deletes what is old enough."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from bridge.log_lines import log

JUMP_S = 60.0
"""The clock may be set forward by so much at once and still be believed."""


class AgeClock:
    """Epoch seconds to measure ages by: a clock that is set forward makes nothing older.

    After a jump the time goes on as before it; the new time is believed when it has stayed for
    ``wait_s``, since everything noted under the old one is then old enough in truth. A second jump
    meanwhile begins the wait anew. ``steady_s`` must go on while the machine sleeps. A jump while
    the bridge is stopped is not noticed.
    """

    def __init__(
        self, wait_s: float, *, now_s: Callable[[], float], steady_s: Callable[[], float]
    ) -> None:
        self._wait_s = wait_s
        self._now_s = now_s
        self._steady_s = steady_s
        self._base = (now_s(), steady_s())
        self._jumped_at_s: float | None = None
        self._ahead_s = 0.0

    def now_s(self) -> float:
        """Return the time."""
        now_s, steady_s = self._now_s(), self._steady_s()
        expected_s = self._base[0] + steady_s - self._base[1]
        ahead_s = now_s - expected_s
        if ahead_s > JUMP_S:
            if self._jumped_at_s is None or ahead_s > self._ahead_s + JUMP_S:
                self._jumped_at_s, self._ahead_s = steady_s, ahead_s
                text = f"the clock was set forward by {ahead_s:.0f} s"
                log(logging.WARNING, "clock_jumped", f"{text}: nothing is deleted earlier for it")
            self._ahead_s = min(self._ahead_s, ahead_s)  # set back a little: then forward again
            if steady_s - self._jumped_at_s < self._wait_s:
                return expected_s
        self._jumped_at_s = None
        self._base = (now_s, steady_s)
        return now_s


def boot_time_s() -> float:
    """Return seconds since the machine started, its sleep included; never set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
