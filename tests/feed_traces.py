"""Feeds that are not in order: recordings of real ones, and a seeded model that makes more.

A trace tells when each row of ``/changes`` became visible, and what the counter (the ``Last`` of an
empty page) and ``?last`` said meanwhile. ``TracedStore`` answers as that server did, by any clock.

The model is of an Orthanc whose index is in PostgreSQL (READ COMMITTED, many connections): a
transaction takes the sequence of its first row, then waits for the one row that all of them write,
then takes its other sequences and commits. So whoever waits longest has the lowest sequence and is
seen last. The counter is what the last to commit has written, whatever was written before. A
transaction that is aborted leaves its sequences unused for ever.
"""

from __future__ import annotations

import gzip
import hashlib
import heapq
import itertools
import random
from bisect import bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.dicom_samples import identity_of, orthanc_id, small_ct
from tests.fake_store import FakeStore, FeedRow, StoredInstance

NEW_INSTANCE = "NewInstance"
PER_PATIENT = 5
STABLE = ("StableSeries", "StableStudy", "StablePatient")


@dataclass(frozen=True, slots=True)
class Trace:
    """``rows``: (ms, row) in the order in which they became visible. ``counters``, ``newest``:
    (ms, value), ascending; without a recording of ``?last`` it is the newest visible row.
    """

    rows: tuple[tuple[float, FeedRow], ...]
    counters: tuple[tuple[float, int], ...]
    newest: tuple[tuple[float, int], ...] = ()

    @property
    def end_ms(self) -> float:
        """When the last row became visible or the counter changed last."""
        return max([ms for ms, _ in self.rows[-1:]] + [ms for ms, _ in self.counters[-1:]])

    @property
    def instances(self) -> list[str]:
        """The instances of the feed, in the order in which they became visible."""
        return [row.resource_id for _, row in self.rows if row.change_type == NEW_INSTANCE]

    @property
    def gaps(self) -> int:
        """Sequences that never appear."""
        return max(row.seq for _, row in self.rows) - len(self.rows)

    def faster(self, times: float) -> Trace:
        """The same, so many times as fast."""
        return Trace(
            tuple((ms / times, row) for ms, row in self.rows),
            tuple((ms / times, value) for ms, value in self.counters),
            tuple((ms / times, value) for ms, value in self.newest),
        )

    def steady(self) -> Trace:
        """The same with a counter that never goes back."""
        highest = itertools.accumulate((value for _, value in self.counters), max)
        times = (ms for ms, _ in self.counters)
        return Trace(self.rows, tuple(zip(times, highest, strict=True)), self.newest)

    def counter_below_newest(self) -> int:
        """How often the counter falls below a row that is visible."""
        moments = [(ms, 0, row.seq) for ms, row in self.rows]
        moments += [(ms, 1, value) for ms, value in self.counters]
        newest = times = 0
        for _, is_counter, value in sorted(moments):
            if is_counter:
                times += value < newest
            else:
                newest = max(newest, value)
        return times

    def late_by(self) -> list[int]:
        """By how many sequences each late row is below the newest one that was seen before it."""
        late, newest = [], 0
        for _, row in self.rows:
            if row.seq < newest:
                late.append(newest - row.seq)
            newest = max(newest, row.seq)
        return late


def read_trace(path: Path) -> Trace:
    """Read a recording (the format is told in the README beside the recordings)."""
    rows: list[tuple[float, FeedRow]] = []
    values: dict[str, list[tuple[float, int]]] = {"counter": [], "newest": []}
    with gzip.open(path, "rt", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("#"):
                continue
            ms, kind, *rest = line.rstrip("\n").split("\t")
            if kind == "row":
                seq, change_type, number = rest
                rows.append((float(ms), _row(int(seq), change_type, number, float(ms))))
            else:
                values[kind].append((float(ms), int(rest[0])))
    return Trace(tuple(rows), tuple(values["counter"]), tuple(values["newest"]))


def _row(seq: int, change_type: str, number: str, ms: float) -> FeedRow:
    if change_type == NEW_INSTANCE:
        return FeedRow(seq, change_type, instance_of(number).identifier, _date(ms))
    return FeedRow(seq, change_type, orthanc_id(change_type, number), _date(ms))


def _date(ms: float) -> str:
    seconds = int(ms // 1000)
    hours, minutes = divmod(seconds // 60, 60)
    return f"20260101T{hours:02d}{minutes:02d}{seconds % 60:02d}"


# Instances


@dataclass(frozen=True, slots=True)
class TracedInstance:
    """An instance of a trace: its Orthanc ID, its file, its series, study and patient."""

    identifier: str
    data: bytes
    parents: tuple[str, str, str]


@cache
def _template() -> bytes:
    uids = {f"{level}_uid": f"1.2.3.{digit}00000000" for level, digit in _DIGITS.items()}
    return small_ct(patient_id="T00000000", **uids)  # type: ignore[arg-type]


_DIGITS = {"study": 4, "series": 5, "sop": 6}


@cache
def instance_of(number: str) -> TracedInstance:
    """The instance behind a number of a trace, alone in its patient."""
    data = _template().replace(b"T00000000", b"T%08d" % int(number))
    for digit in _DIGITS.values():
        old, new = b"1.2.3.%d00000000" % digit, b"1.2.3.%d%08d" % (digit, int(number))
        data = data.replace(old, new)
    patient = f"T{int(number):08d}"
    study, series, sop = (f"1.2.3.{digit}{int(number):08d}" for digit in _DIGITS.values())
    identifier = orthanc_id(patient, study, series, sop)
    parents = (orthanc_id(patient, study, series), orthanc_id(patient, study))
    _KNOWN[identifier] = TracedInstance(identifier, data, (*parents, orthanc_id(patient)))
    return _KNOWN[identifier]


def _files_of(trace: Trace) -> dict[str, TracedInstance]:
    """The instances of a trace, by ID. Making a trace has made them known."""
    return {instance_id: _KNOWN[instance_id] for instance_id in trace.instances}


_KNOWN: dict[str, TracedInstance] = {}


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


# The model


@dataclass(frozen=True, slots=True)
class Habits:
    """How a modelled source is written to. Times in ms.

    ``unfair``: how often the next to commit is not the one that waits longest. ``held``: how often
    a transaction is held, for up to ``held_ms``, with its sequence in hand. ``bursts``: the writers
    begin together so many times, ``pause_ms`` apart.
    """

    instances: int = 200
    writers: int = 20
    unfair: float = 0.2
    aborts: float = 0.03
    held: float = 0.01
    held_ms: float = 3000.0
    work_ms: float = 4.0
    bursts: int = 1
    pause_ms: float = 1500.0
    stable: bool = True


@dataclass(slots=True)
class _Transaction:
    kinds: tuple[str, ...]
    numbers: tuple[str, ...]
    sequences: list[int] = field(default_factory=list)


class _Model:
    """Writers that queue for one lock with sequences in hand."""

    def __init__(self, habits: Habits, draw: random.Random) -> None:
        self._habits = habits
        self._draw = draw
        self._sequence = 0
        self._resources = habits.instances
        self._known: set[int] = set()
        self._ready: list[tuple[float, int, _Transaction]] = []
        self._numbers = 0
        self._rows: list[tuple[float, FeedRow]] = []
        self._counters: list[tuple[float, int]] = []

    def run(self) -> Trace:
        self._plan()
        waiting: list[_Transaction] = []
        free_at = 0.0
        while self._ready or waiting:
            while self._ready and (not waiting or self._ready[0][0] <= free_at):
                at, _, transaction = heapq.heappop(self._ready)
                if not transaction.sequences:
                    # The sequence is taken here, before the lock; some are held with it in hand.
                    transaction.sequences.append(self._next())
                    if self._draw.random() < self._habits.held:
                        self._push(at + self._draw.random() * self._habits.held_ms, transaction)
                        continue
                waiting.append(transaction)
                free_at = max(free_at, at)
            if waiting:
                place = 0
                if self._draw.random() < self._habits.unfair:
                    place = self._draw.randrange(len(waiting))
                transaction = waiting.pop(place)
                free_at += self._habits.work_ms * (0.5 + self._draw.random())
                self._commit(transaction, free_at)
        return Trace(tuple(self._rows), tuple(self._counters))

    def _plan(self) -> None:
        habits, draw = self._habits, self._draw
        each = -(-habits.instances // habits.bursts)
        for number in range(habits.instances):
            burst, place = divmod(number, each)
            turn = place // habits.writers
            begun = burst * (habits.pause_ms + each * habits.work_ms)
            at = begun + turn * habits.writers * habits.work_ms + 80 * draw.random()
            kinds = [NEW_INSTANCE]
            if number % PER_PATIENT == 0:
                kinds += ["NewSeries", "NewStudy", "NewPatient"]
            elif number % PER_PATIENT == PER_PATIENT // 2:
                kinds += ["NewSeries"]
            self._push(at, self._transaction(tuple(kinds), str(number)))
            if habits.stable and number % PER_PATIENT == 0:
                later = at + 500 + 3000 * draw.random()
                for kind in STABLE:
                    self._push(later, self._transaction((kind,), None))

    def _transaction(self, kinds: tuple[str, ...], first: str | None) -> _Transaction:
        numbers = [first] if first is not None else []
        while len(numbers) < len(kinds):
            self._resources += 1
            numbers.append(str(self._resources))
        return _Transaction(kinds, tuple(numbers))

    def _push(self, at: float, transaction: _Transaction) -> None:
        self._numbers += 1
        heapq.heappush(self._ready, (at, self._numbers, transaction))

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _commit(self, transaction: _Transaction, at: float) -> None:
        while len(transaction.sequences) < len(transaction.kinds):
            transaction.sequences.append(self._next())
        if self._draw.random() < self._habits.aborts:
            # Orthanc does it again, or the sender does: with new sequences.
            self._push(at + 20 * self._draw.random(), _Transaction(*_again(transaction)))
            return
        rows = zip(transaction.sequences, transaction.kinds, transaction.numbers, strict=True)
        self._rows += [(at, _row(seq, kind, number, at)) for seq, kind, number in rows]
        self._counters.append((at, transaction.sequences[-1]))


def _again(transaction: _Transaction) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return transaction.kinds, transaction.numbers


def model_trace(seed: int, habits: Habits | None = None) -> Trace:
    """Make the trace of a modelled source."""
    return _Model(habits or Habits(), random.Random(seed)).run()


def any_habits(draw: random.Random, *, instances: int) -> Habits:
    """Draw how a source is written to: from nearly in order to worse than any recording."""
    return Habits(
        instances=instances,
        writers=draw.choice([2, 10, 50, 200]),
        unfair=draw.choice([0.0, 0.1, 0.5, 1.0]),
        aborts=draw.choice([0.0, 0.0, 0.03, 0.2]),
        held=draw.choice([0.0, 0.01, 0.1]),
        held_ms=draw.choice([200.0, 3000.0, 16_000.0]),
        work_ms=draw.choice([1.0, 4.0, 20.0]),
        bursts=draw.choice([1, 1, 3, 8]),
        pause_ms=draw.choice([500.0, 3000.0]),
        stable=draw.random() < 0.7,
    )


# What a server with such a feed answers


class TracedStore(FakeStore):
    """Answers as the recording's server did ``elapsed_ms`` after its beginning.

    An instance is there as soon as its row is, since one transaction writes both.
    """

    def __init__(self, trace: Trace, elapsed_ms: Callable[[], float]) -> None:
        self._held: dict[str, StoredInstance] = {}
        super().__init__()
        self.trace = trace
        self._elapsed_ms = elapsed_ms
        self._shown = 0
        self._visible: list[FeedRow] = []
        self._files = _files_of(trace)
        self._by_sequence = {row.seq: row for _, row in trace.rows}
        self.deleted: set[str] = set()

    @property
    def instances(self) -> dict[str, StoredInstance]:
        with self.lock:
            self._advance()
            return self._held

    @instances.setter
    def instances(self, held: dict[str, StoredInstance]) -> None:
        self._held = held

    def listing(self) -> list[str]:
        """By identifier, as new versions do."""
        return sorted(self.instances)

    def delete(self, instance_id: str) -> bool:
        """Delete an instance and its row; those of its parents are of others too."""
        with self.lock:
            if self.instances.pop(instance_id, None) is None:
                return False
            self.deleted.add(instance_id)
            self._visible = [row for row in self._visible if row.resource_id != instance_id]
            return True

    def clear_changes(self) -> None:
        """Empty the feed: what is not visible yet will be there all the same."""
        with self.lock:
            self._advance()
            self._visible = []

    def page(
        self, since: int, limit: int, *, to: int | None = None, types: frozenset[str] | None = None
    ) -> tuple[list[FeedRow], bool, int]:
        """Return what is visible now; an empty page tells the counter."""
        with self.lock:
            self._advance()
            self.rows, self.counter = self._visible, self._value(self.trace.counters)
            return super().page(since, limit, to=to, types=types)

    def last(self) -> tuple[FeedRow | None, int]:
        """Return what ``?last`` said."""
        with self.lock:
            self._advance()
            newest = self._value(self.trace.newest)
            row = self._by_sequence.get(newest)
            if row is None or row.resource_id in self.deleted or not self._visible:
                row = self._visible[-1] if self._visible else None
            return row, row.seq if row else self._value(self.trace.counters)

    def is_over(self) -> bool:
        """Whether the trace has come to its end."""
        return self._elapsed_ms() > self.trace.end_ms

    def _value(self, values: tuple[tuple[float, int], ...]) -> int:
        at = bisect_right(values, self._elapsed_ms(), key=lambda pair: pair[0])
        return values[at - 1][1] if at else 0

    def _advance(self) -> None:
        rows, now_ms = self.trace.rows, self._elapsed_ms()
        while self._shown < len(rows) and rows[self._shown][0] <= now_ms:
            row = rows[self._shown][1]
            self._shown += 1
            insort(self._visible, row, key=lambda known: known.seq)
            if row.change_type == NEW_INSTANCE:
                file = self._files[row.resource_id]
                self._held[row.resource_id] = StoredInstance(file.data, file.parents, _METADATA)


_METADATA = {"TransferSyntax": "1.2.840.10008.1.2.1", "SopClassUid": "1.2.840.10008.5.1.4.1.1.2"}


class TracedTarget(FakeStore):
    """A target that knows the files of traces by their bytes: parsing thousands takes seconds.

    ``arrivals``: how often each was stored as new.
    """

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._by_md5 = {_md5(file.data): file for file in _files_of(trace).values()}
        self.arrivals: dict[str, int] = {}

    def put(self, data: bytes, *, instance_id: str | None = None) -> tuple[str, str]:  # noqa: ARG002
        """Store a file of a trace."""
        known = self._by_md5[_md5(data)]
        with self.lock:
            if known.identifier in self.instances:
                return known.identifier, "AlreadyStored"
            self.instances[known.identifier] = StoredInstance(data, known.parents, _METADATA)
            self.arrivals[known.identifier] = self.arrivals.get(known.identifier, 0) + 1
            return known.identifier, "Success"


def identity_is_as_computed(instance_id: str) -> bool:
    """Whether the ID that a trace's instance is given is the one that its file makes."""
    return identity_of(_KNOWN[instance_id].data).orthanc_id == instance_id
