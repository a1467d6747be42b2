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
from bridge.feed_reader import (
    FeedClient,
    FeedReader,
    MovePage,
    check_counter,
    counter_beyond,
)
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

    Rows may become visible late: until the source's counter is ``overlap`` sequences beyond them.
    So what was read is complete up to a sequence only, and each whole look begins there, whatever
    has been passed on since. Far from the end of the feed that is where the last page ended; a few
    rows are read again even so: another source would pass for the same one otherwise. At the end
    there is a whole look at least every ``look_back_every_s``, and right after a look that found
    something new. A few new rows are passed on at once, behind a row that we know: to read hundreds
    again first is half of what an idle bridge adds to the way of a single instance.

    A long way behind, every other page is read from where the feed ended when that was noticed:
    a patient who is being examined now must not wait for last year's archive.
    """

    AGAIN = 20
    """Sequences that every whole look reads again."""
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
        # A few may have been passed on before a restart, and no more: see _is_few.
        self._complete_to = position - overlap - self._few
        self._given = position
        self._until = until
        self._far_behind = self.FAR_BEHIND_PAGES * page_size
        self._at_end = True
        self._last: int | None = None
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
            self._ahead = page.frontier  # a whole page may be rows of other types
            if page.moves:
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
        behind = 0 if self._at_end or self._last is None else self._last - self._reader.position
        if self._until is not None or behind <= self._far_behind:
            self._ahead = None
        elif self._ahead is None:
            self._ahead = self._last
            self._ahead_given = 0
        self._ahead_next = self._ahead is not None and self._ahead_given < self.AHEAD_MAX

    def _next_in_order(self) -> MovePage:
        """Look once. What the look changes is noted when nothing of it can fail any more."""
        if self._reader.counts_from is None:
            # From the beginning: what was deleted before we came is not what we missed.
            self._reader.counts_from = self._client.last_change().last
        begun_s = self._steady_s()
        short = self._recent() if self._at_end else None
        page = short or (self._look_back_at_the_end() if self._at_end else self._read_whole())
        last = page.last if page.done else self._last
        if last is None or (not page.done and page.frontier >= last):
            last = self._client.last_change().last
        if short is None:
            self._note_whole(page, begun_s)
        elif page.frontier > self._reader.position:
            self._looked_back_s = float("-inf")
        self._last = last
        self._given = max(self._given, last, page.frontier)
        self._witnesses.saw(page.moves)
        self._reader.accept(page)
        # At the end of the feed rows of other types may lie between ours and its end.
        self._read_to = max(self._read_to, last if page.done else page.frontier)
        was_at_end, self._at_end = self._at_end, page.done
        if page.done and not was_at_end and self._reader.filters:
            # Rows of other types behind it are passed by a look at the end, which comes at once.
            page = replace(page, done=False)
        return _bounded(page, until=self._until, last=last)

    def _note_whole(self, page: MovePage, begun_s: float) -> None:
        """Note up to where a whole look has made complete what is read.

        A row that was not visible then is less than an overlap behind the counter of that moment,
        which was at least what had been given out before, and at least the end of the page.
        """
        given = max(self._given, page.frontier)
        self._complete_to = min(page.frontier, given - self._overlap)
        self._looked_back_s = begun_s if self._at_end else float("-inf")

    def _read_whole(self) -> MovePage:
        position = self._reader.position
        again = position - min(self.AGAIN, self._overlap)
        page = self._reader.read(back_to=max(0, min(self._complete_to, again)))
        covered = None if page.done else page.frontier
        self._witnesses.check(page.moves, since=page.since, covered=covered, read_to=self._read_to)
        return page

    def _look_back_at_the_end(self) -> MovePage:
        newest = self._reader.newest_of_any_type()
        page = self._read_whole()
        if page.done:
            page = replace(page, last=max(page.last or 0, self._counter_seen))
        return page if newest is None else self._reader.reach(page, newest)

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
        return page

    def _is_few(self, page: MovePage) -> bool:
        """Whether so little was passed on since the last whole look, with this page.

        After a restart nothing tells how much it was: never more than this.
        """
        passed_on = page.frontier - self._overlap - self._complete_to
        return page.done and passed_on <= self._few and page.frontier > self._reader.position


class ReplayRange(Forgetful):
    """The changes with start <= sequence <= end, once.

    A source that is empty for a moment seems to have none of them: where the feed ends below the
    end of the range, it must do so twice.
    """

    def __init__(self, client: FeedClient, *, start: int, end: int, page_size: int) -> None:
        self._client = client
        self._ended_before = False
        self._reader = FeedReader(client, position=max(0, start - 1), page_size=page_size)
        self._end = end

    def next_page(self) -> MovePage:
        """Read on. Raises SourceError, FeedWentBackwards."""
        page = self._reader.read()
        if page.done and page.frontier < self._end:
            check_counter(counter_beyond(self._client, self._end), position=self._end)
            ended_before, self._ended_before = self._ended_before, True
            page = replace(page, done=ended_before)
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
