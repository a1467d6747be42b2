"""Places in this worker for what needs memory or a processor: large instances, and decoding.

Many instances may wait for servers at the same time; only as many as there are places may be
large, or be decoded. So memory is bounded by the places, whatever the number of transfers.

A place is a lock on one byte of a file that all workers of a pool share. The kernel takes it back
from a worker that ends in whatever way. Who waits does so in one queue, for whichever place is
free first. Waiting is nobody's fault: how long a worker has waited stands in shared memory, for the
pool to leave out of a task's time.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import time
from contextlib import suppress

SMALL_BYTES = 1024 * 1024
"""What is no larger than this, before and after, has a place while it is decoded only."""
DEAD_EVERY_S = 0.05
"""So often the first in the queue looks for a place of one that died, and told nobody."""
SLOTS = 1024
"""More than there are workers."""

Waits = ctypes.Array[ctypes.c_double]
"""For each worker, two numbers: how long it has waited within its task, and since when it waits,
by the steady clock of the machine; 0.0 while it does not."""


class Places:
    """The places of a pool, in each of its workers. ``number`` is the worker's own.

    ``file``: the descriptor of the file; -1 for as many places as are asked for. ``freed``: an
    eventfd that all workers share, which says that a place was let go.
    """

    def __init__(
        self, file: int, count: int, waits: Waits | None, number: int, *, freed: int = -1
    ) -> None:
        self._file = file
        self._freed = freed
        self._count = count
        self._waits = waits
        self._first = 2 * (number % SLOTS)
        self._turn = number
        self._held: int | None = None
        self.waited_s = 0.0
        """Within the present task."""

    def begin(self) -> None:
        """Begin a task: nothing is held, nobody has waited."""
        self.release()
        self.waited_s = 0.0
        self._note(0.0)

    def try_take(self) -> bool:
        """Take a place if one is free, or is held already."""
        if self._held is not None or self._file < 0:
            return True
        for each in range(self._count):
            slot = (self._turn + each) % self._count
            with suppress(BlockingIOError, PermissionError):
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
                self._held = slot
                return True
        return False

    def take(self) -> None:
        """Take a place, and wait for one. Raises OSError."""
        if self.try_take():
            return
        since_s = time.monotonic()
        self._note(since_s)
        # The lock behind the last place is the queue: its holder waits for any place, all others
        # for the lock. Who waited for one certain place would wait for whoever hangs in it.
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, self._count)
        try:
            poll = select.poll()
            poll.register(self._freed, select.POLLIN)
            while not self.try_take():
                if poll.poll(DEAD_EVERY_S * 1000):
                    with suppress(BlockingIOError):
                        os.eventfd_read(self._freed)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._count)
        self.waited_s += time.monotonic() - since_s
        self._note(0.0)

    def release(self) -> None:
        """Let the place go, if one is held."""
        if self._held is not None:
            held, self._held = self._held, None
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, held)
            with suppress(BlockingIOError):  # so many were let go that somebody will look
                os.eventfd_write(self._freed, 1)

    def _note(self, since_s: float) -> None:
        if self._waits is not None:
            self._waits[self._first] = self.waited_s
            self._waits[self._first + 1] = since_s


class _Own:
    """The places, in a worker; without any, whoever asks for one has it."""

    places = Places(-1, 1, None, 0)


def use_places(places: Places) -> None:
    """Have this process, a worker, ask for places."""
    _Own.places = places


def here() -> Places:
    """Return the places as this process sees them."""
    return _Own.places


def waited_by(waits: Waits | None, number: int, now_s: float) -> float:
    """Tell how long a worker has waited within its task, up to now, in the bridge."""
    if waits is None:
        return 0.0
    waited_s, since_s = waits[2 * (number % SLOTS)], waits[2 * (number % SLOTS) + 1]
    # A worker that a codec has damaged may write anything.
    waits_s = now_s - since_s if 0.0 < since_s <= now_s else 0.0
    return waited_s + waits_s if waited_s >= 0.0 else 0.0
