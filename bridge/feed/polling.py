"""When the feed is looked at next: polling, pokes that make looks come sooner, and doubts.

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


# How long a feed that looks like another one is looked at again before that is believed.
#
# A balancer that fails over, a container that is moved, or a name that leads elsewhere for a moment
# shows another feed for seconds. To end for that stops a hospital's images until somebody comes.

DOUBT_FIRST_S = 1.0
DOUBT_LONGEST_S = 5.0
"""Pauses between two looks at a feed in doubt."""
GOOD_LOOKS = 2
"""So many in a row, each on a new connection, end a doubt."""


class Doubt:
    """Judges looks at a feed that seems to be another one.

    ``confirm_s``: it is believed after it has looked so for so long. A feed that is trusted again
    and contradicts itself once more before it was followed for so long goes on with the first
    doubt: two servers that take turns at one address are not followed.
    """

    def __init__(self, confirm_s: float) -> None:
        self._confirm_s = confirm_s
        self._since_s: float | None = None
        self._trusted_s: float | None = None
        self._good = self._looks = 0

    def begin(self, now_s: float) -> None:
        """Note that the feed looks like another one."""
        trusted_s = self._trusted_s
        if trusted_s is None or now_s - trusted_s >= self._confirm_s:
            self._since_s, self._looks = now_s, 0
        self._trusted_s, self._good = None, 0

    def pause_s(self, now_s: float) -> float:
        """Return how long to wait before the next look; 0 when it is believed."""
        since_s = now_s if self._since_s is None else self._since_s
        left_s = since_s + self._confirm_s - now_s
        whole_s = backoff_s(
            self._looks + 1, first_s=DOUBT_FIRST_S, longest_s=DOUBT_LONGEST_S, chance=1.0
        )
        return max(0.0, min(whole_s, left_s))

    def look(self, now_s: float, *, ours: bool) -> bool:
        """Note a look; True when the feed is trusted again."""
        self._looks += 1
        self._good = self._good + 1 if ours else 0
        if self._good < GOOD_LOOKS:
            return False
        self._trusted_s = now_s
        return True
