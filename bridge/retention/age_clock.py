"""A clock to measure ages by, for whoever deletes what is old enough. Nobody can set it.

It shows the seconds that have passed, as far as that is certain, since a state file was made. The
clock on the wall may be set, by a person or by NTP, while the bridge runs or while it does not: so
only what has passed by the machine's own counter since its start *and* by the clock on the wall
counts. After a restart of the machine its counter begins anew: what passed in between is not known
and does not count. So an error makes evidence younger and never older.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

from bridge.ledger.lock import explained
from bridge.ledger.store import Ledger
from bridge.log import log

AGE_CLOCK_KEY = "age_clock"
"""Ledger: what the clock showed last, and both others and the machine's start then."""
JUMP_S = 60.0
"""The clock on the wall is said to have been set when it has gained so much."""
BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")


class AgeClock:
    """Seconds that have passed for certain. Kept in the ledger."""

    def __init__(
        self,
        *,
        now_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] | None = None,
        boot_id: Callable[[], str] | None = None,
    ) -> None:
        self._now_s = now_s
        self._steady_s = steady_s or boot_time_s
        self._boot_id = boot_id or this_boot

    def now_s(self, ledger: Ledger, *, keep: bool = True) -> float:
        """Return what the clock shows. ``keep``: note it, so that it goes on from here."""
        now_s, steady_s, boot = self._now_s(), self._steady_s(), self._boot_id()
        shown = 0.0
        text = ledger.meta(AGE_CLOCK_KEY)
        with explained(ledger.path):
            before = _parsed(text)
        if before is not None:
            shown, now_before, steady_before, boot_before = before
            if boot and boot == boot_before:
                passed_s, walked_s = steady_s - steady_before, now_s - now_before
                shown += max(0.0, min(passed_s, walked_s))
                if walked_s - passed_s > JUMP_S:
                    text = f"the clock was set forward by {walked_s - passed_s:.0f} s"
                    text += ": this makes no instance old enough for deletion"
                    log(logging.WARNING, "clock_jumped", text)
        if keep:
            ledger.set_meta(AGE_CLOCK_KEY, f"{shown!r} {now_s!r} {steady_s!r} {boot or '-'}")
        return shown


def _parsed(text: str | None) -> tuple[float, float, float, str] | None:
    if text is None:
        return None
    *numbers, boot = text.split(" ")
    shown, now_s, steady_s = map(float, numbers)
    if not all(map(math.isfinite, (shown, now_s, steady_s))):
        raise ValueError("not a time")
    return shown, now_s, steady_s, boot


def boot_time_s() -> float:
    """Return seconds since the machine started, its sleep included; never set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def this_boot() -> str:
    """Return what tells this run of the machine from all others; "" where that is not known."""
    try:
        return BOOT_ID_PATH.read_text(encoding="ascii").strip()
    except OSError:
        return ""
