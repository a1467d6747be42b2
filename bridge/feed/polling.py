"""When the feed is looked at next: polling, and pokes that make looks come sooner.

This file must not know: sockets, files, clocks, logging, settings.
Time enters as an argument, in seconds of any steady clock.
"""

from __future__ import annotations

POKED_LOOK_GAP_S = 0.2
"""However often it is poked, two looks begin at least this far apart."""
POKE_GOOD_S = 1.0
"""A poke is good for all that arrives within this time, so nobody need poke more often."""


class PollTimer:
    """Decides when the feed is looked at. A poke brings a look forward and never puts one off."""

    def __init__(self, poll_interval_s: float) -> None:
        self._poll_interval_s = poll_interval_s
        self._began_s = float("-inf")
        self._eager_until_s = float("-inf")
        self._poked = False
        self.due_s = 0.0

    def begin(self, now_s: float) -> None:
        """Note that a look begins: the first of those that the pokes until now asked for."""
        self._began_s = now_s
        if self._poked:
            self._eager_until_s = now_s + POKE_GOOD_S
            self._poked = False

    def end(self, now_s: float, *, idle: bool) -> None:
        """Note that a look has ended. ``idle``: there was nothing more to read.

        The interval runs from the beginning of a look; but a source that takes long to answer is
        left alone for as long as it took, up to an interval.
        """
        rest_s = min(self._poll_interval_s, now_s - self._began_s)
        polled_s = max(self._began_s + self._poll_interval_s, now_s + rest_s)
        self.due_s = polled_s if idle else now_s
        if self._poked or self._began_s < self._eager_until_s:
            self._hurry()

    def poke(self) -> None:
        """Note that something has arrived, perhaps too late for a look under way."""
        self._poked = True
        self._hurry()

    def _hurry(self) -> None:
        self.due_s = min(self.due_s, self._began_s + POKED_LOOK_GAP_S)


def backoff_s(
    count: int, *, first_s: float, longest_s: float, chance: float, spread: float = 0.5
) -> float:
    """Delay before try number ``count`` (1 is the first repeat): exponential, with jitter.

    ``chance`` in [0, 1] picks a point in the last ``spread`` of the interval, so that delays differ
    but are never near zero.
    """
    whole = min(longest_s, first_s * 2.0 ** min(count - 1, 32))
    return whole * (1.0 - spread + spread * chance)


# How long a source is left alone whose feed turns out to be another one again and again.
#
# Two servers that take turns at one address look like that: each snapshot would ask both for
# everything, without end.

CALM_S = 600.0
"""A feed that was followed for so long is a new beginning."""
PAUSE_FIRST_S = 1.0
PAUSE_LONGEST_S = 60.0


class Resets:
    """Counts the resets of a feed that follow each other closely."""

    def __init__(self) -> None:
        self._count = 0
        self._last_s = self._first_s = float("-inf")

    def note(self, now_s: float, *, chance: float) -> float:
        """Note a reset; return how long to wait before the feed is looked at again, in seconds.

        The first one costs no time: a source that was made anew is what a snapshot is for.
        """
        if now_s - self._last_s > CALM_S:
            self._count, self._first_s = 0, now_s
        pause_s = 0.0
        if self._count:
            pause_s = backoff_s(
                self._count, first_s=PAUSE_FIRST_S, longest_s=PAUSE_LONGEST_S, chance=chance
            )
        self._count += 1
        self._last_s = now_s + pause_s
        return pause_s

    def lasted_s(self, now_s: float) -> float:
        """Tell for how long the feed has been changing."""
        return now_s - self._first_s
