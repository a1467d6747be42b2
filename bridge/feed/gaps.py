"""The theory of the source's feed, and the sequences of it that nobody has seen (G1, G6).

This file must not know: sockets, files, clocks, logging, settings.
Time enters as an argument, in seconds of any steady clock.

What a feed is
--------------
Each row of ``/changes`` has a sequence. Sequences are unique, and they grow by the time at which
they are *taken*. A row becomes *visible* when the transaction that wrote it commits. With SQLite
one transaction writes at a time: rows become visible in the order of their sequences. With a
database plugin (PostgreSQL, MySQL, ODBC) many write at once: a row may become visible after rows
with higher sequences, seconds later and thousands of sequences below them.

What happens to it, how it shows, and what we believe
-----------------------------------------------------
==============================  ============================  =====================================
what happens                    what we see                   what we believe
==============================  ============================  =====================================
a transaction is still open     a gap: a sequence without a   unknown: it is noted and asked for
                                row, below rows               again
it commits                      the gap has a row             the row is a late one: it is moved, or
                                                              it is of another type
it is undone                    a gap that stays              unknown, and old after ``age_s``:
                                                              nothing was there
a resource is deleted           its rows are gone: gaps, of   SQLite: deleted before it was read.
before we read its rows         any width                     Else as above; a wide gap is counted
                                                              as missing
a resource is deleted           rows that we know are gone    nothing: rows go with their resources
after we read its rows
``DELETE /changes``             all rows are gone, the        nothing unread: nothing. Unread rows:
                                counter stays                 emptied (feed/identity.py)
a burst ends                    the counter (``Last`` of an   nothing: a counter below a row that is
                                empty page) stays below the   there proves nothing; it is remembered
                                newest row until the next
                                change
... and its last resources      the counter and the newest    nothing, where the counter is the one
are deleted                     row are below our position    that is remembered; else see below
the source is re-created or     the counter and the newest    another feed, at the first look
restored                        row are below our position
... and has grown since         a row that we know has        another feed, at the first look that
                                another instance              reads it (feed/identity.py)
==============================  ============================  =====================================

Only a later answer closes a gap: by a row in it, or by none when the gap is old. Time alone closes
nothing, so a bridge that was stopped for a day asks again before it lets go of a gap. A row in a
gap is believed only beside a row that we know (or when it is told again after one was looked at):
another server that answers for a moment at the source's address must not close our gaps.

What is recorded
----------------
A gap is recorded in the transaction that lets the checkpoint pass it. Everything at or below the
checkpoint is settled, or is a gap on record. A late row below the checkpoint stays a gap on record
until its instance is settled: a crash before that finds the gap, asks, and finds the row again.

Gaps are ranges: 100,000 rows that vanish at once are one. The pauses between two questions grow
with the age of a gap, so that one which never fills costs about 30 questions in all.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bridge.model import Gap, OpenGaps, epoch_of

FIRST_PAUSE_S = 0.25
"""A gap is first asked for when it is so old."""
GROWTH = 0.5
"""The next pause, by the age of the gap."""
ASK_WIDTH = 500
"""Sequences that one question spans at most, if it spans several gaps."""
UNDISPUTED_S = 600.0
"""No row was ever seen so late: a gap that is older may be dropped for want of room."""
FRESH_S = 600.0
"""So long a gap of an earlier run is kept at least, whatever the clocks say."""
ABORTED_ROWS_MAX = 20
"""A gap up to this width may be uploads that were undone: each takes up to four sequences."""
DATED_BY = 20
"""Rows above a gap whose latest date tells its age: one server's clock may be slow."""


@dataclass(frozen=True, slots=True)
class PageGap:
    """Sequences first..last that had no row in a page. ``date``: it was there by then, or ""."""

    first: int
    last: int
    date: str = ""
    counted: bool = True
    """Rows that are gone from it went after we began to follow."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A question: which rows are there with since < sequence <= to.

    ``gaps``: the open ones among these. ``known``: rows in between, sequence and instance ID.
    """

    since: int
    to: int
    gaps: tuple[tuple[int, int], ...] = ()
    known: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class GapLimits:
    """How many gaps are remembered, and for how long.

    ``patience_s``: how old a gap gets that a command waits for; None waits for none.
    """

    count: int = 50_000
    age_s: float = 6 * 3600.0
    patience_s: float | None = None


@dataclass(slots=True)
class Closed:
    """What became of sequences that were gaps, counted in sequences.

    ``filled``: a row appeared. ``expired``: none ever did. ``missing``: those of the expired that
    no undone upload explains. ``given_up``: dropped for want of room, and no one knows.
    """

    filled: int = 0
    expired: int = 0
    missing: int = 0
    given_up: int = 0

    def any(self) -> bool:
        """Tell whether anything became of any."""
        return bool(self.filled or self.expired or self.given_up)


@dataclass(slots=True)
class _Range:
    last: int
    noted_s: float
    noted_at: float
    due_s: float
    counted: bool
    asked_s: float = float("-inf")


def page_gaps_of(
    rows: Sequence[tuple[int, str]], *, since: int, to: int, counts_from: int | None
) -> tuple[PageGap, ...]:
    """Return what has no row of since < sequence <= to. ``rows``: (sequence, date), ascending.

    Of gaps above ``counts_from`` (None: of none) rows that are gone count as missing.
    """
    found: list[PageGap] = []
    before = since
    for number, (sequence, _) in enumerate(rows):
        if sequence > before + 1:
            date = max(row[1] for row in rows[number : number + DATED_BY])
            found.extend(_page_gap(before + 1, sequence - 1, date, counts_from))
        before = sequence
    if to > before:
        found.extend(_page_gap(before + 1, to, "", counts_from))
    return tuple(found)


def _page_gap(first: int, last: int, date: str, counts_from: int | None) -> Iterator[PageGap]:
    if counts_from is None or counts_from >= last:
        yield PageGap(first, last, date, counted=False)
    elif counts_from < first:
        yield PageGap(first, last, date)
    else:
        yield PageGap(first, counts_from, date, counted=False)
        yield PageGap(counts_from + 1, last, date)


def age_s_of(gap: PageGap, *, feed_date: str, now_at: float) -> float:
    """Tell how old a gap is at least, in seconds. ``feed_date``: of the newest row of the feed.

    By the dates of its rows and by our clock: a clock that is wrong, here or there, makes nothing
    old. ``now_at``: epoch seconds.
    """
    there_by, newest_at = epoch_of(gap.date), epoch_of(feed_date)
    if there_by is None or newest_at is None:
        return 0.0
    return max(0.0, min(newest_at, now_at) - there_by)


class Gaps:
    """The gaps that are open. ``now_at``: epoch seconds.

    ``recorded``: those of an earlier run. What is above ``read_to`` is forgotten: it is read again
    in order, and noted then. To ask for it before would bring moves from beyond what was read, and
    nothing would tell another source by.
    """

    def __init__(
        self,
        recorded: Iterable[Gap] = (),
        *,
        limits: GapLimits | None = None,
        read_to: int = 0,
        now_s: float = 0.0,
        now_at: float = 0.0,
    ) -> None:
        self._limits = limits or GapLimits()
        self._ranges: dict[int, _Range] = {}
        self._firsts: list[int] = []
        self._due: list[tuple[float, int]] = []
        self._ages: list[tuple[float, int]] = []
        self._moving: dict[int, _Range] = {}
        self._changed: set[int] = set()
        self._sequences = 0
        self._closed = Closed()
        kept_s = max(0.0, self._limits.age_s - FRESH_S)
        forgotten = set()
        for gap in recorded:
            age_s = min(max(0.0, now_at - gap.noted_at), kept_s)
            last = min(gap.last, read_to)
            if gap.first <= last:
                found = _Range(last, now_s - age_s, gap.noted_at, now_s, gap.counted)
                self._add(gap.first, found)
            if last < gap.last:
                forgotten.add(gap.first)
        self._changed = forgotten

    def take_closed(self) -> Closed:
        """Return what became of gaps since this was asked last."""
        closed, self._closed = self._closed, Closed()
        return closed

    @property
    def view(self) -> OpenGaps:
        """What is open, without the late rows that are being moved."""
        oldest = self._top(self._ages)
        at = None if oldest is None else self._ranges[oldest].noted_at
        return OpenGaps(len(self._ranges), self._sequences, at)

    def has(self, sequence: int) -> bool:
        """Tell whether a sequence is in an open gap."""
        place = bisect_right(self._firsts, sequence) - 1
        return place >= 0 and self._ranges[self._firsts[place]].last >= sequence

    def note(self, gap: PageGap, *, age_s: float, now_s: float, now_at: float) -> None:
        """Note a gap of a page, except where it is known. ``age_s``: how old it is."""
        if age_s >= self._limits.age_s:
            # It was there long before the newest row: nothing is late any more.
            self._expire(gap.first, gap.last, counted=gap.counted)
            return
        for first, last in self._unknown(gap.first, gap.last):
            due_s = now_s + FIRST_PAUSE_S
            noted = _Range(last, now_s - age_s, now_at - age_s, due_s, gap.counted)
            self._add(first, noted)
        self._make_room(now_s)

    def fill(self, sequence: int) -> None:
        """Close a gap at a sequence that has a row now."""
        if self._cut(sequence) is not None:
            self._closed.filled += 1

    def begin_move(self, sequence: int, *, now_s: float, now_at: float) -> bool:
        """Keep a late row on record, and not as a gap, while it is moved. False: it is already."""
        if sequence in self._moving:
            return False
        found = self._cut(sequence)
        if found is not None:
            self._closed.filled += 1
        # The row was not in a gap when it comes later than gaps are kept: it is on record now.
        self._moving[sequence] = found or _Range(sequence, now_s, now_at, now_s, counted=False)
        self._changed.add(sequence)
        return True

    def end_move(self, sequence: int) -> None:
        """Forget a late row that is settled."""
        if self._moving.pop(sequence, None) is not None:
            self._changed.add(sequence)

    def look(self, now_s: float) -> tuple[int, int] | None:
        """Return which sequences, first and last, are to be asked for now; None when none are.

        The gap that is due first, and those around it that are due and near enough.
        """
        top = self._top(self._due)
        if top is None or self._ranges[top].due_s > now_s:
            return None
        first, last = top, self._ranges[top].last
        place = bisect_left(self._firsts, top)
        for index in range(place + 1, len(self._firsts)):
            found = self._ranges[self._firsts[index]]
            if found.last - first >= ASK_WIDTH:
                break
            if found.due_s <= now_s:
                last = found.last
        for index in range(place - 1, -1, -1):
            other = self._firsts[index]
            if last - other >= ASK_WIDTH:
                break
            if self._ranges[other].due_s <= now_s:
                first = other
        return first, last

    def between(self, since: int, to: int) -> tuple[tuple[int, int], ...]:
        """Return the gaps, first and last, with a sequence of since < sequence <= to."""
        return tuple((first, self._ranges[first].last) for first in self._within(since, to))

    def due_s(self) -> float | None:
        """Return when a gap is to be asked for next; None when none is open."""
        top = self._top(self._due)
        return None if top is None else self._ranges[top].due_s

    def asked(self, *, since: int, to: int, now_s: float) -> None:
        """Note that there was no row in what is still open of since < sequence <= to.

        What is old is closed by that.
        """
        for first in self._within(since, to):
            found = self._ranges[first]
            if first <= since or found.last > to:
                self._split(first, max(first, since + 1), min(found.last, to))
        for first in self._within(since, to):
            found = self._ranges[first]
            if now_s - found.noted_s >= self._limits.age_s:
                self._expire(first, found.last, counted=found.counted)
                self._remove(first)
            else:
                self._postpone(first, found, now_s)

    def put_off(self, *, since: int, to: int, now_s: float) -> None:
        """Note that an answer for since < sequence <= to was not believed: ask again soon."""
        for first in self._within(since, to):
            self._set_due(first, now_s + FIRST_PAUSE_S)

    def has_young(self, now_s: float) -> bool:
        """Tell whether a gap is so young that a row may have come in it since it was asked for."""
        return any(now_s - found.noted_s < UNDISPUTED_S for found in self._ranges.values())

    def waits(self) -> bool:
        """Tell whether a command is still to wait for a gap."""
        patience_s = self._limits.patience_s
        if patience_s is None:
            return False
        return any(r.asked_s - r.noted_s < patience_s for r in self._ranges.values())

    def changes(self) -> tuple[tuple[Gap, ...], tuple[int, ...]]:
        """Return the gaps to be written down, and the first sequences of those to be forgotten."""
        written: list[Gap] = []
        forgotten: list[int] = []
        for first in sorted(self._changed):
            found = self._ranges.get(first) or self._moving.get(first)
            if found is None:
                forgotten.append(first)
            else:
                written.append(Gap(first, found.last, found.noted_at, found.counted))
        return tuple(written), tuple(forgotten)

    def written(self) -> None:
        """Note that all changes are written down."""
        self._changed.clear()

    @property
    def changed(self) -> bool:
        """Whether there is anything to be written down."""
        return bool(self._changed)

    # Ranges

    def _add(self, first: int, found: _Range) -> None:
        self._ranges[first] = found
        insort(self._firsts, first)
        self._sequences += found.last - first + 1
        self._changed.add(first)
        heapq.heappush(self._ages, (found.noted_s, first))
        self._set_due(first, found.due_s)

    def _remove(self, first: int) -> _Range:
        found = self._ranges.pop(first)
        del self._firsts[bisect_left(self._firsts, first)]
        self._sequences -= found.last - first + 1
        self._changed.add(first)
        return found

    def _cut(self, sequence: int) -> _Range | None:
        """Take one sequence out of the gap that it is in; None when it is in none."""
        if not self.has(sequence):
            return None
        first = self._firsts[bisect_right(self._firsts, sequence) - 1]
        self._split(first, sequence, sequence)
        return self._remove(sequence)

    def _split(self, first: int, begin: int, end: int) -> None:
        """Divide a gap in up to three: before ``begin``, up to ``end``, and behind it."""
        found = self._remove(first)
        for a, b in ((first, begin - 1), (begin, end), (end + 1, found.last)):
            if a <= b:
                piece = _Range(
                    b,
                    found.noted_s,
                    found.noted_at,
                    found.due_s,
                    found.counted,
                    found.asked_s,
                )
                self._add(a, piece)

    def _within(self, since: int, to: int) -> list[int]:
        """Return the gaps that have a sequence of since < sequence <= to."""
        begin = bisect_right(self._firsts, since)
        if begin and self._ranges[self._firsts[begin - 1]].last > since:
            begin -= 1
        return self._firsts[begin : bisect_right(self._firsts, to)]

    def _unknown(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield what of first..last is in no gap, and not being moved."""
        taken = [(other, self._ranges[other].last) for other in self._within(first - 1, last)]
        taken += [(s, s) for s in self._moving if first <= s <= last]
        begin = first
        for other, end in sorted(taken):
            if other > begin:
                yield begin, other - 1
            begin = max(begin, end + 1)
        if begin <= last:
            yield begin, last

    # Time

    def _postpone(self, first: int, found: _Range, now_s: float) -> None:
        found.asked_s = now_s
        age_s = now_s - found.noted_s
        due_s = now_s + max(FIRST_PAUSE_S, GROWTH * age_s)
        ends_s = [found.noted_s + self._limits.age_s]
        if self._limits.patience_s is not None:
            ends_s.append(found.noted_s + self._limits.patience_s)
        for end_s in ends_s:
            if now_s < end_s:
                due_s = min(due_s, end_s)
        self._set_due(first, due_s)

    def _set_due(self, first: int, due_s: float) -> None:
        self._ranges[first].due_s = due_s
        heapq.heappush(self._due, (due_s, first))
        if max(len(self._due), len(self._ages)) > 4 * len(self._ranges) + 1000:
            # Entries that are out of date leave a heap only at its top.
            self._due = [(r.due_s, f) for f, r in self._ranges.items()]
            self._ages = [(r.noted_s, f) for f, r in self._ranges.items()]
            heapq.heapify(self._due)
            heapq.heapify(self._ages)

    def _top(self, heap: list[tuple[float, int]]) -> int | None:
        """Return the gap that comes first in a heap; entries that are out of date are dropped."""
        while heap:
            at_s, first = heap[0]
            found = self._ranges.get(first)
            if found is not None and at_s == (found.due_s if heap is self._due else found.noted_s):
                return first
            heapq.heappop(heap)
        return None

    def _make_room(self, now_s: float) -> None:
        """Drop the oldest gaps where there are too many."""
        while len(self._ranges) > self._limits.count:
            first = self._top(self._ages)
            if first is None:
                return
            found = self._remove(first)
            if now_s - found.noted_s >= UNDISPUTED_S:
                self._expire(first, found.last, counted=found.counted)
            else:
                self._closed.given_up += found.last - first + 1

    def _expire(self, first: int, last: int, *, counted: bool) -> None:
        width = last - first + 1
        self._closed.expired += width
        if counted and width > ABORTED_ROWS_MAX:
            self._closed.missing += width
