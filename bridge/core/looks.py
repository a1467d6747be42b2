"""When the feed is looked at next: polling, and pokes that make looks come sooner.

This file must not know: sockets, files, clocks, logging, settings.
Time enters as an argument, in seconds of any steady clock.
"""

from __future__ import annotations

POKED_LOOK_GAP_S = 0.2
"""Pokes never make looks begin at shorter distances than this."""
POKE_GOOD_S = 1.0
"""A poke is good for all that arrives within this time, so nobody need poke more often."""


class Looks:
    """Decides when to look. A poke brings looks forward and never puts one off."""

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
