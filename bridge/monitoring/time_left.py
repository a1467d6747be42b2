"""How long the backlog will take, as a range: a pure function of what was done lately.

This file must not know: sockets, files, clocks, logging, settings.

The rate is measured over the last minute, the last five and all that is remembered. What comes in
meanwhile is subtracted: only the rest shortens the backlog. Time in which nothing could be done (a
pause, quiet hours, an outage) does not count: it says nothing of how fast the work goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STEPS_MIN = 3
"""From so few intervals no estimate is made."""
WINDOWS_S = (60.0, 300.0)
"""Beside all that is remembered."""


@dataclass(frozen=True, slots=True)
class FeedStep:
    """What one interval did to the backlog, in changes: ``done`` left it, ``new`` joined it.

    ``able``: work could be done all the time.
    """

    done: int
    new: int
    able: bool


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """A range in seconds. ``to_s`` None: it may take for ever, at the slowest rate seen lately.

    Both None: more came in than was done, in each of the windows.
    """

    from_s: float | None
    to_s: float | None


def time_left(changes: int, steps: Sequence[FeedStep], *, step_s: float) -> TimeLeft | None:
    """Estimate when ``changes`` are done; None when that cannot be said.

    ``steps``: the intervals that are over, the oldest first, each ``step_s`` long.
    """
    able = [step for step in steps if step.able]
    if changes <= 0 or len(able) < STEPS_MIN:
        return None
    lengths = {min(len(able), round(window_s / step_s)) for window_s in WINDOWS_S} | {len(able)}
    rates = [_rate(able[-max(STEPS_MIN, length) :], step_s) for length in lengths]
    slowest, fastest = min(rates), max(rates)
    if fastest <= 0:
        return TimeLeft(None, None)
    return TimeLeft(changes / fastest, None if slowest <= 0 else changes / slowest)


def _rate(steps: Sequence[FeedStep], step_s: float) -> float:
    """By how many changes a second the backlog became shorter."""
    return sum(step.done - step.new for step in steps) / (len(steps) * step_s)


def left_in_words(left: TimeLeft | None) -> str:
    """Write an estimate, rounded to one unit; "" without one."""
    if left is None:
        return ""
    if left.from_s is None:
        return "more arrives than is delivered"
    first = _rough(left.from_s)
    if left.to_s is None:
        return f"at least {first} left"
    last = _rough(left.to_s)
    return f"about {first} left" if first == last else f"{first} to {last} left"


def _rough(seconds: float) -> str:
    for unit_s, unit in ((2 * 86_400, "d"), (2 * 3600, "h"), (60, "min")):
        if seconds >= unit_s:
            whole = {"d": 86_400, "h": 3600, "min": 60}[unit]
            return f"{round(seconds / whole)} {unit}"
    return "less than 1 min"
