"""How many instances are to be under way at once: found by trying, from what is seen.

This file must not know: sockets, files, clocks, logging, settings.

While workers wait for servers, more of them fetch and deliver more: up to where a processor, a
server or the line between is busy all the time. Nobody tells us where that is, so one step more is
tried, and kept if the rate grew with it.

    waits of the time      what is done
    ---------------------  ----------------------------------------------------------------
    not all are in use     no trial; after a while, down to what is used
    little                 processors are the limit: one step down
    much, after a step up  the rate grew: another step; it did not: back, and a pause
    much, otherwise        one step up, unless the last ones that brought nothing are recent
    a server failed        back to where it was before the trial, and a pause
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

STEP = 1.5
"""Of each step up or down."""
FULL = 0.75
"""At least so much of the time of all transfers is used where there is enough to do."""
WAITS_MUCH, WAITS_LITTLE = 0.4, 0.2
"""Of the time that instances are in hand: waiting for a server, not for a processor."""
GAIN = 0.15
"""So much of what a step up could bring at best is enough to keep it."""
PAUSE_FIRST_S, PAUSE_LONGEST_S = 10.0, 600.0
"""After a step up that brought nothing; twice as long after each further one in a row."""
SLACK_S = 10.0
"""A pause in the feed is shorter, and what was found holds after it."""
SPAN_S = 0.5
ENDED_LEAST = 8


@dataclass(frozen=True, slots=True)
class Bounds:
    """How few and how many may be under way."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class TransfersSeen:
    """What was seen over ``span_s`` seconds.

    ``used``: how many were under way, on average, and ``slack_s``: for how long that has been too
    few. ``ended``: how many instances came to an end. ``waits``: the part of their time in which
    they waited for a server. ``failed``: a server failed at one of them.
    """

    span_s: float
    ended: int
    used: float
    waits: float
    slack_s: float = 0.0
    failed: bool = False

    @property
    def rate(self) -> float:
        """Instances a second."""
        return self.ended / self.span_s

    def is_full(self, size: int) -> bool:
        """Tell whether there was enough to do for so many."""
        return self.used >= FULL * size


@dataclass(frozen=True, slots=True)
class Found:
    """How many are under way at once. ``before``: it is on trial since it was that many.

    ``rate_before``: instances a second then. ``pause_s``: nothing is tried for so long. ``vain``:
    so many trials in a row brought nothing.
    """

    size: int
    before: int = 0
    rate_before: float = 0.0
    pause_s: float = 0.0
    vain: int = 0


def enough(seen: TransfersSeen, size: int) -> bool:
    """Tell whether enough was seen to decide by."""
    many = seen.ended >= max(ENDED_LEAST, 2 * size)
    return seen.span_s >= SPAN_S and (many or not seen.is_full(size))


def next_found(found: Found, seen: TransfersSeen, bounds: Bounds) -> Found:
    """Decide how many are to be under way from now on."""
    size, pause_s = found.size, max(0.0, found.pause_s - seen.span_s)
    calm = replace(found, before=0, rate_before=0.0, pause_s=pause_s)
    if seen.failed:
        return _refused(found, found.before or size)
    if not seen.is_full(size):
        used = max(bounds.least, math.ceil(seen.used * STEP))
        return replace(calm, size=min(size, used)) if seen.slack_s >= SLACK_S else calm
    if found.before and seen.rate < found.rate_before * _wanted(found):
        return _refused(found, found.before)
    if seen.waits < WAITS_LITTLE:
        return replace(calm, size=max(bounds.least, math.floor(size / STEP)))
    if seen.waits < WAITS_MUCH or size >= bounds.most or calm.pause_s > 0.0:
        return calm
    more = min(bounds.most, math.ceil(size * STEP))
    vain = 0 if found.before else found.vain
    return Found(more, before=size, rate_before=seen.rate, vain=vain)


def _wanted(found: Found) -> float:
    """Return by what the rate of before must have grown for a step up to be kept."""
    return 1.0 + GAIN * (found.size / found.before - 1.0)


def _refused(found: Found, size: int) -> Found:
    pause_s = min(PAUSE_LONGEST_S, PAUSE_FIRST_S * 2.0**found.vain)
    return Found(size, pause_s=pause_s, vain=found.vain + 1)
