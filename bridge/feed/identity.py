"""Was the source re-created, or is it still the feed that we follow? All judgement (G6).

The theory is below, and with it the one memory of rows.

This file must not know: sockets, files, clocks, logging, settings.
The source is asked by a protocol.

What can happen to a feed, how it shows, and what we believe
------------------------------------------------------------
``feed/gaps.py`` tells what a sequence is, and what becomes of sequences that nobody has seen. Here
is what tells our feed from another one. *Position*: up to there the feed was read.

========================  ===============================  ======================================
what happens              how it shows                     what is believed, after how many looks
========================  ===============================  ======================================
a row becomes visible     an unknown row below the         a late row of our feed, at once: dates
late                      position, older than the newest  grow with sequences
                          row that was read
a resource is deleted     a known row is gone              nothing: rows go with their resources
... and many are          all known rows are gone, and     nothing: instances that are gone
                          so are their instances           explain their rows
``DELETE /changes``,      all known rows are gone, the     nothing: it is no loss
all was read              counter stays
``DELETE /changes``,      all known rows are gone, the     emptied, at the first whole look. The
some was unread           source still holds an instance   instances are asked for twice. Where
                          of theirs, which has no newer    rows can be late, the gaps tell whether
                          row                              anything was unread (FollowJournal)
a burst ends              the counter (``Last`` of an      nothing: a row that is there proves
                          empty page) stays below the      the counter wrong. It is remembered as
                          newest row                       a CounterLag
... and its last          the counter and the newest row   nothing, where the counter is the one
resources are deleted     are below the position           that is remembered
the source is re-created  the counter and the newest row   another feed, at the first look
or restored               are below the position
... and has grown         a known sequence has another     another feed, at the first look that
                          instance                         reads it
... and has no row where  rows that are read again are     another feed, at the first look that
we know one               all unknown, and one is younger  reads them
                          than the newest that was read
another server answers    as the three above; or rows      a row in a gap: beside a known row, or
for a moment              appear in gaps, instances seem   told twice with a look at a known row in
                          deleted, a listing seems to end  between. A deletion: after a look back.
                                                           The end of a listing: met twice, with a
                                                           look at a known place after each
========================  ===============================  ======================================

Known rows are those of FeedMemory. It is the only memory of rows, and the table ``recent`` of the
ledger is its copy. Who asks whom:

- FollowJournal gives each page to ``FeedMemory.judge``, once, when the page is admitted. That
  raises FeedWentBackwards where the page contradicts what is known, and notes what is new.
- FollowFeed asks FeedIdentity while it reads, before the page is admitted: what only the source
  can answer. One page is read and admitted before the next one is read.
- FeedReader gives each counter of an empty page to Counter.
- KnownPlace asks both of a source that is not followed now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import nlargest
from typing import Protocol

from bridge.errors import FeedWentBackwards
from bridge.feed.gaps import PageGap
from bridge.feed.pages import (
    NEW_INSTANCE,
    EndClient,
    FeedClient,
    FeedReader,
    MovePage,
    RowsClient,
    pages_asked,
)
from bridge.model import REMEMBERED, CounterLag, Move

RESET_ADVICE = (
    "If the source is new or restored, set BRIDGE_ON_FEED_RESET=snapshot: the bridge moves "
    "everything that the target lacks and follows the new feed. If not, correct BRIDGE_SOURCE_URL "
    "or restore the old source. See: orthanc-bridge docs operations backwards."
)
EMPTIED_ADVICE = (
    "Set BRIDGE_ON_FEED_RESET=snapshot: the bridge moves everything that the target lacks and "
    "follows the new feed. See: orthanc-bridge docs operations backwards."
)


def another_history(difference: str) -> FeedWentBackwards:
    """Return the error for a feed that differs from the one that was followed."""
    return FeedWentBackwards(
        f"The source's feed is not the one that was followed: {difference}.", advice=RESET_ADVICE
    )


def emptied(what: str) -> FeedWentBackwards:
    """Return the error for a feed whose rows were deleted before all were read."""
    return FeedWentBackwards(
        f"The source's feed was emptied: {what} before the bridge read them, so it does not know "
        "which instances they named.",
        advice=EMPTIED_ADVICE,
    )


def check_rows(moves: Iterable[Move], rows: Mapping[int, str]) -> None:
    """Raise FeedWentBackwards when a sequence has another instance than in ``rows``."""
    for move in moves:
        known = rows.get(move.sequence or 0)
        if known is not None and known != move.instance_id:
            raise another_history(
                f"change {move.sequence} was instance {known}, it is {move.instance_id} now"
            )


# The memory of rows


@dataclass(frozen=True, slots=True)
class Judged:
    """A page of our feed, its rows told apart. Rows that were known before are in none of these.

    ``fresh``: beyond what was read. ``late``: below it. ``awaited``: in gaps on record, late too.
    ``known``: the page has a row that we know, so it is of our feed; or we know none. ``gone``:
    rows that were unfinished at the start and that the page should have, and has not.
    """

    fresh: tuple[Move, ...]
    late: tuple[Move, ...]
    awaited: tuple[Move, ...] = ()
    known: bool = True
    gone: tuple[Move, ...] = ()


class FeedMemory:
    """The rows of the feed that are known: sequence -> instance ID.

    ``rows``: those of an earlier run. ``unfinished``: the sequences of those that were read and
    not settled: they are known, and are to be moved when they are read again. ``floor``: rows at
    or below it were there when we began, and are not ours to move; they are known all the same.
    ``overlap``: how many sequences back the feed is read again. ``newest_date``: the latest date of
    any row that was read in order.

    What is forgotten: rows that are more than two overlaps below what was read, except the last
    REMEMBERED and those that are unfinished. However many rows of other types follow, the feed is
    still known by these.

    A late row is noted when it is opened or settled, which happens while the next page is read. So
    ``note`` only queues it. All else happens in turn: a page is read, and then it is judged.
    """

    def __init__(
        self,
        rows: Mapping[int, str] | None = None,
        *,
        overlap: int,
        unfinished: Iterable[int] = (),
        floor: int = 0,
        newest_date: str = "",
    ) -> None:
        self.newest_date = newest_date
        self._rows = dict(rows or {})
        self._unfinished = set(unfinished)
        self._ahead: set[int] = set()
        """The sequences of rows that were read out of turn, and not in order since."""
        self._noted: deque[tuple[int, str]] = deque()
        self._floor = floor
        self._overlap = overlap

    def note(self, move: Move) -> None:
        """Note a late row as known. From any thread."""
        if move.sequence is not None:
            self._noted.append((move.sequence, move.instance_id))

    def keep_from(self, read_to: int) -> int:
        """Return the lowest sequence worth remembering when the feed was read up to there."""
        return read_to - 2 * self._overlap

    def between(self, since: int, to: int) -> tuple[tuple[int, str], ...]:
        """Return the known rows with since < sequence <= to, ascending."""
        return tuple(sorted((s, i) for s, i in self._known().items() if since < s <= to))

    def last_in_order(self) -> dict[int, str]:
        """Return the last REMEMBERED rows, without those that were read out of turn."""
        rows = self._known()
        last = nlargest(REMEMBERED, (s for s in rows if s not in self._ahead))
        return {sequence: rows[sequence] for sequence in sorted(last)}

    def knows_one(self, moves: Iterable[Move], *, up_to: int) -> bool:
        """Tell whether one of the rows up to a sequence is known."""
        rows = self._known()
        return any(
            m.sequence <= up_to and rows.get(m.sequence) == m.instance_id
            for m in moves
            if m.sequence is not None
        )

    def judge(
        self,
        page: MovePage,
        *,
        read_to: int,
        awaits: Callable[[int], bool] = lambda _: False,
    ) -> Judged:
        """Tell the rows of a page apart, and note those that are new.

        ``read_to``: the feed was read up to there before this page. ``awaits`` tells whether a
        sequence is in a gap on record. Raises FeedWentBackwards when it is another feed: a known
        sequence has another instance, or the page has unknown rows where we know some, none of
        them is there, and an unknown one is younger than what was read. (That all we know is gone
        proves nothing alone: the rows of deleted instances go too.)
        """
        rows = self._known()
        check_rows(page.moves, rows)
        fresh: list[Move] = []
        late: list[Move] = []
        awaited: list[Move] = []
        not_ours: list[Move] = []
        same = 0
        for move in page.moves:
            sequence = move.sequence
            if sequence is None:
                continue
            if sequence in rows:
                same += 1
                if sequence in self._unfinished:
                    fresh.append(move)
            elif sequence > max(read_to, self._floor):
                fresh.append(move)
            elif awaits(sequence):
                awaited.append(move)
            elif sequence <= self._floor:
                not_ours.append(move)
            elif sequence >= self.keep_from(read_to):
                late.append(move)
        unknown = (*late, *not_ours)
        younger = any(not "" < move.changed_at <= self.newest_date for move in unknown)
        if younger and not same and any(page.since < sequence <= read_to for sequence in rows):
            raise another_history(
                f"none of the remembered changes between {page.since} and {read_to} is there now"
            )
        known = bool(same) or not rows
        self._note_fresh(fresh, ahead=page.ahead)
        gone: tuple[Move, ...] = ()
        if not page.ahead:
            self._ahead.difference_update(move.sequence or 0 for move in page.moves)
            if not page.again:
                gone = self._unfinished_without_row(page)
                self.newest_date = max(self.newest_date, page.newest_date)
                self._forget_below(self.keep_from(max(read_to, page.frontier)))
        return Judged(tuple(fresh), tuple(late), tuple(awaited), known, gone)

    def _known(self) -> dict[int, str]:
        while self._noted:
            sequence, instance_id = self._noted.popleft()
            self._rows[sequence] = instance_id
        return self._rows

    def _note_fresh(self, fresh: Iterable[Move], *, ahead: bool) -> None:
        for move in fresh:
            sequence = move.sequence or 0
            self._rows[sequence] = move.instance_id
            self._unfinished.discard(sequence)
            if ahead:
                self._ahead.add(sequence)

    def _unfinished_without_row(self, page: MovePage) -> tuple[Move, ...]:
        """Return what was unfinished at the start and has no row any more.

        Either its instance was deleted, which asking for it will show, or only its row was.
        """
        end = max(page.frontier, page.last or 0) if page.done else page.frontier
        gone = sorted(s for s in self._unfinished if page.since < s <= end)
        self._unfinished.difference_update(gone)
        return tuple(Move(self._rows[sequence], sequence) for sequence in gone)

    def _forget_below(self, sequence: int) -> None:
        """Forget rows below ``sequence``, so that memory stays bounded by a few overlaps."""
        if len(self._rows) <= 4 * self._overlap + REMEMBERED:
            return
        last = self.last_in_order()
        # A page with unfinished rows may be held back while the end of the feed is read again.
        kept = last.keys() | self._unfinished
        self._rows = {s: i for s, i in self._rows.items() if s >= sequence or s in kept}
        self._ahead.intersection_update(self._rows)


# The counter


class Counter:
    """Judges the source's counter, and remembers where it was seen to stay below a row.

    ``lag``: what an earlier run has seen of that.
    """

    def __init__(self, client: EndClient, lag: CounterLag | None = None) -> None:
        self._client = client
        self._noted_at = -1
        self.lag = lag

    def check(self, counter: int, *, position: int) -> None:
        """Judge the counter of an empty page. Raises SourceError, FeedWentBackwards."""
        self.lag = check_counter(self._client, counter, position=position, lag=self.lag)

    def check_reached(self, position: int) -> None:
        """Ask for the counter and judge it. Raises SourceError, FeedWentBackwards."""
        self.lag = check_reached(self._client, position, lag=self.lag)

    def learn(self, position: int) -> None:
        """Learn whether it stays below what was read, before the rows there may go.

        Once for each position. Raises SourceError, FeedWentBackwards.
        """
        if self._noted_at != position:
            self.check_reached(position)
            self._noted_at = position


def check_counter(
    client: EndClient, counter: int, *, position: int, lag: CounterLag | None = None
) -> CounterLag | None:
    """Raise FeedWentBackwards when the feed ends below what was read.

    ``lag``: where the counter was seen to stay; returns where it does now, as far as known.

    ``counter``: the ``Last`` of a page without rows. Alone it proves nothing: with a database whose
    rows come late it may stay below the newest row until the next change. So the newest row is
    asked for. That may be below what was read as well, since rows go with their resources; but
    when it is above the counter, and the counter is still below it when it is asked for again, then
    it is the counter that lags. Where both are below, and the counter was not seen to stay just
    there, everything above is gone, and the next sequences will be given out a second time. Raises
    SourceError.
    """
    if counter >= position:
        return lag
    newest = client.last_change().last
    if newest >= position:
        return CounterLag(counter, newest)
    if lag is not None and lag.explains(counter, position=position):
        return lag
    if newest > counter:
        page = client.changes(position, 1, only_new_instances=False)
        if page.changes:
            return lag
        if page.last < newest:
            return CounterLag(page.last, position)
        counter = page.last
    end = max(counter, newest)
    raise FeedWentBackwards(
        f"The source's feed ends at {end}, but it was read up to {position}: "
        "the source was re-created or restored from a backup.",
        advice=RESET_ADVICE,
    )


def check_reached(
    client: EndClient, position: int, *, lag: CounterLag | None = None
) -> CounterLag | None:
    """Raise FeedWentBackwards when the feed ends below what was read; raises SourceError.

    ``lag``: where the counter was seen to stay; returns where it does now, as far as known.
    """
    page = client.changes(position, 1, only_new_instances=False)
    if page.changes:
        return lag
    return check_counter(client, page.last, position=position, lag=lag)


# What only the source can answer

ROWS_ASKED = 8
"""Known rows that are asked for one by one."""
INSTANCES_ASKED = 8
"""Instances that are asked for when none of the known rows is there any more."""
SCANNED = 1000
"""Sequences of the feed that are read at once to find instances that were sent anew."""


class IdentityClient(EndClient, Protocol):
    """What is needed of a source to know its feed again."""

    def has_instance(self, instance_id: str) -> bool:
        """Tell whether the source holds an instance."""


class FeedIdentity:
    """Asks a source whether the known rows are still those of its feed."""

    def __init__(self, client: IdentityClient, memory: FeedMemory) -> None:
        self._client = client
        self._memory = memory

    def knows_one(self, moves: Iterable[Move], *, up_to: int) -> bool:
        """Tell whether one of the rows up to a sequence is known. Asks nobody."""
        return self._memory.knows_one(moves, up_to=up_to)

    def one_is_there(self) -> bool:
        """Tell whether one of the last known rows is there, as it was. Raises SourceError.

        Raises FeedWentBackwards when another instance is behind its sequence. False when none is
        there any more: that proves nothing.
        """
        return known_row_is_there(self._client, self._memory.last_in_order())

    def was_emptied(
        self,
        moves: Iterable[Move],
        *,
        since: int,
        covered: int | None,
        read_to: int,
        can_be_late: bool = False,
    ) -> bool:
        """Compare the rows with since < sequence <= covered with what is known.

        ``covered``: None for all there are. ``read_to``: up to there nothing was unread or, after
        a restart, unfinished; rows beyond it that were finished are known too. Where rows
        ``can_be_late``, True says that the feed was emptied: a row that came since may be anywhere,
        so whether unread ones went with it is to be judged by the gaps. Raises SourceError,
        FeedWentBackwards.
        """
        rows = self._memory.last_in_order()
        highest = max(rows, default=0)
        again = {move.sequence: move.instance_id for move in moves}
        end = highest if covered is None else covered
        gone = {s: i for s, i in rows.items() if since < s <= end}
        if not gone and highest <= since:
            gone = self._gone_up_to(since, rows)
        # DELETE /changes removes all rows below its moment. So if row 7 is still there, no row
        # above 7 was removed by it. A row far beyond proves nothing for those below: it may have
        # been written, and read out of turn, since.
        lowest = max(read_to, min(gone, default=0))
        if not gone or any(sequence in again for sequence in gone if sequence <= lowest):
            return False
        # An instance that was sent anew has a row elsewhere and no longer the one we know.
        sent_anew = set(again.values())
        if not self._source_holds_one(gone, sent_anew):
            # Those instances were deleted: their rows prove nothing. Those further back may.
            gone = self._gone_up_to(since, rows)
            if not self._source_holds_one(gone, sent_anew):
                return False
        if can_be_late:
            return self._one_has_no_row(gone.values(), after=min(gone))
        page = self._client.changes(read_to, 1, only_new_instances=False)
        first = page.changes[0].sequence if page.changes else page.last + 1
        if first > read_to + 1 and self._one_has_no_row(gone.values(), after=min(gone)):
            raise emptied(f"changes {read_to + 1} to {first - 1} were deleted")
        return False

    def _source_holds_one(self, gone: Mapping[int, str], sent_anew: set[str]) -> bool:
        newest_first = (gone[s] for s in sorted(gone, reverse=True))
        asked = [i for i in newest_first if i not in sent_anew][:INSTANCES_ASKED]
        return any(self._client.has_instance(instance_id) for instance_id in asked)

    def _one_has_no_row(self, instances: Iterable[str], *, after: int) -> bool:
        """Tell whether the source holds one of these without a row for it after a sequence.

        One that was overwritten, or deleted and sent anew, has its row there, far beyond what was
        read perhaps, and most likely near the end of the feed.
        """
        left = set(instances)
        for _ in range(2):  # what is deleted or sent anew meanwhile is told apart the second time
            left = {instance_id for instance_id in left if self._client.has_instance(instance_id)}
            end = self._client.last_change().last
            for _ in pages_asked():
                if not left or end <= after:
                    break
                since = max(after, end - SCANNED)
                page = self._client.changes(since, end - since, only_new_instances=True)
                left -= {row.resource_id for row in page.changes if row.change_type == NEW_INSTANCE}
                end = since
        return bool(left)

    def _gone_up_to(self, since: int, rows: Mapping[int, str]) -> dict[int, str]:
        """Return the known rows at or below ``since``, if the last of them are gone.

        None where one of the last is still there: then those after it went with their instances.
        """
        rows = {s: i for s, i in rows.items() if s <= since}
        return {} if known_row_is_there(self._client, rows) else rows


def last_row_there(client: RowsClient, sequences: Iterable[int]) -> Move | None:
    """Return what is there now at the highest of the last few sequences that still has a row.

    So many rows of other types may follow that none of ours is read again. Raises SourceError.
    """
    for sequence in sorted(sequences, reverse=True)[:ROWS_ASKED]:
        rows = client.changes(sequence - 1, 1, only_new_instances=False).changes
        if rows and rows[0].sequence == sequence:
            return Move(rows[0].resource_id, sequence)
    return None


def known_row_is_there(client: RowsClient, rows: Mapping[int, str]) -> bool:
    """Tell whether one of the last few known rows is there. Raises SourceError.

    Raises FeedWentBackwards when another instance is behind its sequence.
    """
    there = last_row_there(client, rows)
    if there is None:
        return False
    check_rows([there], rows)
    return True


# A place in a feed that is not followed now


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the feed to follow it from, and the rows before it, to know the feed again by.

    ``gaps``: sequences before it that nobody saw, where they may still become visible. ``lag``:
    where the counter was seen to stay below a row.
    """

    sequence: int
    recent: tuple[tuple[int, str], ...] = ()
    newest_date: str = ""
    gaps: tuple[PageGap, ...] = ()
    lag: CounterLag | None = None


class KnownPlace:
    """Tells whether a source still has the feed in which a place was noted."""

    def __init__(self, client: FeedClient, place: Place, *, overlap: int) -> None:
        self._client = client
        self._place = place
        self._overlap = overlap

    def look(self) -> None:
        """Look at the place again. Raises SourceError, FeedWentBackwards."""
        place, overlap = self._place, self._overlap
        reader = FeedReader(
            self._client,
            position=place.sequence,
            page_size=overlap,
            counter=Counter(self._client, place.lag),
        )
        page = reader.read_again(max(0, place.sequence - overlap))
        known = dict(place.recent)
        memory = FeedMemory(
            known, floor=place.sequence, overlap=overlap, newest_date=place.newest_date
        )
        memory.judge(page, read_to=place.sequence)
        if not any(page.since < sequence for sequence in known):
            known_row_is_there(self._client, known)
