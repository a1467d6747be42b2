"""The pipeline's queues: what waits, what is under way, and what starts next."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bridge.events import InFlight, MoveTimes
from bridge.ledger.records import Parked
from bridge.model import Move, SideName

SUSPECT_AFTER_OUTAGES = 2
"""An instance that was under way in so many outages is sent alone from then on."""
AGAIN_EVERY = 10
"""One start in so many takes an instance that was refused before. Otherwise a long backlog would
keep it waiting."""
SUSPECT_EVERY_S = 5.0
"""A suspect is sent at least this often while others wait. The window is emptied for it first."""


@dataclass(slots=True)
class WorkItem:
    """A move and what has happened to it so far. Times are epoch seconds.

    It is in one place at a time: a queue of the window, under way, or with Outcomes.

    ``served_before``: how many instances a server had served when this one last failed there.
    ``outages``: in how many outages it was under way. ``delays``: how often it was delayed because
    a server failed at it; ``delayed_from_s``: since when, by the steady clock. ``delayed_by``: the
    server that has served no other instance since. ``refusals``: how often it was deferred, because
    a server refused it and served others, or because our disk had no room for it. ``missed``: the
    source lacked it once, and a look at the feed showed that it is the same source. ``parked``: it
    is parked, and tried again by policy. ``rules``: the generation of the rules of its last
    attempt.
    """

    number: int
    move: Move
    attempts: int = 0
    first_failed_at: float = 0.0
    served_before: int | None = None
    outages: int = 0
    delays: int = 0
    delayed_by: SideName | None = None
    delayed_from_s: float | None = None
    refusals: int = 0
    missed: bool = False
    started_at: float = 0.0
    parked: Parked | None = None
    rules: str = ""
    read_at: float = 0.0

    @property
    def times(self) -> MoveTimes:
        """Return when it was read and started, for those who look at it."""
        return MoveTimes(self.read_at, self.started_at, self.number)

    @property
    def suspect(self) -> bool:
        """Whether it may be what brings a server down."""
        return self.outages >= SUSPECT_AFTER_OUTAGES

    @property
    def tried(self) -> bool:
        """Whether it was started before."""
        return self.started_at > 0.0

    def start(self, now_at: float, *, rules: str) -> None:
        """Note that an attempt begins, by the rules of that generation."""
        self.started_at = now_at
        self.rules = rules

    def retry(self, attempts: int, *, now_at: float) -> None:
        """Note that it is tried again, with so many attempts spent."""
        self.attempts = attempts
        self.delayed_by = None
        if attempts:
            self.first_failed_at = self.first_failed_at or now_at

    def fail_at(self, served_count: int) -> None:
        """Note that a server failed at it, which had served so many instances by then."""
        self.served_before = served_count

    def defer(self, *, by_server: bool, now_s: float) -> None:
        """Note that it is deferred, because of a server or because of our disk."""
        self.refusals += 1
        if by_server:
            self._note_delay(now_s)

    def delay(self, side: SideName, *, now_s: float) -> None:
        """Note that it waits because that server failed at it."""
        self._note_delay(now_s)
        self.delayed_by = side

    def delayed_for_s(self, now_s: float) -> float:
        """Return how long ago it was delayed because of a server for the first time, or 0."""
        return 0.0 if self.delayed_from_s is None else now_s - self.delayed_from_s

    def _note_delay(self, now_s: float) -> None:
        self.delays += 1
        if self.delayed_from_s is None:
            self.delayed_from_s = now_s

    def meet_outage(self) -> None:
        """Note that it was under way in one more outage."""
        self.outages += 1

    def miss(self) -> None:
        """Note that the source lacks it."""
        self.missed = True

    def release(self) -> None:
        """Note that the server for which it waited serves again."""
        self.delayed_by = None


@dataclass(frozen=True, slots=True)
class Ended:
    """An instance that was under way. ``alone``: as a suspect, with no other beside it."""

    item: WorkItem
    alone: bool


class Window:
    """At most ``size`` instances are under way. A suspect is under way alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._urgent: deque[WorkItem] = deque()
        """They go before everything else that may start."""
        self._fresh: deque[WorkItem] = deque()
        """Arrived now, while a backlog waits: before it, in their order."""
        self._ready: deque[WorkItem] = deque()
        self._new: deque[WorkItem] = deque()
        """Arrived while a server failed at its work, and never tried: before all others."""
        self._suspects: deque[WorkItem] = deque()
        self._again: deque[WorkItem] = deque()
        """Delayed and deferred ones whose time has come: after new ones, not counted with them."""
        self._started = 0
        self._suspect_sent_s = float("-inf")
        self._delayed: list[tuple[float, int, WorkItem]] = []
        self._under_way: dict[int, WorkItem] = {}
        self._first: dict[str, WorkItem] = {}
        """By instance: the move of it that was started and has not come to its end. It may be under
        way, delayed, or with Outcomes."""
        self._behind: dict[str, deque[WorkItem]] = {}
        """By such an instance: other moves of it, which was sent again meanwhile. If both were
        under way, the older file could be the last to arrive. And each would be tried as often as
        the first one, at a server that fails at this instance."""
        self._tried_with: dict[str, int] = {}
        """So many of those behind had been read when the first one was started last."""
        self._alone: WorkItem | None = None
        """The suspect that is under way: then the only one."""

    def resize(self, size: int) -> None:
        """Allow so many under way from now on; those that are under way stay."""
        self._size = size

    @property
    def wants_more(self) -> bool:
        """Whether fewer are waiting than can be under way."""
        queues = (self._urgent, self._new, self._fresh, self._ready)
        return sum(map(len, queues)) < self._size

    @property
    def new(self) -> int:
        """How many wait that arrived while a server failed, and were never tried."""
        return len(self._new)

    @property
    def under_way(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    @property
    def closed(self) -> bool:
        """Whether a suspect is under way, so that nothing else may start."""
        return self._alone is not None

    @property
    def waiting(self) -> int:
        """How many may start as soon as there is room."""
        queues = (
            self._urgent, self._new, self._fresh, self._ready, self._suspects, self._again
        )  # fmt: skip
        ready = sum(map(len, queues))
        return ready + self.behind

    @property
    def delayed(self) -> int:
        """How many wait until a time of their own."""
        return len(self._delayed)

    @property
    def behind(self) -> int:
        """How many wait until another move of the same instance has come to its end."""
        return sum(map(len, self._behind.values()))

    @property
    def only_failed_left(self) -> bool:
        """Whether nothing is under way and all that is left has failed before."""
        waits = self._urgent or self._new or self._fresh or self._ready
        return not (waits or self._under_way)

    @property
    def empty(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        queues = (
            self._urgent, self._new, self._fresh, self._ready, self._suspects, self._again,
            self._delayed,
        )  # fmt: skip
        return not (any(queues) or self._under_way)

    def add(self, items: Iterable[WorkItem]) -> None:
        """Put at the end."""
        for item in self._not_behind(items):
            (self._suspects if item.suspect else self._ready).append(item)

    def add_first(self, items: Iterable[WorkItem]) -> None:
        """Put before the backlog and what arrives now, in their order."""
        self._fresh.extendleft(reversed(list(self._not_behind(items))))

    def add_fresh(self, items: Iterable[WorkItem]) -> None:
        """Put before the backlog and behind what arrived before: these arrived now."""
        for item in self._not_behind(items):
            (self._suspects if item.suspect else self._fresh).append(item)

    def add_new(self, items: Iterable[WorkItem]) -> None:
        """Put before everything that waits: these arrived while a server failed at its work."""
        self._new.extend(self._not_behind(items))

    def _not_behind(self, items: Iterable[WorkItem]) -> Iterator[WorkItem]:
        for item in items:
            if self._must_wait(item):
                self._behind[item.move.instance_id].append(item)
            else:
                yield item

    def _must_wait(self, item: WorkItem) -> bool:
        """Whether another move of the same instance comes before it."""
        return self._first.get(item.move.instance_id, item) is not item

    def promote(self, instances: frozenset[str]) -> None:
        """Put those of the waiting ones that are urgent before everything, in their order."""
        if not instances:
            return
        for queue in (self._new, self._fresh, self._ready):
            waiting = list(queue)
            queue.clear()
            for item in waiting:
                (self._urgent if item.move.instance_id in instances else queue).append(item)

    def delay(self, item: WorkItem, until_s: float) -> None:
        """Put at the end at that time of the steady clock."""
        heapq.heappush(self._delayed, (until_s, item.number, item))

    def release(self, side: SideName) -> None:
        """Let those start at once that waited because this server served no other: it does now.

        Those that it refused while it served others wait until their time comes.
        """
        waiting, self._delayed = self._delayed, []
        for entry in waiting:
            item = entry[2]
            if item.delayed_by is not side:
                self._delayed.append(entry)
                continue
            item.release()
            if item.refusals:
                self._delayed.append(entry)
            else:
                self._put_back(item)
        heapq.heapify(self._delayed)
        again, self._again = self._again, deque()
        for item in again:
            if item.delayed_by is side:
                item.release()
            self._put_back(item)

    def wake_s(self) -> float | None:
        """When the next delayed one is due, or None."""
        return self._delayed[0][0] if self._delayed else None

    def wake(self, now_s: float) -> None:
        """Let those start whose time has come."""
        while self._delayed and self._delayed[0][0] <= now_s:
            self._put_back(heapq.heappop(self._delayed)[2])

    def _put_back(self, item: WorkItem) -> None:
        if item.suspect:
            self.add([item])
        elif item.delayed_by is not None or item.refusals:
            self._again.append(item)
        else:
            self.add_first([item])  # it has waited long enough

    def suspects_turn(self, now_s: float) -> bool:
        """Whether a suspect is next. Nothing else is started then."""
        overdue = now_s - self._suspect_sent_s >= SUSPECT_EVERY_S
        others = self._urgent or self._new or self._fresh or self._ready
        return bool(self._suspects) and (overdue or not others)

    def start_suspect(self, now_s: float) -> WorkItem:
        """Take the next suspect. Nothing else starts until it has ended."""
        self._suspect_sent_s = now_s
        self._alone = self._suspects.popleft()
        return self._alone

    def can_start(self) -> bool:
        """Whether one is waiting and there is room for it."""
        for queue in (self._urgent, self._new, self._fresh, self._ready, self._again):
            # Of those that were read together only the first one is to start.
            while queue and self._must_wait(queue[0]):
                item = queue.popleft()
                self._behind[item.move.instance_id].append(item)
        waits = self._urgent or self._new or self._fresh or self._ready or self._again
        return bool(waits) and len(self._under_way) < self._size

    def start_next(self, *, on_trial: bool = False) -> WorkItem:
        """Take the next one. With ``on_trial``, a new one comes before those that were refused."""
        self._started += 1
        if self._urgent:
            return self._urgent.popleft()
        if self._again and self._started % AGAIN_EVERY == 0 and not on_trial:
            return self._again.popleft()
        return (self._new or self._fresh or self._ready or self._again).popleft()

    def begin(self, item: WorkItem) -> None:
        """Note that it is under way."""
        name = item.move.instance_id
        self._under_way[item.number] = item
        self._first[name] = item
        self._tried_with[name] = len(self._behind.setdefault(name, deque()))

    def end(self, number: int) -> Ended | None:
        """Note that it has ended; None when it was not one of ours."""
        item = self._under_way.pop(number, None)
        if item is None:
            return None
        alone = item is self._alone
        if alone:
            self._alone = None
        return Ended(item, alone)

    def finish(self, item: WorkItem) -> None:
        """Note that it came to its end: the next move of the same instance may start."""
        if self._first.get(item.move.instance_id) is item:
            del self._first[item.move.instance_id]
            del self._tried_with[item.move.instance_id]
            self._fresh.extendleft(reversed(self._behind.pop(item.move.instance_id)))

    def take_tried_with(self, item: WorkItem) -> list[WorkItem]:
        """Take those behind it that had been read when it was started last.

        The file that it was tried with was the newest at the source, so it was theirs as well.
        """
        name = item.move.instance_id
        if self._first.get(name) is not item:
            return []
        count, self._tried_with[name] = self._tried_with[name], 0
        return [self._behind[name].popleft() for _ in range(count)]

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
