"""Finds instances that the feed has not told of: the source's own count, against what was seen.

A row of the feed may become visible so late that nobody asks for it any more: its instance would
never be moved. So the source is asked now and then, at a look that brings nothing new, how many
instances it holds. That number must be the one of the last recount plus the instances that the feed
has told of since. Where it is, one request was enough.

Where it is not, instances were deleted (which no feed tells), or some have come that were not seen:

1. The rows since the last recount are read again. A row that this process should have seen and has
   not seen was missed. Of rows from before its start the process knows nothing: of those, an
   instance was missed that the target lacks and that is neither parked nor dropped.
2. If the source still holds more than that explains, the rows before the last recount are read
   backwards until that many are found.
3. At last the list of instances is read: only by a bridge that began at the beginning of its feed,
   and so expects everything in it.

What is found is looked at again after a while, because the feed may tell of it late, and moved only
if the target still lacks it. It goes through the follower's pipeline as moves without a sequence;
the checkpoint does not depend on them. The recount is noted only when all that it found has come to
an end. An instance that a server refuses for ever does not stop that: it is left out, and others
are found. An instance that arrived shortly before a restart, and that a person then deleted at the
target, may be moved once more.

A recount takes time of the thread that reads the feed, so it is done in slices. An error of a
server ends it until later and has no other effect: a login may be forbidden to count. The target is
asked only for what was not seen, once for each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from bridge.errors import InstanceError, SideError, StateError
from bridge.events import (
    Event,
    InstanceParked,
    MissedFound,
    Observer,
    Progress,
    Recounted,
    RecountFailed,
    Settled,
)
from bridge.feed.gaps import Ask
from bridge.feed.listing import Listing, ListingClient
from bridge.feed.pages import NEW_INSTANCE, FeedClient, MovePage
from bridge.feed.sequences import Sequences
from bridge.feed.sources import MoveSource
from bridge.ledger.store import Ledger
from bridge.model import Delivered, Move
from bridge.pipeline.journal import Admission, Journal, WithUnnumbered, Writer

RECOUNT_KEY = "recount"
"""Ledger: what the last recount found, as JSON; gone when the feed is another one."""
SLICE_S = 0.25
"""What a look at the feed may take longer for this."""
WINDOW = 2000
"""Sequences that are read at once."""
BACK_MAX = 1_000_000
"""Sequences that are read again at most, since the last recount and before it."""
FOUND_MAX = 1000
"""Instances that are moved at once; for more it is counted again after that."""
ENDED_MAX = 100_000
"""Instances that were found and have come to their end: so many are remembered, about 10 MB."""
REMEMBERED_MAX = 4_000_000
"""Sequences of which it is remembered whether they were seen: half a megabyte."""

Steps = Generator[float, None, None]
"""Work in steps; each yields the steady time before which the next one must not begin."""


class CountedSource(FeedClient, ListingClient, Protocol):
    """What is needed of the source."""

    def count_instances(self) -> int:
        """Return how many instances the server holds."""

    def has_instance(self, instance_id: str) -> bool:
        """Tell whether the server holds an instance."""


class HoldingTarget(Protocol):
    """What is needed of the target."""

    def has_instance(self, instance_id: str) -> bool:
        """Tell whether the server holds an instance."""


@dataclass(frozen=True, slots=True)
class LastRecount:
    """What the last recount noted: everything up to ``sequence`` that was visible then was seen.

    ``count``: instances of the source then, of those that are expected; None when that was not
    known. ``at``: epoch seconds; 0 for a beginning, before any recount.
    """

    sequence: int
    count: int | None
    at: float = 0.0

    def text(self) -> str:
        """Write it for the ledger."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where the follower goes on, and where its feed began for it.

    ``position``: up to there the feed was read before this process. ``floor``: rows at or below it
    were never ours to move.
    """

    position: int
    floor: int


def load_last_recount(ledger: Ledger) -> LastRecount | None:
    """Return what the last recount noted; None when there was none, or it makes no sense."""
    try:
        noted = json.loads(ledger.meta(RECOUNT_KEY) or "null")
        count = noted["count"]
        return LastRecount(
            int(noted["sequence"]), None if count is None else int(count), float(noted["at"])
        )
    except (ValueError, TypeError, KeyError):
        return None


@dataclass(frozen=True, slots=True)
class Waits:
    """How long what is waited for, in seconds, as parts of the interval between two recounts."""

    every_s: float

    @property
    def first_s(self) -> float:
        """After the start, where nothing was noted before."""
        return self.every_s / 30

    @property
    def difference_s(self) -> float:
        """Before a difference is believed, and before a recount is believed to be complete."""
        return self.every_s / 60

    @property
    def confirmation_s(self) -> float:
        """Before what was found is moved: the feed may tell of it meanwhile."""
        return self.every_s / 6

    @property
    def failed_s(self) -> float:
        """Before it is tried again."""
        return self.every_s / 6


class JournalOfFound(WithUnnumbered):
    """The follower's journal, with what a recount has found."""

    def __init__(self, journal: Journal, ledger: Writer, recount: Recount) -> None:
        super().__init__(journal, ledger)
        self._recount = recount

    def admit(self, page: MovePage) -> Admission:
        """Choose what the follower chooses, and all that was found. Raises FeedWentBackwards."""
        found = tuple(move for move in page.moves if move.sequence is None)
        if found:
            told = tuple(move for move in page.moves if move.sequence is not None)
            page = replace(page, moves=told)
        admission = super().admit(page)
        self._recount.see(admission.moves)
        return replace(admission, moves=(*admission.moves, *found))


class Recount:
    """A source of moves around the feed, and an observer that sees what becomes of what it found.

    ``once``: the feed has an end; what is due is done there, without waits.
    """

    def __init__(
        self,
        feed: MoveSource,
        *,
        source: CountedSource,
        target: HoldingTarget,
        state_path: Path,
        record: LastRecount | None,
        beginning: Beginning,
        every_s: float,
        once: bool,
        observer: Observer,
        now_s: Callable[[], float],
        steady_s: Callable[[], float],
        slice_s: float = SLICE_S,
    ) -> None:
        self._feed = feed
        self._source = source
        self._target = target
        self._state_path = state_path
        self._record = record
        self._beginning = beginning
        self._waits = Waits(every_s)
        self._once = once
        self._observer = observer
        self._now_s = now_s
        self._steady_s = steady_s
        self._slice_s = slice_s
        self._seen = Sequences()
        self._new = 0
        """Sequences seen for the first time by this process, above where it began."""
        self._low = 0
        """The same at or below that: they came late, or were read before its start."""
        self._at_record: tuple[int, int] | None = None
        """Both numbers when ``record`` was noted, if this process has seen everything since."""
        if record is not None and record.sequence == beginning.position == 0:
            self._at_record = (0, 0)
        self._position = beginning.position
        self._steps: Steps | None = None
        self._resume_s = float("-inf")
        self._due_s = self._first_due_s()
        self._filters: bool | None = None
        self._said = ""
        self._given_up = 0
        """Sequences of gaps that had been given up when the present recount began."""
        self._open: dict[str, int | None] = {}
        """Instances that were found and have not come to their end, each with its sequence."""
        self._ended: dict[str, None] = {}
        """Those of this process that have, the oldest first."""
        self._found: tuple[Move, ...] = ()

    def next_page(self) -> MovePage:
        """Read on in the feed; at a look that brings nothing new, count. Raises as the feed does.

        What was found is passed on with the page.
        """
        page = self._feed.next_page()
        news = self._note(page) > 0
        now_s = self._steady_s()
        if self._once:
            if page.ended and now_s >= self._due_s:
                self._work(until_s=now_s + self._waits.failed_s)
        elif page.done and not page.ended and not page.ahead:
            overdue = now_s >= self._due_s + self._waits.every_s
            if self._steps is not None or not news or overdue:
                self._work(until_s=now_s + self._slice_s)
        found, self._found = self._found, ()
        return replace(page, moves=(*page.moves, *found)) if found else page

    def ask_again(self, ask: Ask) -> MovePage:
        """Read what is there of gaps, as the feed does: what is believed of it is seen."""
        return self._feed.ask_again(ask)

    def newest(self, *, ahead: bool) -> MovePage:
        """Ask what the feed asks. Raises SourceError."""
        page = self._feed.newest(ahead=ahead)
        if page.moves:
            self._note(page)
        return page

    def on_event(self, event: Event) -> None:
        """See what becomes of what was found."""
        match event:
            case Settled(move=move, outcome=outcome) if self._has_found(move):
                new = isinstance(outcome, Delivered) and not outcome.already_there
                self._note_end(move, missed=new)
            case InstanceParked(move=move) if self._has_found(move):
                self._note_end(move, missed=True)
            case _:
                pass

    def on_progress(self, progress: Progress) -> None:
        """Nothing to see."""

    def _has_found(self, move: Move) -> bool:
        return move.sequence is None and move.instance_id in self._open

    def _note_end(self, move: Move, *, missed: bool) -> None:
        self._open.pop(move.instance_id, None)
        self._ended[move.instance_id] = None
        if len(self._ended) > ENDED_MAX:
            del self._ended[next(iter(self._ended))]
        if missed:
            self._observer.on_event(MissedFound(move))

    def look_back(self) -> MovePage:
        """Look back as the feed does."""
        page = self._feed.look_back()
        self._note(page)
        return page

    def _first_due_s(self) -> float:
        wait_s = self._waits.first_s
        if self._record is not None and self._record.at:
            wait_s = self._record.at + self._waits.every_s - self._now_s()
        elif self._once:
            wait_s = 0.0
        return self._steady_s() + min(max(wait_s, 0.0), self._waits.every_s)

    def _note(self, page: MovePage) -> int:
        """Remember what a page tells of; return how many of its rows are new to this process."""
        fresh = self.see(page.moves)
        if not page.ahead:
            self._position = max(self._position, page.frontier)
        self._seen.forget_below(self._position - REMEMBERED_MAX)
        return fresh

    def see(self, moves: Iterable[Move]) -> int:
        """Remember that these were seen; return how many are new to this process."""
        rows = [move.sequence for move in moves if move.sequence]
        fresh = [sequence for sequence in rows if self._seen.add(sequence)]
        above = sum(sequence > self._beginning.position for sequence in fresh)
        self._new += above
        self._low += len(fresh) - above
        return len(fresh)

    # In slices

    def _work(self, *, until_s: float) -> None:
        if self._steps is None:
            if self._steady_s() < self._due_s:
                return
            self._steps = self._recount()
            self._resume_s = float("-inf")
        try:
            while self._once or self._resume_s <= self._steady_s() < until_s:
                self._resume_s = next(self._steps)
                if self._once and self._steady_s() >= until_s:
                    self._steps = None
                    return
        except StopIteration:
            self._steps = None
        except (InstanceError, SideError, StateError) as error:
            self._steps = None
            self._due_s = self._steady_s() + self._waits.failed_s
            if error.message != self._said:
                self._said = error.message
                self._observer.on_event(RecountFailed(error.message))

    def _later(self, wait_s: float) -> float:
        return self._steady_s() + wait_s

    # One recount

    def _recount(self) -> Steps:
        """Count; where the count differs, look for what was not seen."""
        new = self._new
        with Ledger(self._state_path, create=False) as ledger:
            self._given_up = ledger.gaps_given_up()
        count: int | None = self._source.count_instances()
        if self._agrees(count):
            self._end(count, unexplained=0)
            return
        yield self._later(self._waits.difference_s)
        if self._new != new:
            # Something came meanwhile: no count can be compared with that.
            if self._steady_s() < self._due_s + self._waits.every_s:
                self._due_s = self._later(self._waits.difference_s)
                return
            count = None
        lacking: list[Move] = []
        position = self._position
        unexplained = yield from self._search(count, position, lacking)
        if lacking:
            yield self._later(self._waits.confirmation_s)
            found = []
            for move in lacking:
                if self._lacks(move):
                    found.append(move)
                yield self._steady_s()
            found = self._but_put_aside(found)
            if found:
                self._open |= {move.instance_id: move.sequence for move in found}
                self._found = tuple(Move(move.instance_id, None, move.changed_at) for move in found)
            until_s = self._later(self._waits.every_s)
            while self._open and not self._once and self._steady_s() < until_s:
                yield self._later(self._waits.difference_s)
            if len(lacking) >= FOUND_MAX:
                self._due_s = self._steady_s()
                return  # there is more
        yield self._later(self._waits.difference_s)
        if count is not None and (self._new != new or self._source.count_instances() != count):
            # Deleted or arrived meanwhile, or another server has answered for a moment.
            self._due_s = self._later(self._waits.difference_s)
            if self._steady_s() < self._due_s + self._waits.every_s and not self._once:
                return
            count = None
        self._end(count, unexplained=unexplained, sequence=position)

    def _agrees(self, count: int | None) -> bool:
        """Whether the source holds what the last recount and the feed since then account for."""
        record, known = self._record, self._at_record
        if record is None or record.count is None:
            return False
        if known is not None:
            return self._low == known[1] and count == record.count + self._new - known[0]
        # Nothing has come since, before or after the restart.
        return record.sequence == self._position and count == record.count

    def _search(
        self, count: int | None, position: int, lacking: list[Move]
    ) -> Generator[float, None, int]:
        """Look for what was not seen, the nearest first; return how much stays unexplained."""
        record = self._record
        begun = record.sequence if record is not None else self._beginning.position
        begin = max(self._beginning.floor, position - BACK_MAX, min(begun, position))
        rows = 0
        since = begin
        while since < position and len(lacking) < FOUND_MAX:
            moves, since = self._rows(since, position)
            rows += len(moves)
            yield from self._keep_lacking(moves, lacking)
        if count is None or record is None or record.count is None:
            return 0
        told = rows
        if self._at_record is not None:
            new, low = self._at_record
            told = max(rows, self._new - new) + self._low - low
        elsewhere = sum(s is None or s <= begin for s in tuple(self._open.values()))
        surplus = count - record.count - told - elsewhere
        if surplus <= 0:
            return 0
        return (yield from self._search_before(begin, surplus, lacking))

    def _search_before(
        self, begin: int, surplus: int, lacking: list[Move]
    ) -> Generator[float, None, int]:
        """Look for so many that came later than the last recount, with rows from before it."""
        before = len(lacking)
        lowest = max(self._beginning.floor, begin - BACK_MAX)
        end = begin
        while end > lowest and len(lacking) - before < surplus and len(lacking) < FOUND_MAX:
            since = max(lowest, end - WINDOW)
            moves, at = self._rows(since, end)
            yield from self._keep_lacking(moves, lacking)
            while at < end:
                moves, at = self._rows(at, end)
                yield from self._keep_lacking(moves, lacking)
            end = since
        counted = self._record is not None and self._record.at > 0
        if counted and self._beginning.floor == 0 and len(lacking) - before < surplus:
            # Not at the first count: a feed that was emptied before we came told of little.
            yield from self._search_list(lacking)
        return max(0, surplus - (len(lacking) - before))

    def _search_list(self, lacking: list[Move]) -> Steps:
        """Look through everything that the source holds: its row may be gone from the feed."""
        listing = Listing(self._source, page_size=WINDOW // 2, feed=self._source)
        known = {move.instance_id for move in lacking}
        while len(lacking) < FOUND_MAX:
            page = listing.next_page()
            unknown = [move for move in page.moves if move.instance_id not in known]
            yield from self._keep_lacking(unknown, lacking)
            if page.ended:
                return

    def _rows(self, since: int, end: int) -> tuple[list[Move], int]:
        """Read rows of new instances after ``since``, up to ``end``; also tell how far it is."""
        if self._filters is None:
            self._filters = self._source.system().has_extended_changes
        page = self._source.changes(since, WINDOW, only_new_instances=self._filters)
        within = [row for row in page.changes if row.sequence <= end]
        moves = [
            Move(row.resource_id, row.sequence, row.date)
            for row in within
            # A row that names no identifier of Orthanc's has none: nothing can be asked for by it.
            if row.change_type == NEW_INSTANCE and row.resource_id
        ]
        whole = page.done or len(within) < len(page.changes) or not page.changes
        return moves, end if whole else page.changes[-1].sequence

    def _keep_lacking(self, moves: Iterable[Move], lacking: list[Move]) -> Steps:
        """Add what was not seen and should be in the target; FOUND_MAX at most."""
        yield self._steady_s()
        fresh: list[Move] = []
        for move in moves:
            if len(lacking) + len(fresh) >= FOUND_MAX:
                break
            if move.sequence is not None and move.sequence in self._seen:
                continue
            if self._lacks(move):
                fresh.append(move)
            elif move.sequence is not None:
                self._seen.add(move.sequence)
            yield self._steady_s()
        lacking += self._but_put_aside(fresh)

    def _lacks(self, move: Move) -> bool:
        """Whether an instance was not seen and should be in the target. Raises SideError."""
        if move.sequence is not None and move.sequence in self._seen:
            return False
        if move.instance_id in self._ended or move.instance_id in self._open:
            return False
        ours = move.sequence is not None and move.sequence > self._beginning.position
        if not ours and self._target.has_instance(move.instance_id):
            return False
        return self._source.has_instance(move.instance_id)

    def _but_put_aside(self, moves: list[Move]) -> list[Move]:
        if not moves:
            return []
        with Ledger(self._state_path, create=False) as ledger:
            return [move for move in moves if not ledger.is_put_aside(move.instance_id)]

    def _end(self, count: int | None, *, unexplained: int, sequence: int | None = None) -> None:
        """Note what is known now, to begin there the next time.

        Not while something that was found is unfinished: whoever begins there would not find it.
        """
        if self._open:
            self._due_s = self._later(self._waits.every_s)
            return
        known = self._position if sequence is None else sequence
        before, self._record = self._record, LastRecount(known, count, self._now_s())
        # Gaps that were given up before this count are answered by it: whatever they were, the
        # source holds nothing now that was not seen, and what comes later will be counted.
        counted = None not in (count, None if before is None else before.count)
        with Ledger(self._state_path, create=False) as ledger:
            if counted and not unexplained and self._given_up:
                ledger.answer_given_up(self._given_up)
            ledger.set_meta(RECOUNT_KEY, self._record.text())
        self._at_record = (self._new, self._low)
        self._due_s = self._later(self._waits.every_s)
        self._said = ""
        self._observer.on_event(Recounted(count, unexplained))
