"""What is waiting, what is under way, and what comes next: the pipeline's queues."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bridge.core.events import InFlight
from bridge.core.model import Move

SUSPECT_AFTER_OUTAGES = 2
"""An instance that was under way in so many outages is from then on sent alone."""
SUSPECT_EVERY_S = 5.0
"""A suspect is sent at least this often while others wait; the window is emptied for it."""


@dataclass(slots=True)
class Item:
    """A move and what has happened to it so far.

    ``served_before``: how many instances a server had served when this one last failed there.
    ``outages``: in how many outages it was under way. ``refusals``: how often it was deferred, a
    server having refused it and served others, or our disk having no room for it. ``missed``: the
    source lacked it, and was found to be the same source after that. Times are epoch seconds.
    """

    number: int
    move: Move
    attempts: int = 0
    first_failed_at: float = 0.0
    served_before: int | None = None
    outages: int = 0
    refusals: int = 0
    missed: bool = False
    started_at: float = 0.0

    @property
    def suspect(self) -> bool:
        """Whether it may be what brings a server down."""
        return self.outages >= SUSPECT_AFTER_OUTAGES


class Window:
    """At most ``size`` instances under way; those that may bring a server down alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._ready: deque[Item] = deque()
        self._suspects: deque[Item] = deque()
        self._suspect_sent_s = float("-inf")
        self._delayed: list[tuple[float, int, Item]] = []
        self._under_way: dict[int, Item] = {}
        self._behind: dict[str, deque[Item]] = {}
        """By instance under way: other moves of it, when it was sent anew. Side by side, the older
        file could be the last to arrive."""
        self.alone: Item | None = None
        """The suspect that is under way, and then the only one."""

    def resize(self, size: int) -> None:
        """Allow so many under way from now on; those that are under way stay."""
        self._size = size

    @property
    def wants_more(self) -> bool:
        """Whether fewer are waiting than can be under way."""
        return len(self._ready) < self._size

    @property
    def under_way(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    @property
    def waiting(self) -> int:
        """How many may start as soon as there is room."""
        return len(self._ready) + len(self._suspects) + sum(map(len, self._behind.values()))

    @property
    def delayed(self) -> int:
        """How many wait for their time."""
        return len(self._delayed)

    @property
    def refused(self) -> int:
        """How many of the delayed were deferred: refused alone, while others are served."""
        return sum(item.refusals > 0 for _, _, item in self._delayed)

    @property
    def empty(self) -> bool:
        """Whether nothing is waiting or under way, behind which others might wait."""
        return not (self._ready or self._suspects or self._delayed or self._under_way)

    def add(self, items: Iterable[Item]) -> None:
        """Put at the end."""
        for item in items:
            (self._suspects if item.suspect else self._ready).append(item)

    def add_first(self, items: Iterable[Item]) -> None:
        """Put before everything that waits, in their order."""
        self._ready.extendleft(reversed(list(items)))

    def delay(self, item: Item, until_s: float) -> None:
        """Put at the end at that time of the steady clock."""
        heapq.heappush(self._delayed, (until_s, item.number, item))

    def wake_s(self) -> float | None:
        """When the next delayed one is due, or None."""
        return self._delayed[0][0] if self._delayed else None

    def wake(self, now_s: float) -> None:
        """Let those wait no longer whose time has come."""
        while self._delayed and self._delayed[0][0] <= now_s:
            self.add([heapq.heappop(self._delayed)[2]])

    def suspects_turn(self, now_s: float) -> bool:
        """Whether a suspect is next. Nothing else is started then."""
        overdue = now_s - self._suspect_sent_s >= SUSPECT_EVERY_S
        return bool(self._suspects) and (overdue or not self._ready)

    def start_suspect(self, now_s: float) -> Item:
        """Take the next suspect; it is alone until it has ended."""
        self._suspect_sent_s = now_s
        self.alone = self._suspects.popleft()
        return self.alone

    def can_start(self) -> bool:
        """Whether one is waiting and there is room for it."""
        while self._ready and self._ready[0].move.instance_id in self._behind:
            item = self._ready.popleft()
            self._behind[item.move.instance_id].append(item)
        return bool(self._ready) and len(self._under_way) < self._size

    def start_next(self) -> Item:
        """Take the next one."""
        return self._ready.popleft()

    def begin(self, item: Item) -> None:
        """Note that it is under way."""
        self._under_way[item.number] = item
        self._behind[item.move.instance_id] = deque()

    def end(self, number: int) -> Item | None:
        """Note that it has ended; None when it was not one of ours."""
        item = self._under_way.pop(number, None)
        if item is not None:
            self._ready.extendleft(reversed(self._behind.pop(item.move.instance_id, ())))
        return item

    def in_flight(self) -> Iterator[InFlight]:
        """Describe what is under way."""
        for item in self._under_way.values():
            yield InFlight(
                item.move.instance_id,
                item.move.sequence,
                item.started_at,
                item.attempts + 1,
                item.number,
            )
