"""What is seen of the tasks of a pool, and how many are to be under way by that.

What follows from what is seen is decided in transfers_policy.py. For the pool's thread; ``size``
may be read by any.
"""

from __future__ import annotations

from bridge.worker.transfers_policy import Bounds, Found, TransfersSeen, enough, next_found


class Transfers:
    """How many tasks are under way at once: between ``least`` and ``most``."""

    def __init__(self, least: int, most: int) -> None:
        self._bounds = Bounds(least, max(least, most))
        self._found = Found(least)
        self._unsettled = self._under_way = 0
        self._looked_s = 0.0
        self._full_s: float | None = None
        """When there was enough to do for all of them last."""
        self._begin(0.0)

    @property
    def size(self) -> int:
        """As many as were found to be right."""
        return self._found.size

    @property
    def most(self) -> int:
        """As many as there may be; 0 where the number is given."""
        return self._bounds.most if self._bounds.most > self._bounds.least else 0

    @property
    def settled(self) -> bool:
        """Whether nothing will change while nothing is to be done."""
        return self.size == self._bounds.least

    def note(self, now_s: float, *, in_hand_s: float, waited_s: float, failed: bool) -> None:
        """Note a task that has ended: how long a worker had it, and waited for servers."""
        if self._unsettled:
            # Begun before the last change: what they say is about before.
            self._unsettled -= 1
            self._begin(now_s)
            return
        self._ended += 1
        self._in_hand_s += in_hand_s
        self._waited_s += min(in_hand_s, max(0.0, waited_s))
        self._failed |= failed

    def decide(self, now_s: float, *, under_way: int) -> None:
        """Find another size, if enough was seen. ``under_way``: so many are, from now on."""
        self._used_s += self._under_way * (now_s - self._looked_s)
        self._looked_s, self._under_way = now_s, under_way
        span_s = now_s - self._since_s
        if span_s <= 0.0 or self._bounds.least == self._bounds.most:
            return
        full_s = self._since_s if self._full_s is None else self._full_s
        seen = TransfersSeen(
            span_s=span_s,
            ended=self._ended,
            used=self._used_s / span_s,
            waits=self._waited_s / self._in_hand_s if self._in_hand_s else 0.0,
            slack_s=now_s - full_s,
            failed=self._failed,
        )
        if not enough(seen, self.size):
            return
        self._full_s = None if seen.is_full(self.size) else full_s
        before, self._found = self._found, next_found(self._found, seen, self._bounds)
        self._unsettled = before.size if self._found.size > before.size else 0
        self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        self._since_s = self._looked_s = now_s
        self._ended = 0
        self._in_hand_s = self._waited_s = self._used_s = 0.0
        self._failed = False
