"""Where moves come from: the feed, a range of it, a listing, or a given set.

Each source of moves answers ``next_page``, which may block on the network and raises SourceError
when the source cannot be used; the same call is then made again later. The pipeline does not
know which kind it has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Protocol

from bridge.core.model import Move
from bridge.feed_reader import FeedClient, FeedReader, MovePage
from bridge.witnesses import Witnessed, Witnesses

LOOK_BACK_EVERY_S = 5.0
"""So often the end of an idle feed is read again: 6 ms of the source each time."""


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


class FollowFeed:
    """The feed, for ever; or, with ``until``, up to that sequence.

    While catching up it reads pages without a gap, each with the last few rows of the one before:
    another source would pass for the same one otherwise. Within ``overlap`` sequences of the end
    each look begins that far back, so that late rows and a changed history show; once at the end,
    at least every ``look_back_every_s``, and right after a look that found something new. A few
    new rows are passed on at once, behind a row that we know: to read hundreds again first is half
    of what an idle bridge adds to the way of a single instance.

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
        page = self._recent() if self._at_end else self._read_back(self._catching_up_overlap())
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

    def _catching_up_overlap(self) -> int:
        """Return how many sequences are read again with the next page, short of the end.

        Where the feed was known to end at least an overlap after what was read, everything that
        may come late had come when it was read. Nearer to the end a burst may pass over a row
        whose transaction is still open, and go on for longer than the overlap is.
        """
        behind = 0 if self._last is None else self._last - self._reader.position
        few = min(self.CATCHING_UP_OVERLAP, self._overlap)
        return few if behind >= self._overlap else self._overlap

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
