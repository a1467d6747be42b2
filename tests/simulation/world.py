"""A world in one process: two servers, time, and everything that can go wrong, from one seed.

Nothing here knows how the bridge works; it knows what Orthanc does (docs/orthanc.md) and what
was promised (docs/architecture.md).
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from bridge.core.errors import side_error
from bridge.core.model import Change, Page, ServerInfo, SideName, SideProblem

WIDE_OVERLAP = 200
"""Sequences: more than any schedule has rows."""
STEPS_MAX = 60_000
"""More than any schedule needs: beyond it the bridge is stuck."""


class Crash(BaseException):
    """The bridge's process is killed here. Not an Exception: nothing may survive it."""


class Violation(AssertionError):
    """A promise was broken."""


class Nature(StrEnum):
    """What is special about an instance."""

    PLAIN = "plain"
    UNDECODABLE = "undecodable"
    KILLS_WORKER = "kills_worker"
    REFUSED = "refused"
    KILLS_TARGET = "kills_target"


@dataclass(slots=True)
class Row:
    sequence: int
    kind: str
    instance: str
    visible_at: float
    date: str = ""


@dataclass(slots=True)
class Knobs:
    """How rough this world is; drawn from the seed."""

    arrivals: int
    crash_chance: float
    outages: int
    loses_writes: bool
    late_rows: bool
    deletions: int
    reset: str
    disk_faults: int
    server_filters: bool
    poison: bool
    away: bool = False
    emptied: bool = False
    archive: int = 0
    overlap: int = WIDE_OVERLAP


@dataclass(slots=True)
class World:
    seed: int
    random: random.Random = field(init=False)
    knobs: Knobs = field(init=False)
    now: float = 1_000_000.0
    steps: int = 0
    crashes_left: int = 0
    calm: bool = False
    rows: list[Row] = field(default_factory=list)
    counter: int = 0
    held: dict[str, Nature] = field(default_factory=dict)
    natures: dict[str, Nature] = field(default_factory=dict)
    target: dict[str, int] = field(default_factory=dict)
    down: dict[SideName, int] = field(default_factory=lambda: dict.fromkeys(SideName, 0))
    falls: dict[SideName, int] = field(default_factory=lambda: dict.fromkeys(SideName, 0))
    disk_full: int = 0
    unlucky: dict[str, int] = field(default_factory=dict)
    history_changed: bool = False
    away: bool = False
    was_away: bool = False
    remembered: dict[int, str] = field(default_factory=dict)
    emptied: bool = False
    late_sequences: set[int] = field(default_factory=set)
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.random = draw = random.Random(self.seed)
        self.knobs = Knobs(
            arrivals=draw.randint(1, 30),
            crash_chance=draw.choice([0.0, 0.002, 0.01, 0.03]),
            outages=draw.randint(0, 4),
            loses_writes=draw.random() < 0.4,
            late_rows=draw.random() < 0.3,
            deletions=draw.choice([0, 0, 1, 4]),
            reset=draw.choice(["", "", "", "recreated", "restored"]),
            disk_faults=draw.choice([0, 0, 1, 2]),
            server_filters=draw.random() < 0.5,
            poison=draw.random() < 0.5,
        )
        self._choose_a_rare_fault()
        self.crashes_left = 6
        self._plan()

    def _choose_a_rare_fault(self) -> None:
        """Some seeds have a fault that came later: no draw, so that all others stay as they were.

        Faults that would hide what is to be seen are left out of these.
        """
        knobs = self.knobs
        if self.seed % 7 == 0:
            knobs.away, knobs.reset = True, ""
        elif self.seed % 7 == 6:
            knobs.emptied, knobs.reset = True, ""
            knobs.late_rows, knobs.loses_writes = False, False
        elif self.seed % 7 == 4:
            # There is an archive when the bridge comes, and it begins with a snapshot of it.
            knobs.archive, knobs.away, knobs.reset = 5 + self.seed % 26, True, ""
        elif self.seed % 7 == 2:
            # Few rows are read again, and a burst passes more than those while one comes late.
            knobs.overlap, knobs.late_rows, knobs.reset = 1 + self.seed % 60, True, ""
            knobs.arrivals += 10 * (self.seed % 11)

    # Time

    def at(self, delay_s: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_s, next(self._numbers), happen))

    def soon(self) -> float:
        return self.random.choice([0.001, 0.01, 0.05, 0.3]) * self.random.random()

    def step(self, until: float) -> bool:
        """Let the next thing happen, if it is due by ``until``; else only time passes."""
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Violation("the bridge is stuck: no end in sight")
        self.maybe_crash()
        if not self._events or self._events[0][0] > until:
            self.now = max(self.now, until)
            return False
        at, _, happen = heapq.heappop(self._events)
        self.now = max(self.now, at)
        happen()
        return True

    def maybe_crash(self) -> None:
        if self.calm or not self.crashes_left:
            return
        if self.random.random() < self.knobs.crash_chance:
            self.crashes_left -= 1
            raise Crash

    def become_calm(self) -> None:
        """No more faults: what is left must come to its end."""
        self.calm = True
        self.away = False
        self.down = dict.fromkeys(SideName, 0)
        self.disk_full = 0

    # The plan

    def _plan(self) -> None:
        draw, knobs = self.random, self.knobs
        span_s = draw.choice([1.0, 10.0, 30.0])
        for _ in range(knobs.archive):
            self._arrive()
        for _ in range(knobs.arrivals):
            self.at(draw.random() * span_s, self._arrive)
        for _ in range(knobs.outages):
            side = draw.choice(list(SideName))
            self._spell(
                span_s,
                partial(self._change_down, side, 1),
                partial(self._change_down, side, -1),
            )
        for _ in range(knobs.disk_faults):
            self._spell(span_s, lambda: self._change_disk(1), lambda: self._change_disk(-1))
        for _ in range(knobs.deletions):
            self.at(draw.random() * span_s, self._delete_one)
        if knobs.reset:
            self.at(draw.random() * span_s, self._reset)
        if knobs.away:
            self._spell(span_s, self._go_away, self._come_back)
        if knobs.emptied:
            self.at(draw.random() * span_s, self._empty_feed)

    def _spell(self, span_s: float, begin: Callable[[], None], end: Callable[[], None]) -> None:
        start = self.random.random() * span_s
        self.at(start, begin)
        self.at(start + self.random.choice([0.05, 1.0, 8.0]) * self.random.random(), end)

    def _change_down(self, side: SideName, by: int) -> None:
        if not self.calm:
            self.down[side] += by
            self.falls[side] += by > 0

    def kill(self, side: SideName) -> None:
        """A server dies now, and somebody starts it again."""
        self.down[side] += 1
        self.falls[side] += 1
        self.at(0.5 + 3 * self.random.random(), partial(self._revive, side))

    def _revive(self, side: SideName) -> None:
        self.down[side] = max(0, self.down[side] - 1)

    def _change_disk(self, by: int) -> None:
        if not self.calm:
            self.disk_full += by

    def _arrive(self) -> None:
        draw = self.random
        instance = f"i{len(self.natures)}"
        nature = Nature.PLAIN
        if self.knobs.poison and draw.random() < 0.25:
            nature = draw.choice(list(Nature))
        self.natures[instance] = self.held[instance] = nature
        visible_at = self.now
        if self.knobs.late_rows and draw.random() < 0.3:
            visible_at += draw.random()
        for kind in ("NewInstance", "NewSeries", "NewStudy")[: draw.randint(1, 3)]:
            self.counter += 1
            # Finer than Orthanc's whole seconds: a schedule takes less time than a real source.
            date = f"{self.now:018.6f}"
            self.rows.append(Row(self.counter, kind, instance, visible_at, date))
            if visible_at > self.now:
                self.late_sequences.add(self.counter)

    def _delete_one(self) -> None:
        if self.held:
            gone = self.random.choice(sorted(self.held))
            if self.emptied and set(self.remembered.values()) & set(self.held) <= {gone}:
                return  # nobody could tell an emptied feed from deleted instances
            del self.held[gone]
            self.rows = [row for row in self.rows if row.instance != gone]

    def _reset(self) -> None:
        """The source is created anew, or an old copy of it comes back."""
        kept = 0 if self.knobs.reset == "recreated" else self.random.randint(0, self.counter)
        lost = {r.instance for r in self.rows if r.sequence > kept and r.kind == "NewInstance"}
        if not self.rows and not self.counter:
            return
        self.history_changed = True
        self.rows = [row for row in self.rows if row.sequence <= kept]
        self.held = {i: nature for i, nature in self.held.items() if i not in lost}
        if self.knobs.reset == "recreated":
            self.held = {}
        self.counter = kept

    def _go_away(self) -> None:
        """An empty Orthanc answers at the source's address: its disk is not there, say."""
        if not self.calm:
            self.away = self.was_away = True

    def _come_back(self) -> None:
        self.away = False

    def wait_until_back(self) -> None:
        """Let time pass until the source is itself again; no bridge runs meanwhile."""
        while self.away:
            self.now, _, happen = heapq.heappop(self._events)
            happen()

    def _empty_feed(self) -> None:
        """Somebody calls ``DELETE /changes``: rows go, instances stay, the counter goes on.

        A bridge that has never read a row cannot know, nor one whose rows had all gone with their
        instances before.
        """
        if any(self.remembered.get(row.sequence) == row.instance for row in self.rows):
            self.emptied = True
            self.rows = []

    # What the servers answer

    def check_up(self, side: SideName) -> None:
        if self.down[side]:
            raise side_error(side, SideProblem.UNREACHABLE, f"the {side} is down")

    def holds(self, instance: str) -> bool:
        return instance in self.held and not self.away and not self._comes_late(instance)

    def _comes_late(self, instance: str) -> bool:
        """Tell whether the transaction that stores an instance has not committed yet."""
        if not (self.knobs.archive and self.knobs.late_rows):
            return False
        return not all(self._is_visible(row) for row in self.rows if row.instance == instance)

    def _is_visible(self, row: Row) -> bool:
        """Tell whether the row's transaction has committed: within the overlap, whatever comes."""
        return row.visible_at <= self.now or self.counter >= row.sequence + self.knobs.overlap

    def system(self) -> ServerInfo:
        return ServerInfo("sim", 1, has_extended_changes=self.knobs.server_filters)

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        if self.away:
            return Page((), True, 0)
        found = [
            row
            for row in self.rows
            if row.sequence > since
            and self._is_visible(row)
            and (row.kind == "NewInstance" or not only_new_instances)
        ]
        page = tuple(Change(r.sequence, r.kind, r.instance, r.date) for r in found[:limit])
        done = len(found) <= limit
        return Page(page, done, page[-1].sequence if page else self.counter)
