"""What is written down, and when: the follower's journal and the journal of a single command.

``settle`` and ``spend`` only note; ``flush`` writes everything noted in one transaction and, when
that fails, keeps it for the next flush: a full disk loses nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from bridge.feed.gaps import ASK_WIDTH, Ask, Closed, GapLimits, Gaps, PageGap, age_s_of
from bridge.feed.identity import FeedMemory, emptied
from bridge.feed.pages import MovePage
from bridge.ledger.checkpoint import OpenChanges
from bridge.ledger.records import Attempts, DeliveryRecord, Entry, Kept, Parked, StudyNote
from bridge.ledger.store import NEWEST_DATE_KEY, Ledger
from bridge.model import REMEMBERED, Gap, Move, OpenGaps
from bridge.pipeline.runtime import Clock, SystemClock


@dataclass(frozen=True, slots=True)
class Admission:
    """The moves of a page that are to be done; ``late`` of them came late.

    ``closed``: what became of gaps.
    """

    moves: tuple[Move, ...]
    late: int = 0
    closed: Closed = field(default_factory=Closed)


class Journal(Protocol):
    """The pipeline's view of what is remembered."""

    @property
    def checkpoint(self) -> int | None:
        """Highest sequence up to which everything is settled, where there are sequences."""

    def admit(self, page: MovePage) -> Admission:
        """Choose what of a page is to be done. Raises FeedWentBackwards."""

    def attempts(self) -> Mapping[str, Attempts]:
        """Return attempts spent before, by instance ID."""

    def spend(self, move: Move, attempts: Attempts) -> None:
        """Note attempts spent on an unfinished instance."""

    def settle(
        self,
        move: Move,
        parked: Parked | None,
        kept: Kept | None = None,
        record: DeliveryRecord | None = None,
        study: StudyNote | None = None,
    ) -> None:
        """Note that a move is finished: parked, or delivered and ``kept`` by the source."""

    def flush(self) -> None:
        """Write what was noted. Raises StateError; nothing noted is lost then."""

    def oldest_open(self) -> int | None:
        """Return the lowest unfinished sequence, where there are sequences."""

    def spread(self) -> int:
        """How many sequences reading is ahead of the oldest unfinished one."""

    @property
    def gaps(self) -> OpenGaps:
        """The sequences below what was read that nobody has seen."""

    def ask(self) -> Ask | None:
        """Return which gaps are to be asked for now; None when none are."""

    def ask_due_s(self) -> float | None:
        """Return when gaps are to be asked for, by the steady clock; None when none are open."""

    def waits(self) -> bool:
        """Tell whether a command is still to wait for a gap."""


class Writer(Protocol):
    """What a command's journal needs of the ledger."""

    def commit(self, entry: Entry) -> None:
        """Write one transaction. Raises StateError."""


class DryRunLedger:
    """A ledger of a dry run: it writes nothing."""

    def commit(self, entry: Entry) -> None:
        """Forget the entry."""


class CommandJournal:
    """For snapshot and parked retry: parks and unparks, leaves the checkpoint alone."""

    def __init__(self, ledger: Writer) -> None:
        self._ledger = ledger
        self._notes = Notes()

    @property
    def checkpoint(self) -> int | None:
        """None: there is none."""
        return None

    def admit(self, page: MovePage) -> Admission:
        """Choose everything."""
        return Admission(page.moves)

    def attempts(self) -> Mapping[str, Attempts]:
        """Return none: a command gives every instance its attempts anew."""
        return {}

    def spend(self, move: Move, attempts: Attempts) -> None:
        """Ignore: the attempts of a command end with it."""

    def settle(
        self,
        move: Move,
        parked: Parked | None,
        kept: Kept | None = None,
        record: DeliveryRecord | None = None,
        study: StudyNote | None = None,
    ) -> None:
        """Note that a move is finished."""
        self._notes.finish(move, parked, kept, record, study)

    def withdraw(self, instance_id: str) -> None:
        """Forget what was noted of an instance and is not written: something newer is known."""
        self._notes.withdraw(instance_id)

    def flush(self) -> None:
        """Write what was noted. Raises StateError; nothing noted is lost then."""
        if not self._notes.any():
            return
        notes = self._notes.entry()
        self._ledger.commit(
            Entry(
                parked=notes.parked,
                unparked=notes.unparked,
                kept=notes.kept,
                delivered=notes.delivered,
                outdated=notes.outdated,
                studies=notes.studies,
            )
        )
        self._notes = Notes()

    def oldest_open(self) -> int | None:
        """Return None: there is no checkpoint to hold back."""
        return None

    def spread(self) -> int:
        """Return 0: there are no sequences."""
        return 0

    @property
    def gaps(self) -> OpenGaps:
        """None: there are no sequences."""
        return OpenGaps()

    def ask(self) -> Ask | None:
        """Return None: there are no gaps."""
        return None

    def ask_due_s(self) -> float | None:
        """Return None: there are no gaps."""
        return None

    def waits(self) -> bool:
        """Tell that there is nothing to wait for."""
        return False


class WithUnnumbered:
    """The follower's journal; moves that are not of the feed have no sequence and go beside it."""

    def __init__(self, journal: Journal, ledger: Writer) -> None:
        self._journal = journal
        self._beside = CommandJournal(ledger)

    @property
    def checkpoint(self) -> int | None:
        """The follower's checkpoint."""
        return self._journal.checkpoint

    def admit(self, page: MovePage) -> Admission:
        """Choose what the follower chooses. Raises FeedWentBackwards."""
        return self._journal.admit(page)

    def attempts(self) -> Mapping[str, Attempts]:
        """Return attempts spent before a restart, by instance ID."""
        return self._journal.attempts()

    def spend(self, move: Move, attempts: Attempts) -> None:
        """Note attempts spent on an unfinished instance."""
        self._of(move).spend(move, attempts)

    def settle(
        self,
        move: Move,
        parked: Parked | None,
        kept: Kept | None = None,
        record: DeliveryRecord | None = None,
        study: StudyNote | None = None,
    ) -> None:
        """Note that a move is finished. What the feed tells of is newer than what is beside it."""
        if move.sequence is not None:
            self._beside.withdraw(move.instance_id)
        self._of(move).settle(move, parked, kept, record, study)

    def flush(self) -> None:
        """Write what was noted. Raises StateError; nothing noted is lost then."""
        self._journal.flush()
        self._beside.flush()

    def oldest_open(self) -> int | None:
        """Return the lowest unfinished sequence."""
        return self._journal.oldest_open()

    def spread(self) -> int:
        """How many sequences reading is ahead of the oldest unfinished one."""
        return self._journal.spread()

    @property
    def gaps(self) -> OpenGaps:
        """The sequences below what was read that nobody has seen."""
        return self._journal.gaps

    def ask(self) -> Ask | None:
        """Return which gaps are to be asked for now; None when none are."""
        return self._journal.ask()

    def ask_due_s(self) -> float | None:
        """Return when gaps are to be asked for, by the steady clock; None when none are open."""
        return self._journal.ask_due_s()

    def waits(self) -> bool:
        """Tell whether a command is still to wait for a gap."""
        return self._journal.waits()

    def _of(self, move: Move) -> Journal:
        return self._beside if move.sequence is None else self._journal


class WatchedGaps:
    """The gaps of a feed that is read, by the clock."""

    REACH = 100
    """Sequences around a gap that are read with it, to find a row in them that is known."""

    def __init__(
        self,
        clock: Clock,
        limits: GapLimits,
        recorded: Iterable[Gap] = (),
        *,
        read_to: int = 0,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self.open = Gaps(
            recorded,
            limits=limits,
            read_to=read_to,
            now_s=clock.steady_s(),
            now_at=clock.now_s(),
        )

    def ask(self, memory: FeedMemory | None = None) -> Ask | None:
        """Return which gaps are to be asked for now, with known rows beside them."""
        span = self.open.look(self._clock.steady_s())
        if span is None:
            return None
        since, to = span[0] - 1, span[1]
        known: tuple[tuple[int, str], ...] = ()
        if memory is not None and to - since <= ASK_WIDTH:
            known = memory.between(since, to)
            if not known:
                below = memory.between(max(0, since - self.REACH), since)[-1:]
                above = memory.between(to, to + self.REACH)[:1]
                known = below or above
                since = min([since, *(s - 1 for s, _ in known)])
                to = max([to, *(s for s, _ in known)])
        return Ask(since, to, self.open.between(since, to), known)

    def read(self, page: MovePage, *, before: int, believed: bool) -> None:
        """Note what a page tells. ``before``: up to where all was read before it.

        ``believed``: it is of our feed, so that what it has in gaps below is there.
        """
        if page.gaps is None:
            return
        now_s, now_at = self._clock.steady_s(), self._clock.now_s()
        if believed:
            self._fill(page.gaps, since=page.since, to=page.frontier)
            self.open.asked(since=page.since, to=page.frontier, now_s=now_s)
        else:
            self._fill(page.gaps, since=max(page.since, before), to=page.frontier)
            self.open.put_off(since=page.since, to=page.frontier, now_s=now_s)
            for gap in page.gaps:
                self.open.asked(since=gap.first - 1, to=gap.last, now_s=now_s)
        if page.again:
            return
        for gap in page.gaps:
            if gap.last > before:
                new = replace(gap, first=max(gap.first, before + 1))
                age_s = age_s_of(gap, feed_date=page.feed_date, now_at=now_at)
                self.open.note(new, age_s=age_s, now_s=now_s, now_at=now_at)

    def may_have_missed(self, page: MovePage, *, before: int) -> bool:
        """Tell whether rows may have come and gone unseen, now that the feed was emptied."""
        unread = any(gap.last > before for gap in page.gaps or ())
        unread = unread or (page.last or 0) > max(before, page.frontier)
        return unread or self.open.has_young(self._clock.steady_s())

    def _fill(self, gaps: Sequence[PageGap], *, since: int, to: int) -> None:
        """Close the gaps where there are rows; those of instances are open or being moved."""
        ends = [gap.last for gap in gaps]
        for first, last in self.open.between(since, to):
            at = max(first, since + 1)
            next_gap = bisect_left(ends, at)
            while at <= min(last, to):
                if next_gap < len(gaps) and gaps[next_gap].first <= at:
                    at = gaps[next_gap].last + 1
                    next_gap += 1
                else:
                    self.open.fill(at)
                    at += 1


class ReplayJournal(CommandJournal):
    """For a replay: like CommandJournal, and knows how far the range is done.

    Nothing of that is saved: the follower's checkpoint is untouched.
    """

    def __init__(
        self,
        ledger: Writer,
        *,
        start: int,
        clock: Clock | None = None,
        gap_limits: GapLimits | None = None,
    ) -> None:
        super().__init__(ledger)
        self._open_changes = OpenChanges(max(0, start - 1))
        self._clock = clock or SystemClock()
        limits = gap_limits or GapLimits()
        self._patience_s = limits.patience_s or 0.0
        self._watched = WatchedGaps(self._clock, limits)
        self._late: set[int] = set()

    @property
    def checkpoint(self) -> int | None:
        """Highest sequence of the range up to which everything is settled."""
        return self._open_changes.checkpoint

    def admit(self, page: MovePage) -> Admission:
        """Open everything."""
        gaps, before = self._watched.open, self._open_changes.frontier
        late = [m for m in page.moves if m.sequence and gaps.has(m.sequence)]
        moves = [m for m in page.moves if m.sequence and self._open_changes.open(m.sequence)]
        for move in late:
            if move not in moves and move.sequence is not None:
                self._late.add(move.sequence)
        new = [m for m in late if m not in moves]
        self._watched.read(self._without_old(page), before=before, believed=True)
        if not page.again:
            self._open_changes.advance(page.frontier)
        return Admission((*new, *moves), late=len(late))

    def _without_old(self, page: MovePage) -> MovePage:
        """Leave out the gaps that are older than patience: a replay is of history mostly."""
        if page.gaps is None or page.again:
            return page
        now_at = self._clock.now_s()
        young = (
            gap
            for gap in page.gaps
            if age_s_of(gap, feed_date=page.feed_date, now_at=now_at) < self._patience_s
        )
        return replace(page, gaps=tuple(young))

    def settle(
        self,
        move: Move,
        parked: Parked | None,
        kept: Kept | None = None,
        record: DeliveryRecord | None = None,
        study: StudyNote | None = None,
    ) -> None:
        """Note that a move is finished."""
        super().settle(move, parked, kept, record, study)
        if move.sequence in self._late:
            self._late.discard(move.sequence)
        elif move.sequence is not None:
            self._open_changes.settle(move.sequence)

    def oldest_open(self) -> int | None:
        """Return the lowest unfinished sequence of the range."""
        return self._open_changes.oldest_open()

    def spread(self) -> int:
        """How many sequences reading is ahead of the oldest unfinished one."""
        return self._open_changes.spread

    @property
    def gaps(self) -> OpenGaps:
        """The sequences of the range, as far as it was read, that nobody has seen."""
        return self._watched.open.view

    def ask(self) -> Ask | None:
        """Return which gaps are to be asked for now; None when none are."""
        return self._watched.ask()

    def ask_due_s(self) -> float | None:
        """Return when gaps are to be asked for, by the steady clock; None when none are open."""
        return self._watched.open.due_s()

    def waits(self) -> bool:
        """Tell whether a gap is still to be waited for."""
        return self._watched.open.waits()


class FollowJournal:
    """For the follower: the checkpoint, gaps and late rows.

    ``memory``: the known rows of the feed. It judges each page before anything of it is noted.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        overlap: int,
        clock: Clock | None = None,
        gap_limits: GapLimits | None = None,
    ) -> None:
        checkpoint = ledger.checkpoint()
        if checkpoint is None:
            raise ValueError("the ledger has no checkpoint yet")
        self._ledger = ledger
        settled = set(ledger.settled_above())
        self._open_changes = OpenChanges(checkpoint, settled)
        self.floor = int(ledger.meta("history_from") or 0)
        self._clock = clock or SystemClock()
        self._watched = WatchedGaps(
            self._clock, gap_limits or GapLimits(), ledger.gaps(), read_to=checkpoint
        )
        self._given_up = 0
        known = ledger.recent()
        self.memory = FeedMemory(
            known,
            unfinished=(s for s in known if s > checkpoint and s not in settled),
            floor=self.floor,
            overlap=overlap,
            newest_date=ledger.meta(NEWEST_DATE_KEY) or "",
        )
        self._late: dict[int, str] = {}
        self._notes = Notes()
        self._lag = self._lag_written = ledger.counter_lag()
        self._written: int = checkpoint

    @property
    def checkpoint(self) -> int | None:
        """The checkpoint: everything up to it is settled, or is a gap on record."""
        return self._open_changes.checkpoint

    @property
    def frontier(self) -> int:
        """How far the feed has been read."""
        return self._open_changes.frontier

    def admit(self, page: MovePage) -> Admission:
        """Open what is new. Raises FeedWentBackwards when the page is of another feed."""
        before, gaps = self._open_changes.frontier, self._watched.open
        judged = self.memory.judge(page, read_to=before, awaits=gaps.has)
        if page.emptied and self._watched.may_have_missed(page, before=before):
            raise emptied("rows that had not become visible when it was looked at may have gone")
        fresh = [m for m in judged.fresh if self._open(m)]
        if page.ahead:
            return Admission(tuple(fresh))
        self._lag = page.lag or self._lag
        believed = judged.known or page.confirmed
        late = [*(judged.awaited if believed else ()), *judged.late]
        late = [move for move in late if self._open_late(move)]
        self._watched.read(page, before=before, believed=believed)
        if not page.again:
            fresh += [m for m in judged.gone if self._open(m)]
            if page.since <= before:
                # A look back reads the end of what was read, while a page may still be held back
                # that was read before. The checkpoint must not pass the rows of that page.
                self._open_changes.advance(page.frontier)
        return Admission((*late, *fresh), late=len(late), closed=self._closed())

    def _closed(self) -> Closed:
        """Return what became of gaps since this was asked last."""
        gaps = self._watched.open
        closed = gaps.take_closed()
        self._given_up += closed.given_up
        return closed

    def attempts(self) -> Mapping[str, Attempts]:
        """Return attempts spent before a restart, by instance ID."""
        return self._ledger.attempts()

    def spend(self, move: Move, attempts: Attempts) -> None:
        """Note attempts spent on an unfinished instance."""
        self._notes.spend(move, attempts)

    def settle(
        self,
        move: Move,
        parked: Parked | None,
        kept: Kept | None = None,
        record: DeliveryRecord | None = None,
        study: StudyNote | None = None,
    ) -> None:
        """Note that a move is finished."""
        if move.sequence is None:
            raise ValueError("a follower's move has a sequence")
        self._notes.finish(move, parked, kept, record, study)
        if self._late.pop(move.sequence, None) is not None:
            # Only now: a late row that was remembered, or no longer on record as a gap, before it
            # is settled would be lost by a crash, since the checkpoint has passed it already.
            self._watched.open.end_move(move.sequence)
            self.memory.note(move)
            self._notes.see(move.sequence, move.instance_id)
        else:
            self._open_changes.settle(move.sequence)
            self._notes.settle(move.sequence)

    def flush(self) -> None:
        """Write what was noted. Raises StateError; nothing noted is lost then."""
        checkpoint, gaps = self._open_changes.checkpoint, self._watched.open
        unchanged = checkpoint == self._written and self._lag == self._lag_written
        if unchanged and not self._notes.any() and not gaps.changed:
            return
        recent_from = self.memory.keep_from(checkpoint)
        entry = self._notes.entry(checkpoint=checkpoint, recent_from=recent_from)
        noted, closed = gaps.changes()
        self._ledger.commit(
            replace(
                entry,
                newest_date=self.memory.newest_date,
                gaps=noted,
                gaps_closed=closed,
                gaps_given_up=self._given_up,
                lag=self._lag,
            )
        )
        self._notes = Notes()
        gaps.written()
        self._given_up = 0
        self._lag_written = self._lag
        self._written = checkpoint

    def oldest_open(self) -> int | None:
        """Return the lowest unfinished sequence, late rows included."""
        opened = self._open_changes.oldest_open()
        return min((*self._late, *(() if opened is None else (opened,))), default=None)

    def spread(self) -> int:
        """How many sequences reading is ahead of the oldest unfinished one, late rows aside.

        They are on record already: what they hold of memory does not grow with what is read.
        """
        return self._open_changes.spread

    @property
    def gaps(self) -> OpenGaps:
        """The sequences below what was read that nobody has seen."""
        return self._watched.open.view

    def ask(self) -> Ask | None:
        """Return which gaps are to be asked for now; None when none are."""
        return self._watched.ask(self.memory)

    def ask_due_s(self) -> float | None:
        """Return when gaps are to be asked for, by the steady clock; None when none are open."""
        return self._watched.open.due_s()

    def waits(self) -> bool:
        """Tell whether a gap is still to be waited for."""
        return self._watched.open.waits()

    def _open(self, move: Move) -> bool:
        if move.sequence is None:
            return False
        self._notes.see(move.sequence, move.instance_id)
        return self._open_changes.open(move.sequence)

    def _open_late(self, move: Move) -> bool:
        sequence, gaps = move.sequence, self._watched.open
        if sequence is None or sequence in self._late:
            return False
        if sequence > self._open_changes.checkpoint:
            # Open, it keeps the checkpoint below it: it need not be on record.
            gaps.fill(sequence)
            self.memory.note(move)
            return self._open(move)
        gaps.begin_move(sequence, now_s=self._clock.steady_s(), now_at=self._clock.now_s())
        self._late[sequence] = move.instance_id
        return True


# What a journal has noted and not written yet.


class Notes:
    """What is noted and not written yet."""

    def __init__(self) -> None:
        self._settled: list[int] = []
        self._parked: dict[str, Parked] = {}
        self._unparked: dict[str, None] = {}
        self._attempts: dict[str, Attempts] = {}
        self._finished: dict[str, None] = {}
        self._recent: list[tuple[int, str]] = []
        self._kept: dict[str, Kept] = {}
        self._delivered: dict[str, DeliveryRecord] = {}
        self._outdated: dict[str, None] = {}
        self._studies: dict[str, StudyNote] = {}

    def see(self, sequence: int, instance_id: str) -> None:
        """Note that a row was read."""
        self._recent.append((sequence, instance_id))

    def settle(self, sequence: int) -> None:
        """Note that a change is settled."""
        self._settled.append(sequence)

    def spend(self, move: Move, attempts: Attempts) -> None:
        """Note attempts spent on an unfinished instance."""
        self._attempts[move.instance_id] = attempts
        self._finished.pop(move.instance_id, None)

    def finish(
        self,
        move: Move,
        parked: Parked | None,
        kept: Kept | None,
        record: DeliveryRecord | None = None,
        study: StudyNote | None = None,
    ) -> None:
        """Note that a move is finished: parked, or delivered and ``kept`` by the source."""
        self._attempts.pop(move.instance_id, None)
        self._finished[move.instance_id] = None
        if study is not None:
            self._studies[move.instance_id] = study
        if kept is not None:
            self._kept[move.instance_id] = kept
        if record is not None and record.outdated:
            # The last delivery stays on record; it may be among those that are not written yet.
            self._outdated[move.instance_id] = None
        elif record is not None:
            self._outdated.pop(move.instance_id, None)
            self._delivered[move.instance_id] = record
        if parked is None:
            self._parked.pop(move.instance_id, None)
            self._unparked[move.instance_id] = None
        else:
            # Delivered before, and perhaps wrongly: that is no proof any more.
            self._kept.pop(move.instance_id, None)
            self._unparked.pop(move.instance_id, None)
            self._parked[move.instance_id] = parked

    def withdraw(self, instance_id: str) -> None:
        """Forget what was noted of the end of an instance."""
        self._parked.pop(instance_id, None)
        self._unparked.pop(instance_id, None)
        self._kept.pop(instance_id, None)
        self._delivered.pop(instance_id, None)

    def entry(self, *, checkpoint: int | None = None, recent_from: int | None = None) -> Entry:
        """Return all of it as one transaction of the ledger."""
        above = checkpoint if checkpoint is not None else -1
        return Entry(
            checkpoint=checkpoint,
            settled=tuple(sequence for sequence in self._settled if sequence > above),
            parked=tuple(self._parked.values()),
            unparked=tuple(self._unparked),
            attempts=self._attempts,
            finished=tuple(self._finished),
            recent=tuple(row for row in self._recent if row[0] >= (recent_from or 0))
            or tuple(self._recent[-REMEMBERED:]),
            recent_from=recent_from,
            kept=tuple(self._kept.values()),
            delivered=tuple(self._delivered.values()),
            outdated=tuple(self._outdated),
            studies=tuple(self._studies.values()),
        )

    def any(self) -> bool:
        """Tell whether anything is noted."""
        return bool(self._finished or self._attempts or self._recent)
