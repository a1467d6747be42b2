"""A world in one process: two servers, time, and everything that can go wrong, from one seed.

Nothing here knows how the bridge works; it knows what Orthanc does (docs/orthanc.md) and what
was promised (docs/architecture.md).
"""

from __future__ import annotations

import heapq
import itertools
import random
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from random import Random

from bridge.errors import side_error
from bridge.model import Change, Outcome, Page, Reason, ServerInfo, SideName, SideProblem
from tests.fake_store import FeedRow
from tests.feed_traces import NEW_INSTANCE, Trace, any_habits, model_trace
from tests.simulation.answers import CONTROL, REPLIES, Reply, Strange, any_strange, error_of

WIDE_OVERLAP = 200
"""Sequences: more than any schedule has rows."""
AT_ONCE_S = 5.0
"""A server that failed at all that was tried is tried with what is new at the latest then."""
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
    STRANGE = "strange"
    """One of its calls is answered in a way that Orthanc would not."""


class HeldBy(StrEnum):
    """How the bridge learns which of many instances the target holds."""

    LIST = "list"
    BULK = "bulk"
    ASKING = "asking"


PLANTED = tuple(nature for nature in Nature if nature is not Nature.STRANGE)
"""Natures of worlds whose servers answer as Orthanc does, or not at all."""
TRIES_FIRST_MINUTE = 12
MINUTE_S = 59.0
SOONER_MAX = 6
"""At most so many attempts at one instance in its first minute, then one a minute (with jitter),
but for those that follow upon the service of another."""


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
    listing_overlap: int = 0
    """Of an archive that is listed in several pages; 0 for one page."""
    by_id: bool = False
    """Both servers list by identifier, as Orthanc 1.12 does, and not in the order of arrival."""
    sent_anew: int = 0
    overlap: int = WIDE_OVERLAP
    job: str = "follow"
    page_size: int = 7
    answers: str = ""
    """Who is answered strangely: one instance, ``all`` for a while, or ``control``: the bridge's
    own calls for a while."""
    held_by: HeldBy = HeldBy.LIST
    quiet: bool = False
    """Nothing else goes wrong, so that what is promised of time can be seen."""


@dataclass(slots=True)
class World:
    """``trace``: what becomes visible of the feed, and when; without one instances arrive in order
    but for a few. ``plain``: the source itself suffers nothing beside; the bridge is killed.
    """

    seed: int
    trace: Trace | None = None
    plain: bool = False
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
    target_lost: bool = False
    asked_again: bool = False
    """A person has had changes moved again that were settled."""
    abandoned: int = 0
    """Under way in these workers, of a loop that has ended."""
    late_sequences: set[int] = field(default_factory=set)
    sequence_max: int = 0
    unchecked: list[tuple[int, int, Row]] = field(default_factory=list)
    """With a trace: a heap of the rows that no checkpoint has passed yet."""
    peers: dict[SideName, dict[str, str]] = field(default_factory=lambda: {s: {} for s in SideName})
    strange: dict[str, Strange] = field(default_factory=dict)
    """By instance."""
    spell: dict[str, Reply] = field(default_factory=dict)
    """By call: what everybody is answered now."""
    tried: dict[str, list[float]] = field(default_factory=dict)
    """When an instance was tried and answered strangely."""
    seen_at: dict[str, float] = field(default_factory=dict)
    """When a plain instance became visible that nobody has tried yet."""
    tried_ever: set[str] = field(default_factory=set)
    new_tried_at: float = float("-inf")
    """When an instance was last tried for the first time."""
    later: bool = False
    """All has come to its end, and only what is parked is tried again by policy."""
    later_until: float = 0.0
    tried_later: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Reason] = field(default_factory=dict)
    """What was parked when that began, and for what."""
    killed_later: int = 0
    codecs_changed: bool = False
    plan_s: float = 0.0
    """How long something is planned to happen by itself, from the start."""
    _answers: Random = field(init=False)
    _shift: int = 0
    _lost_below: int = 0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.random = draw = random.Random(self.seed)
        self._answers = random.Random(f"strange {self.seed}")
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
        self._choose_answers()
        self.crashes_left = 6
        if self.trace is not None:
            self._choose_for_a_trace()
        self._plan()

    def _choose_a_rare_fault(self) -> None:
        """Some seeds have a fault that came later: no draw, so that all others stay as they were.

        Faults that would hide what is to be seen are left out of these.
        """
        knobs = self.knobs
        knobs.held_by = tuple(HeldBy)[self.seed % 3]
        if self.seed % 7 == 0:
            knobs.away, knobs.reset = True, ""
        elif self.seed % 7 == 6:
            knobs.emptied, knobs.reset = True, ""
            knobs.late_rows, knobs.loses_writes = False, False
        elif self.seed % 7 == 4:
            # There is an archive when the bridge comes, and it begins with a snapshot of it.
            knobs.archive, knobs.away, knobs.reset = 5 + self.seed % 26, True, ""
            draw = random.Random(f"archive {self.seed}")
            if self.trace is None and self.seed % 14 == 11 and draw.random() < 0.8:
                knobs.listing_overlap = draw.choice([1, 2, 3])
                knobs.archive += draw.choice([0, 20, 60])
                knobs.away = draw.random() < 0.3
                knobs.by_id = draw.random() < 0.5
                knobs.sent_anew = draw.choice([0, 2, 10])
                knobs.deletions = max(knobs.deletions, draw.choice([0, 4, 20]))
        elif self.seed % 7 == 2:
            # Few rows are read again, and a burst passes more than those while one comes late.
            knobs.overlap, knobs.late_rows, knobs.reset = 1 + self.seed % 60, True, ""
            knobs.arrivals += 10 * (self.seed % 11)

    def _choose_answers(self) -> None:
        """Some seeds have servers that answer strangely; again no draw that others would miss."""
        knobs, place = self.knobs, self.seed % 14
        if self.trace is not None or place not in (1, 5, 8):
            return
        draw = random.Random(f"answers {self.seed}")
        knobs.answers = draw.choice(["one", "one", "all", "control"])
        knobs.quiet = draw.random() < 0.7
        knobs.reset, knobs.emptied, knobs.archive, knobs.deletions = "", False, 0, 0
        knobs.away = False
        knobs.arrivals += 8
        if knobs.quiet:
            knobs.job = draw.choice(["follow", "once"])
            knobs.crash_chance, knobs.outages, knobs.disk_faults = 0.0, 0, 0
            knobs.late_rows = knobs.loses_writes = knobs.poison = False

    def _choose_for_a_trace(self) -> None:
        """The trace says what is late; how far the bridge reads back is drawn anew."""
        knobs, draw = self.knobs, self.random
        knobs.late_rows = False
        knobs.overlap = draw.choice([1, 20, WIDE_OVERLAP])
        knobs.arrivals = 0
        knobs.job = draw.choice(["follow", "follow", "once"])
        knobs.page_size = draw.choice([7, 50, 1000])
        if self.plain:
            knobs.crash_chance, knobs.overlap, knobs.page_size = 0.0005, 500, 1000
            knobs.reset, knobs.archive, knobs.deletions = "", 0, 0
            knobs.away = knobs.emptied = knobs.poison = False
            knobs.job = "follow"

    @property
    def span_s(self) -> float:
        """How long something happens by itself."""
        return self.trace.end_ms / 1000 if self.trace else 0.0

    # Time

    def at(self, delay_s: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_s, next(self._numbers), happen))

    def soon(self) -> float:
        longest_s = self.random.choice([0.001, 0.01, 0.05, 0.3])
        # Whoever is slower than the source reads late what came late: that would hide it.
        return (0.002 if self.plain else longest_s) * self.random.random()

    def step(self, until: float) -> bool:
        """Let the next thing happen, if it is due by ``until``; else only time passes."""
        self.steps += 1
        if self.steps > STEPS_MAX + 40 * (len(self.trace.rows) if self.trace else 0):
            raise Violation("the bridge is stuck: no end in sight")
        self.maybe_crash()
        if not self._events or self._events[0][0] > until:
            self.now = max(self.now, until)
            return False
        at, _, happen = heapq.heappop(self._events)
        self.now = max(self.now, at)
        happen()
        return True

    def let_pass(self, seconds: float) -> None:
        """Let things happen while no bridge runs."""
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            at, _, happen = heapq.heappop(self._events)
            self.now = max(self.now, at)
            happen()
        self.now = until

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
        self.spell = {}
        self.down = dict.fromkeys(SideName, 0)
        self.disk_full = 0

    # The plan

    def _plan(self) -> None:
        draw, knobs = self.random, self.knobs
        span_s = draw.choice([1.0, 10.0, 30.0])
        self.plan_s = span_s
        if self.trace is not None:
            self.plan_s = span_s = self.span_s
            self._plan_trace(self.trace)
        else:
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
        anew = random.Random(f"sent anew {self.seed}")
        for _ in range(knobs.sent_anew):
            self.at(anew.random() * span_s, partial(self._send_anew, anew))
        if knobs.reset:
            self.at(draw.random() * span_s, self._reset)
        if knobs.away:
            self._spell(span_s, self._go_away, self._come_back)
        if knobs.emptied:
            self.at(draw.random() * span_s, self._empty_feed)
        if knobs.answers:
            self._plan_answers(span_s)

    def _plan_answers(self, span_s: float) -> None:
        """From the start there are files to compare with. Two spells: each may cost an attempt."""
        draw, knobs = self._answers, self.knobs
        for _ in range(6):
            self._arrive()
        if knobs.quiet and draw.random() < 0.3:
            # Long enough to see what follows after the first minute.
            self.plan_s = 200.0
            for _ in range(6):
                self.at(draw.random() * self.plan_s, self._arrive)
        if knobs.quiet and draw.random() < 0.5:
            # Somebody sends what is answered strangely, again and again.
            every_s = draw.choice([0.5, 2.0, 20.0])
            for number in range(20):
                self.at((number + 1) * every_s, self._send_again)
        for _ in range(2 * (knobs.answers != "one")):
            if knobs.answers == "all":
                strange = any_strange(draw, to_all=True)
                spell = {strange.call: strange.reply}
                if strange.call == "file":
                    spell["serves_whole_file"] = strange.reply
            else:
                spell = {draw.choice(CONTROL): draw.choice(REPLIES) for _ in range(3)}
            begin_s = draw.random() * span_s
            self.at(begin_s, partial(self._change_spell, spell))
            longest_s = draw.choice([0.3, 5.0, 30.0, 130.0])
            self.at(begin_s + longest_s * draw.random(), partial(self._change_spell, {}))

    def _change_spell(self, spell: dict[str, Reply]) -> None:
        if not self.calm:
            self.spell = spell

    def answered(self, call: str, instance: str) -> Outcome | None:
        """What a worker is answered strangely at this call; the promises of time are kept."""
        if self.calm:
            return None
        strange = self.strange.get(instance)
        if strange is None or strange.call != call:
            if call not in self.spell:
                return None
            strange = Strange(call, self.spell[call])
        if self.knobs.quiet:
            self._check_tries(instance)
        return strange.outcome()

    def _check_tries(self, instance: str) -> None:
        """B4: at most 12 in the first minute, then one a minute, whatever is answered.

        When another was served it is tried once more, and may be blamed and spend its attempts.
        """
        tried = self.tried.setdefault(instance, [])
        tried.append(self.now)
        first = [at for at in tried if at < tried[0] + 60.0]
        late = [at for at in tried if at >= tried[0] + 60.0]
        if len(first) > TRIES_FIRST_MINUTE:
            raise Violation(f"{instance} was tried {len(first)} times in a minute")
        sooner = sum(after - before < MINUTE_S for before, after in itertools.pairwise(late))
        if sooner > SOONER_MAX:
            raise Violation(f"{instance} was tried more than once a minute: {late}")

    def begun(self, instance: str) -> None:
        """Something arrives while others fail: it is tried at once, one new one after another."""
        seen_at = self.seen_at.pop(instance, self.now)
        waited_s = self.now - max(seen_at, self.new_tried_at)
        if instance not in self.tried_ever:
            self.tried_ever.add(instance)
            self.new_tried_at = self.now
        if waited_s > AT_ONCE_S:
            raise Violation(f"{instance} was new and waited {waited_s:.0f} s")

    def refuse(self, call: str, side: SideName) -> None:
        """Raise what the client does when one of the bridge's own calls is answered strangely."""
        if self.calm or call not in self.spell:
            return
        error = error_of(call, self.spell[call], side)
        if error is not None:
            raise error

    def _plan_trace(self, trace: Trace) -> None:
        """The rows of a transaction before the counter that it writes."""
        begin_s = trace.end_ms / 2000 if self.knobs.archive else 0.0
        for ms, row in trace.rows:
            self.at(max(0.0, ms / 1000 - begin_s), partial(self._show, row))
        for ms, value in trace.counters:
            self.at(max(0.0, ms / 1000 - begin_s), partial(self._count, value))
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()

    def _show(self, row: FeedRow) -> None:
        """A row becomes visible, and its instance with it."""
        if row.seq <= self._lost_below:
            return  # its transaction was open when the source was replaced
        sequence, instance = row.seq - self._shift, row.resource_id
        if row.change_type == NEW_INSTANCE:
            nature = Nature.PLAIN
            if self.knobs.poison and self.random.random() < 0.05:
                nature = self.random.choice(PLANTED)
            if nature is Nature.REFUSED and self.knobs.job == "once":
                nature = Nature.PLAIN  # a job waits for it as long as it is refused
            self.natures[instance] = self.held[instance] = nature
        if sequence < self.sequence_max:
            self.late_sequences.add(sequence)
        self.sequence_max = max(self.sequence_max, sequence)
        shown = Row(sequence, row.change_type, instance, self.now, f"{self.now:018.6f}")
        insort(self.rows, shown, key=lambda known: known.sequence)
        heapq.heappush(self.unchecked, (sequence, next(self._numbers), shown))

    def rows_up_to(self, checkpoint: int) -> Iterator[Row]:
        """Yield the visible rows that a checkpoint passes, each once."""
        while self.unchecked and self.unchecked[0][0] <= checkpoint:
            yield heapq.heappop(self.unchecked)[2]

    def _count(self, value: int) -> None:
        if value > self._lost_below:
            self.counter = value - self._shift

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
            self.disk_full = max(0, self.disk_full + by)

    def _arrive(self) -> None:
        draw = self.random
        instance = f"i{len(self.natures)}"
        nature = Nature.PLAIN
        if self.knobs.poison and draw.random() < 0.25:
            nature = draw.choice(PLANTED)
        if self.knobs.answers == "one" and self._answers.random() < 0.3:
            nature = Nature.STRANGE
            self.strange[instance] = any_strange(self._answers, to_all=False)
        self.natures[instance] = self.held[instance] = nature
        follows = self.knobs.job == "follow"
        if nature is Nature.PLAIN and self.knobs.answers == "one" and self.knobs.quiet and follows:
            self.seen_at[instance] = self.now
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

    def _send_again(self) -> None:
        """The first instance that is answered strangely comes into the feed once more."""
        again = next((name for name in self.strange if name in self.held), None)
        if again is None or self.calm:
            return
        self.counter += 1
        date = f"{self.now:018.6f}"
        self.rows.append(Row(self.counter, "NewInstance", again, self.now, date))

    def _send_anew(self, draw: Random) -> None:
        """An instance is deleted and sent again: it goes to the end of list and feed."""
        if not self.held:
            return
        again = draw.choice(sorted(self.held))
        self.held[again] = self.held.pop(again)
        self.rows = [row for row in self.rows if row.instance != again]
        self.counter += 1
        date = f"{self.now:018.6f}"
        self.rows.append(Row(self.counter, "NewInstance", again, self.now, date))

    def listed(self, side: SideName) -> list[str]:
        """What a server lists."""
        held = [i for i in self.held if self.holds(i)] if side is SideName.SOURCE else self.target
        return sorted(held) if self.knobs.by_id else list(held)

    def _delete_one(self) -> None:
        if self.held:
            gone = self.random.choice(sorted(self.held))
            if self.emptied and set(self.remembered.values()) & set(self.held) <= {gone}:
                return  # nobody could tell an emptied feed from deleted instances
            del self.held[gone]
            self.rows = [row for row in self.rows if row.instance != gone]

    def _reset(self) -> None:
        """The source is re-created, or an old copy of it comes back."""
        kept = 0 if self.knobs.reset == "recreated" else self.random.randint(0, self.counter)
        lost = {r.instance for r in self.rows if r.sequence > kept and r.kind == "NewInstance"}
        if not self.rows and not self.counter:
            return
        self.history_changed = True
        if self.trace is not None:
            # What was to come goes on from where the copy ends.
            self._lost_below = self.sequence_max + self._shift
            self._shift = self._lost_below - kept
            self.sequence_max = kept
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
        return ServerInfo(
            "sim",
            1,
            has_extended_changes=self.knobs.server_filters,
            database_backend=None if self.trace is None else "simulated PostgreSQL",
        )

    def last_change(self) -> Page:
        """What ``?last`` answers: the newest row, not the counter, where a trace tells both."""
        if self.away:
            return Page((), True, 0)
        if self.trace is None or not self.rows:
            return Page((), True, self.counter)
        row = self.rows[-1]
        change = Change(row.sequence, row.kind, row.instance, row.date)
        return Page((change,), True, row.sequence)

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        if self.away:
            return Page((), True, 0)
        start = bisect_right(self.rows, since, key=lambda row: row.sequence)
        above = (self.rows[place] for place in range(start, len(self.rows)))
        wanted = (
            row
            for row in above
            if self._is_visible(row) and (row.kind == NEW_INSTANCE or not only_new_instances)
        )
        found = list(itertools.islice(wanted, limit + 1))
        page = tuple(Change(r.sequence, r.kind, r.instance, r.date) for r in found[:limit])
        done = len(found) <= limit
        return Page(page, done, page[-1].sequence if page else self.counter)


TRACED_INSTANCES = 120
"""Of a modelled trace: enough for rows that are later than any overlap in use here."""


def traced_world(seed: int) -> World:
    """Return a world whose source has its index in PostgreSQL: the feed is not in order."""
    draw = random.Random(f"trace {seed}")
    instances = draw.choice([10, 40, TRACED_INSTANCES])
    return World(seed, model_trace(seed, any_habits(draw, instances=instances)))
