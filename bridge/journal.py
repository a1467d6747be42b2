"""What is written down, and when: the follower's journal and the journal of a single command.

``settle`` and ``spend`` only note; ``flush`` writes everything noted in one transaction and, when
that fails, keeps it for the next flush: a full disk loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from bridge.core.history import History, another_history, contradiction
from bridge.core.model import Move
from bridge.core.watermark import Watermark
from bridge.entry import Attempts, Entry, Kept, Parked
from bridge.feed_reader import MovePage
from bridge.ledger import NEWEST_DATE_KEY, Ledger
from bridge.notes import Notes


@dataclass(frozen=True, slots=True)
class Admission:
    """The moves of a page that are to be done; ``late`` of them came late."""

    moves: tuple[Move, ...]
    late: int = 0


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

    def settle(self, move: Move, parked: Parked | None, kept: Kept | None = None) -> None:
        """Note that a move is finished: parked, or delivered and ``kept`` by the source."""

    def flush(self) -> None:
        """Write what was noted. Raises StateError; nothing noted is lost then."""

    def oldest_open(self) -> int | None:
        """Return the lowest unfinished sequence, where there are sequences."""

    def spread(self) -> int:
        """How many sequences reading is ahead of the oldest unfinished one."""


class Writer(Protocol):
    """What a command's journal needs of the ledger."""

    def commit(self, entry: Entry) -> None:
        """Write one transaction. Raises StateError."""


class Rehearsal:
    """A ledger that writes nothing: for a dry run."""

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

    def settle(self, move: Move, parked: Parked | None, kept: Kept | None = None) -> None:
        """Note that a move is finished."""
        self._notes.finish(move, parked, kept)

    def flush(self) -> None:
        """Write what was noted. Raises StateError; nothing noted is lost then."""
        if not self._notes.any():
            return
        notes = self._notes.entry()
        self._ledger.commit(Entry(parked=notes.parked, unparked=notes.unparked, kept=notes.kept))
        self._notes = Notes()

    def oldest_open(self) -> int | None:
        """Return None: there is no checkpoint to hold back."""
        return None

    def spread(self) -> int:
        """Return 0: there are no sequences."""
        return 0


class ReplayJournal(CommandJournal):
    """For a replay: like CommandJournal, and knows how far the range is done.

    Nothing of that is saved: the follower's checkpoint is untouched.
    """

    def __init__(self, ledger: Writer, *, start: int) -> None:
        super().__init__(ledger)
        self._watermark = Watermark(max(0, start - 1))

    @property
    def checkpoint(self) -> int | None:
        """Highest sequence of the range up to which everything is settled."""
        return self._watermark.checkpoint

    def admit(self, page: MovePage) -> Admission:
        """Open everything."""
        moves = tuple(m for m in page.moves if m.sequence and self._watermark.open(m.sequence))
        self._watermark.advance(page.frontier)
        return Admission(moves)

    def settle(self, move: Move, parked: Parked | None, kept: Kept | None = None) -> None:
        """Note that a move is finished."""
        super().settle(move, parked, kept)
        if move.sequence is not None:
            self._watermark.settle(move.sequence)

    def oldest_open(self) -> int | None:
        """Return the lowest unfinished sequence of the range."""
        return self._watermark.oldest_open()

    def spread(self) -> int:
        """How many sequences reading is ahead of the oldest unfinished one."""
        return self._watermark.spread


class FollowJournal:
    """For the follower: the watermark, late rows, and the history of the feed."""

    def __init__(self, ledger: Ledger, *, overlap: int) -> None:
        checkpoint = ledger.checkpoint()
        if checkpoint is None:
            raise ValueError("the ledger has no checkpoint yet")
        self._ledger = ledger
        settled = set(ledger.settled_above())
        self._watermark = Watermark(checkpoint, settled)
        self.floor = int(ledger.meta("history_from") or 0)
        # What was read but not settled is opened again, and so must not count as seen. What was
        # settled must: its sequence with another instance behind it is another history.
        known = ledger.recent()
        rows = {s: i for s, i in known.items() if s <= checkpoint or s in settled}
        self._unfinished = {s: i for s, i in known.items() if s not in rows}
        self._overlap = overlap
        self._history = History(
            rows,
            floor=self.floor,
            overlap=overlap,
            newest_date=ledger.meta(NEWEST_DATE_KEY) or "",
        )
        self._late: dict[int, str] = {}
        self._notes = Notes()
        self._written: int = checkpoint

    @property
    def checkpoint(self) -> int | None:
        """The checkpoint, late rows aside."""
        return self._watermark.checkpoint

    @property
    def frontier(self) -> int:
        """How far the feed has been read."""
        return self._watermark.frontier

    def admit(self, page: MovePage) -> Admission:
        """Open what is new; raises FeedWentBackwards when the page contradicts our memory."""
        seen = self._history.compare(
            page.moves, since=page.since, frontier=self._watermark.frontier
        )
        difference = seen.difference or contradiction(page.moves, self._unfinished)
        if difference:
            raise another_history(difference)
        fresh = [m for m in seen.fresh if m.sequence is not None and self._open(m, m.sequence)]
        if page.ahead:
            return Admission(tuple(fresh))
        fresh += [m for m in self._without_row(page) if self._open(m, m.sequence or 0)]
        late = [move for move in seen.late if self._open_late(move)]
        self._watermark.advance(page.frontier)
        self._history.saw(page.newest_date)
        self._history.forget_below(self._history.keep_from(self._watermark.frontier))
        return Admission((*late, *fresh), late=len(late))

    def attempts(self) -> Mapping[str, Attempts]:
        """Return attempts spent before a restart, by instance ID."""
        return self._ledger.attempts()

    def spend(self, move: Move, attempts: Attempts) -> None:
        """Note attempts spent on an unfinished instance."""
        self._notes.attempts[move.instance_id] = attempts
        self._notes.finished.pop(move.instance_id, None)

    def settle(self, move: Move, parked: Parked | None, kept: Kept | None = None) -> None:
        """Note that a move is finished."""
        if move.sequence is None:
            raise ValueError("a follower's move has a sequence")
        self._notes.finish(move, parked, kept)
        if self._late.pop(move.sequence, None) is not None:
            # Only now: a late row that was remembered before it is settled would be lost by a
            # crash, since the checkpoint has passed it already.
            self._history.remember([move])
            self._notes.recent.append((move.sequence, move.instance_id))
        else:
            self._watermark.settle(move.sequence)
            self._notes.settled.append(move.sequence)

    def flush(self) -> None:
        """Write what was noted. Raises StateError; nothing noted is lost then."""
        checkpoint = self._durable()
        if not self._notes.any() and checkpoint == self._written:
            return
        recent_from = self._history.keep_from(checkpoint)
        entry = self._notes.entry(checkpoint=checkpoint, recent_from=recent_from)
        self._ledger.commit(replace(entry, newest_date=self._history.newest_date))
        self._notes = Notes()
        self._written = checkpoint

    def oldest_open(self) -> int | None:
        """Return the lowest unfinished sequence, late rows included."""
        opened = self._watermark.oldest_open()
        return min((*self._late, *(() if opened is None else (opened,))), default=None)

    def spread(self) -> int:
        """How many sequences reading is ahead of the oldest unfinished one, late rows included."""
        oldest = self.oldest_open()
        return 0 if oldest is None else max(0, self._watermark.frontier - oldest)

    def _durable(self) -> int:
        """How far the checkpoint may be written down.

        An unfinished late row is found again after a crash only by reading the overlap again.
        """
        held = (sequence + self._overlap - 1 for sequence in self._late)
        return max(self._written, min((self._watermark.checkpoint, *held)))

    def _without_row(self, page: MovePage) -> list[Move]:
        """Return what was unfinished at the restart and has no row any more.

        Either its instance was deleted, which asking for it will show, or only its row was.
        """
        end = max(page.frontier, page.last or 0) if page.done else page.frontier
        covered = {s: i for s, i in self._unfinished.items() if page.since < s <= end}
        there = {move.sequence for move in page.moves}
        for sequence in covered:
            del self._unfinished[sequence]
        return [Move(i, s) for s, i in sorted(covered.items()) if s not in there]

    def _open(self, move: Move, sequence: int) -> bool:
        opened = self._watermark.open(sequence)
        self._history.remember([move])
        self._notes.recent.append((sequence, move.instance_id))
        return opened

    def _open_late(self, move: Move) -> bool:
        sequence = move.sequence
        if sequence is None or sequence in self._late:
            return False
        if sequence > self._watermark.checkpoint:
            return self._open(move, sequence)
        self._late[sequence] = move.instance_id
        return True
