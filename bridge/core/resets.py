"""How long a source is left alone whose feed turns out to be another one again and again.

Two servers that take turns at one address look like that: each snapshot would ask both for
everything, without end.

This file must not know: sockets, files, clocks, logging, settings.
Time enters as an argument, in seconds of any steady clock; chance as a number between 0 and 1.
"""

from __future__ import annotations

from bridge.core.policy import backoff_s

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
