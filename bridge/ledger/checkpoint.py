"""The checkpoint as arithmetic (G2): open, settle, advance.

This file must not know: sockets, files, clocks, logging, settings.
Nothing here is saved; the ledger keeps what survives a crash.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable


class OpenChanges:
    """Which sequences are unfinished, and how far everything is finished.

    The checkpoint is the highest sequence such that every change at or below it is settled. It
    never passes an open sequence and never goes back. Sequences that the feed does not contain
    (deleted resources leave gaps) need no settling: they lie between rows we were given.
    """

    def __init__(self, checkpoint: int = 0, settled_above: Iterable[int] = ()) -> None:
        self._checkpoint = checkpoint
        self._frontier = checkpoint
        self._settled = {sequence for sequence in settled_above if sequence > checkpoint}
        self._settled_heap = sorted(self._settled)
        self._open: set[int] = set()
        self._open_heap: list[int] = []

    @property
    def checkpoint(self) -> int:
        """Highest sequence at and below which nothing is unfinished."""
        return self._checkpoint

    @property
    def frontier(self) -> int:
        """Highest sequence up to which the feed has been read."""
        return self._frontier

    @property
    def open_count(self) -> int:
        """How many sequences are unfinished."""
        return len(self._open)

    @property
    def settled_above_count(self) -> int:
        """How many sequences above the checkpoint are settled already."""
        return len(self._settled)

    @property
    def spread(self) -> int:
        """How many sequences reading in order is ahead of the oldest unfinished one."""
        oldest = self.oldest_open()
        return 0 if oldest is None else max(0, self._frontier - oldest)

    def oldest_open(self) -> int | None:
        """Return the lowest unfinished sequence, or None."""
        while self._open_heap and self._open_heap[0] not in self._open:
            heapq.heappop(self._open_heap)
        return self._open_heap[0] if self._open_heap else None

    def open(self, sequence: int) -> bool:
        """Note a change as unfinished. False when it is settled or open already: do not do it."""
        if sequence <= self._checkpoint or sequence in self._settled or sequence in self._open:
            return False
        self._open.add(sequence)
        heapq.heappush(self._open_heap, sequence)
        return True

    def settle(self, sequence: int) -> None:
        """Note an open change as delivered, skipped or parked.

        Raises KeyError for a sequence that is not open: settling twice would hide a mistake.
        """
        self._open.remove(sequence)
        self._settled.add(sequence)
        heapq.heappush(self._settled_heap, sequence)
        self._raise_checkpoint()

    def advance(self, frontier: int) -> None:
        """Note that every row up to ``frontier`` has been read, and opened where it is work."""
        self._frontier = max(self._frontier, frontier)
        self._raise_checkpoint()

    def _raise_checkpoint(self) -> None:
        oldest = self.oldest_open()
        reached = self._frontier if oldest is None else min(self._frontier, oldest - 1)
        self._checkpoint = max(self._checkpoint, reached)
        while self._settled_heap and self._settled_heap[0] <= self._checkpoint:
            self._settled.discard(heapq.heappop(self._settled_heap))
