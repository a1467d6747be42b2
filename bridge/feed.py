"""Where moves come from: the feed, a range of it, a listing, or a given set.

Each source of moves answers ``next_page``, which may block on the network and raises SourceError
when the source cannot be used; the same call is then made again later. The pipeline does not
know which kind it has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from bridge.core.errors import FeedWentBackwards
from bridge.core.history import RESET_ADVICE
from bridge.core.model import Change, Move, Page, ServerInfo
from bridge.witnesses import Witnessed, Witnesses

NEW_INSTANCE = "NewInstance"

LOOK_BACK_EVERY_S = 5.0
"""So often the end of an idle feed is read again: 6 ms of the source each time."""


@dataclass(frozen=True, slots=True)
class MovePage:
    """Some moves, and what the source of moves knows beside.

    ``since`` and ``frontier``: the rows with since < sequence <= frontier have been read (both 0
    when there are no sequences). ``done``: nothing more at the moment. ``ended``: never more.
    ``last``: the newest sequence of the feed, when known. ``ahead``: read out of turn, beyond
    what is read in order; ``frontier`` then does not tell how far everything was read.
    ``newest_date``: of the last row, of whatever type. ``missing``: rows that were not there any
    more, where that can be told.
    """

    moves: tuple[Move, ...]
    since: int = 0
    frontier: int = 0
    done: bool = False
    ended: bool = False
    last: int | None = None
    ahead: bool = False
    newest_date: str = ""
    missing: int = 0


class FeedClient(Protocol):
    """What is needed of a source to read its feed."""

    def system(self) -> ServerInfo:
        """Return the server's description."""

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        """Return the rows after ``since``."""

    def last_change(self) -> Page:
        """Return the newest row."""


class FollowedClient(FeedClient, Witnessed, Protocol):
    """What is needed of a source to follow its feed."""


class MoveSource(Protocol):
    """Anything that yields moves page by page."""

    def next_page(self) -> MovePage:
        """Return the next moves. May block; raises SourceError."""

    def look_back(self) -> MovePage:
        """Read again what was read last, for whoever can tell another history by it.

        May block; raises SourceError, FeedWentBackwards. Never called beside next_page.
        """


class Forgetful:
    """A source of moves that has no history to look back at."""

    def look_back(self) -> MovePage:
        """Return an empty page."""
        return MovePage(())


class FeedReader:
    """Pages of the feed from a position on, in order.

    ``position`` is the last sequence that we were really given: an empty page's ``Last`` is the
    server's own counter and must never move it forward. It moves only by ``accept``, when all
    that belongs to a page has been read: an error in between must not pass rows over.

    Sequences have no gaps until something is deleted at the source. So where all types of rows
    are read, a gap is rows that vanished; those above ``counts_from``, if set, are counted.
    """

    def __init__(self, client: FeedClient, *, position: int, page_size: int) -> None:
        self.position = position
        self.counts_from: int | None = None
        self._client = client
        self._page_size = page_size
        self._filters: bool | None = None

    def read(self, *, back_to: int | None = None) -> MovePage:
        """Read the next page; with ``back_to``, read the rows after that sequence again too.

        Raises FeedWentBackwards when the feed ends below the position.
        """
        if self._filters is None:
            self._filters = filters_on_server(self._client.system())
        since = self.position if back_to is None else min(back_to, self.position)
        limit = self._page_size + (self.position - since)
        page = self._client.changes(since, limit, only_new_instances=self._filters)
        reached = page.changes[-1].sequence if page.changes else since
        last = page.last
        if since == self.position and not page.changes:
            check_counter(page.last, position=self.position)
        elif page.done and (reached < self.position or not page.changes):
            # A re-read that stops short proves nothing: rows go with their resource. Only an
            # empty page tells the server's own counter.
            last = max(last, self._counter())
        return MovePage(
            moves=tuple(_moves(page.changes)),
            since=since,
            frontier=max(self.position, reached),
            done=page.done,
            last=max(last, reached, self.position) if page.done else None,
            newest_date=page.changes[-1].date if page.changes else "",
            missing=self._missing(page.changes, reached),
        )

    def reach_newest(self, page: MovePage, *, known_last: int) -> MovePage:
        """Let the last page of a filtered feed reach the newest row, which is of another type.

        Otherwise the checkpoint would stay behind the end of the feed for as long as no instance
        comes. The newest row was given before a page that had nothing more: everything up to it
        has been read, as far as it was visible. ``known_last``: without a row beyond the page up
        to there, there is nothing to ask. Raises SourceError.
        """
        if not (self._filters and page.done and page.frontier < known_last):
            return page
        newest = self._client.last_change().changes
        rest = self._client.changes(page.frontier, 1, only_new_instances=True)
        if rest.changes or not newest or not page.frontier < newest[-1].sequence <= rest.last:
            return page
        row = newest[-1]
        return replace(page, frontier=row.sequence, last=rest.last, newest_date=row.date)

    def _missing(self, rows: Iterable[Change], reached: int) -> int:
        """Count the sequences between the position and the end of a page that have no row."""
        if self._filters or self.counts_from is None:
            return 0
        begin = max(self.position, self.counts_from)
        return max(0, reached - begin) - sum(row.sequence > begin for row in rows)

    def read_ahead(self, since: int) -> MovePage:
        """Read rows far beyond the position, out of turn. Raises SourceError."""
        page = self._client.changes(since, self._page_size, only_new_instances=bool(self._filters))
        reached = page.changes[-1].sequence if page.changes else since
        return MovePage(tuple(_moves(page.changes)), since=since, frontier=reached, ahead=True)

    def read_again(self, back_to: int) -> MovePage:
        """Read the rows between ``back_to`` and the position again, and no others.

        Raises SourceError, FeedWentBackwards when the feed ends below the position.
        """
        since = min(back_to, self.position)
        limit = max(1, self.position - since)
        page = self._client.changes(since, limit, only_new_instances=bool(self._filters))
        if not page.changes or page.changes[-1].sequence < self.position:
            self._counter()
        rows = [change for change in page.changes if change.sequence <= self.position]
        return MovePage(tuple(_moves(rows)), since=since, frontier=self.position)

    def accept(self, page: MovePage) -> None:
        """Move the position to the end of a page."""
        self.position = max(self.position, page.frontier)

    def _counter(self) -> int:
        page = self._client.changes(self.position, 1, only_new_instances=bool(self._filters))
        if page.changes:
            # It came a moment ago and was not read: the counter says nothing of it.
            return self.position
        check_counter(page.last, position=self.position)
        return page.last


def filters_on_server(info: ServerInfo) -> bool:
    """Whether only new instances are asked for.

    Not of a source that recycles its storage: which rows vanished shows only between all others.
    """
    limited = bool(info.maximum_storage_bytes or info.maximum_patient_count)
    recycles = limited and info.maximum_storage_mode != "Reject"
    return info.has_extended_changes and not recycles


def check_counter(last: int, *, position: int) -> None:
    """Raise FeedWentBackwards when the source's counter is below what was read.

    ``last``: the ``Last`` of a page without rows, which is the counter. That of the newest row
    (``?last``) may well be lower: rows go with their instances.
    """
    if last < position:
        raise FeedWentBackwards(
            f"The source's feed ends at {last}, but it was read up to {position}: "
            "the source was created anew or restored from a backup.",
            advice=RESET_ADVICE,
        )


class FollowFeed:
    """The feed, for ever; or, with ``until``, up to that sequence.

    While catching up it reads pages without a gap, each with the last few rows of the one before:
    another source would pass for the same one otherwise. Once at the end, a look begins ``overlap``
    sequences back, so that late rows and a changed history show: at least every
    ``look_back_every_s``, and right after a look that found something new. A few new rows are
    passed on at once, behind a row that we know: to read hundreds again first is half of what an
    idle bridge adds to the way of a single instance.

    A long way behind, every other page is read from where the feed ended when that was noticed:
    a patient who is being examined now must not wait for last year's archive.
    """

    CATCHING_UP_OVERLAP = 20
    FEW = 20
    """Sequences, those before the new rows as well as the new ones themselves."""
    FAR_BEHIND_PAGES = 3
    AHEAD_MAX = 50_000
    """Moves read out of turn during one backlog: each is remembered until it is caught up."""

    def __init__(
        self,
        client: FollowedClient,
        *,
        position: int,
        page_size: int,
        overlap: int,
        until: int | None = None,
        recent: Mapping[int, str] | None = None,
        look_back_every_s: float = 0.0,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._witnesses = Witnesses(client, recent or {})
        self._read_to = position
        self._look_back_every_s = look_back_every_s
        self._steady_s = steady_s
        self._looked_back_s = float("-inf")
        self._reader = FeedReader(client, position=position, page_size=page_size)
        self._overlap = overlap
        self._few = self.FEW if overlap > self.FEW else 0
        self._until = until
        self._far_behind = self.FAR_BEHIND_PAGES * page_size
        self._at_end = True
        self._last: int | None = None
        self._reached_for = -1
        self._counter_seen = 0
        self._ahead: int | None = None
        self._ahead_next = False
        self._ahead_given = 0
        self._reader.counts_from = position or None

    def next_page(self) -> MovePage:
        """Read on. Raises SourceError, FeedWentBackwards."""
        if self._ahead is not None and self._ahead_next:
            self._ahead_next = False
            page = self._reader.read_ahead(self._ahead)
            if page.moves:
                self._ahead = page.frontier
                self._ahead_given += len(page.moves)
                return page
        page = self._next_in_order()
        self._plan_ahead()
        return page

    def look_back(self) -> MovePage:
        """Read the end of what was read again. Raises SourceError, FeedWentBackwards."""
        back_to = max(0, self._reader.position - self._overlap)
        return _bounded(self._reader.read_again(back_to), until=self._until, last=None)

    def _plan_ahead(self) -> None:
        behind = 0 if self._last is None else self._last - self._reader.position
        if self._until is not None or behind <= self._far_behind:
            self._ahead = None
        elif self._ahead is None:
            self._ahead = self._last
            self._ahead_given = 0
        self._ahead_next = self._ahead is not None and self._ahead_given < self.AHEAD_MAX

    def _next_in_order(self) -> MovePage:
        if self._reader.counts_from is None:
            # From the beginning: what was deleted before we came is not what we missed.
            self._reader.counts_from = self._client.last_change().last
        back = min(self.CATCHING_UP_OVERLAP, self._overlap)
        page = self._recent() if self._at_end else self._read_back(back)
        if page is None:
            # A few may have been passed on since, perhaps before a restart: nothing that was within
            # the overlap then is out of it now.
            page = self._read_back(self._overlap + self._few)
            if page.done:
                page = replace(page, last=max(page.last or 0, self._counter_seen))
            self._looked_back_s = self._steady_s()
            self._reached_for = -1
        page = self._reach_newest(page)
        self._witnesses.saw(page.moves)
        if page.done or self._last is None or page.frontier >= self._last:
            self._last = page.last if page.done else self._client.last_change().last
        self._reader.accept(page)
        # At the end of the feed rows of other types may lie between ours and its end.
        end = self._last if page.done and self._last is not None else page.frontier
        self._read_to = max(self._read_to, end)
        self._at_end = page.done
        return _bounded(page, until=self._until, last=self._last)

    def _read_back(self, sequences: int) -> MovePage:
        page = self._reader.read(back_to=max(0, self._reader.position - sequences))
        covered = None if page.done else page.frontier
        self._witnesses.check(page.moves, since=page.since, covered=covered, read_to=self._read_to)
        return page

    def _reach_newest(self, page: MovePage) -> MovePage:
        """Pass rows of other types, asking once for each end of the feed and once a look back.

        The counter may stay above the newest row for ever: rows go with their resources.
        """
        known_last = max(page.last or 0, self._until or 0)
        if known_last == self._reached_for:
            return page
        reached = self._reader.reach_newest(page, known_last=known_last)
        if page.done:
            self._reached_for = known_last
        return reached

    def _recent(self) -> MovePage | None:
        """Return what is new since the last look, nothing or a little; None to look back.

        A counter that moved without a row is rows of other types, or rows that were deleted before
        we had read them.
        """
        if self._steady_s() - self._looked_back_s >= self._look_back_every_s:
            return None
        page = self._reader.read()
        if not page.done or page.frontier > self._reader.position:
            return self._a_few() if self._is_few(page) else None
        if (page.last or 0) <= self._read_to:
            return page
        self._counter_seen = max(self._counter_seen, page.last or 0)
        return None

    def _a_few(self) -> MovePage | None:
        """Return a few new rows with those right before them; None to look back instead.

        Many are read together with all those before them: otherwise a page of another history
        could push out of our memory what contradicts it. So are a few, unless one that we know is
        still there right before them: then it is our feed, and nobody has emptied it.
        """
        position = self._reader.position
        page = self._reader.read(back_to=max(0, position - self._few))
        # More may have come in between.
        if not (self._is_few(page) and self._witnesses.recognise(page.moves, up_to=position)):
            return None
        self._looked_back_s = float("-inf")
        return page

    def _is_few(self, page: MovePage) -> bool:
        return page.done and 0 < page.frontier - self._reader.position <= self._few


class ReplayRange(Forgetful):
    """The changes with start <= sequence <= end, once."""

    def __init__(self, client: FeedClient, *, start: int, end: int, page_size: int) -> None:
        self._reader = FeedReader(client, position=max(0, start - 1), page_size=page_size)
        self._end = end

    def next_page(self) -> MovePage:
        """Read on. Raises SourceError, FeedWentBackwards."""
        page = self._reader.read()
        self._reader.accept(page)
        return _bounded(page, until=self._end, last=None)


class GivenMoves(Forgetful):
    """Moves from an iterable, in pages."""

    def __init__(self, moves: Iterable[Move], *, page_size: int) -> None:
        self._moves: Iterator[Move] = iter(moves)
        self._page_size = page_size

    def next_page(self) -> MovePage:
        """Take the next moves."""
        moves = tuple(islice(self._moves, self._page_size))
        ended = len(moves) < self._page_size
        return MovePage(moves=moves, done=ended, ended=ended)


def _moves(changes: Iterable[Change]) -> Iterator[Move]:
    for change in changes:
        if change.change_type == NEW_INSTANCE:
            yield Move(change.resource_id, change.sequence, change.date)


def _bounded(page: MovePage, *, until: int | None, last: int | None) -> MovePage:
    if until is None:
        return replace(page, last=last)
    return replace(
        page,
        moves=tuple(move for move in page.moves if (move.sequence or 0) <= until),
        frontier=min(page.frontier, until),
        ended=page.done or page.frontier >= until,
        last=last,
    )
