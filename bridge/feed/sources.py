"""Where moves come from: what every source of moves offers, and the simple ones.

Each source of moves answers ``next_page``, which may block on the network and raises SourceError
when the source cannot be used; the same call is then made again later. The pipeline does not
know which kind it has. follow.py follows a feed; listing.py lists a server for a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Protocol

from bridge.feed.gaps import Ask, PageGap, page_gaps_of
from bridge.feed.identity import Counter, KnownPlace, Place, check_reached, check_rows
from bridge.feed.pages import (
    NEW_INSTANCE,
    FeedClient,
    FeedReader,
    MovePage,
    can_be_late,
    feed_end,
)
from bridge.model import Change, Move

DEPTH = 40_000
"""Sequences before a beginning that may still become visible: ten times what was ever seen."""
DEPTH_PAGE = 5_000
SEARCHED_MAX = 20_000
"""Sequences that are searched, at least, for an instance to know a place in the feed by."""
KNOWN_BY = 500
"""Sequences by which a source is known again that was never followed."""


class MoveSource(Protocol):
    """Anything that yields moves page by page."""

    def next_page(self) -> MovePage:
        """Return the next moves. May block; raises SourceError."""

    def look_back(self) -> MovePage:
        """Read again what was read last, for whoever can tell another history by it.

        May block; raises SourceError, FeedWentBackwards. Never called beside next_page.
        """

    def newest(self, *, ahead: bool) -> MovePage:
        """Ask for the newest sequence of the feed: a page that has it as ``last``.

        ``ahead``: moves are welcome that came since reading fell behind, read out of turn. May
        block; raises SourceError. Never called beside next_page.
        """

    def ask_again(self, ask: Ask) -> MovePage:
        """Read what is there of gaps. Like look_back otherwise."""


class FixedMoves:
    """A source of moves that is not followed: no arrival adds to it, and no page is read again."""

    def look_back(self) -> MovePage:
        """Return an empty page."""
        return MovePage(())

    def newest(self, *, ahead: bool) -> MovePage:  # noqa: ARG002 (see MoveSource)
        """Return an empty page: no arrival concerns it."""
        return MovePage(())

    def ask_again(self, ask: Ask) -> MovePage:
        """Return a page that tells nothing."""
        return MovePage((), since=ask.since, frontier=ask.to, again=True)


class ReplayRange(FixedMoves):
    """The changes with start <= sequence <= end, once.

    A source that is empty for a moment seems to have none of them. So a feed that ends below the
    end of the range must do so at two looks before the range counts as read.
    """

    def __init__(self, client: FeedClient, *, start: int, end: int, page_size: int) -> None:
        self._client = client
        self._ended_before = False
        self._newest_date = ""
        self._reader = FeedReader(
            client, position=max(0, start - 1), page_size=page_size, counter=Counter(client)
        )
        self._end = end

    def next_page(self) -> MovePage:
        """Read on. Raises SourceError, FeedWentBackwards."""
        page = self._reader.read()
        if page.done and page.frontier < self._end:
            check_reached(self._client, self._end)
            ended_before, self._ended_before = self._ended_before, True
            page = replace(page, done=ended_before)
        if page.gaps and not self._newest_date:
            newest = self._client.last_change().changes
            self._newest_date = newest[-1].date if newest else ""
        self._reader.accept(page)
        page = replace(page, feed_date=self._newest_date)
        return bounded_page(page, until=self._end, last=None)

    def ask_again(self, ask: Ask) -> MovePage:
        """Read what is there of gaps. Raises SourceError."""
        return self._reader.ask(ask)


def pages_of(moves: MoveSource) -> Iterator[MovePage]:
    """Read a source of moves to its end. Raises SourceError."""
    ended = False
    while not ended:
        page = moves.next_page()
        yield page
        ended = page.ended


class GivenMoves(FixedMoves):
    """Moves from an iterable, in pages."""

    def __init__(self, moves: Iterable[Move], *, page_size: int) -> None:
        self._moves: Iterator[Move] = iter(moves)
        self._page_size = page_size

    def next_page(self) -> MovePage:
        """Take the next moves."""
        moves = tuple(islice(self._moves, self._page_size))
        ended = len(moves) < self._page_size
        return MovePage(moves=moves, done=ended, ended=ended)


class FeedEnd(FixedMoves):
    """A source of no moves that learns where the feed ends, or looks at a ``wanted`` place in it.

    ``overlap``: so many sequences before it are read. ``with_gaps``: learn what may still become
    visible before it. ``followed``: rows of the feed that is followed; an end is believed only
    where the rows before it do not contradict them.
    """

    def __init__(
        self,
        client: FeedClient,
        *,
        overlap: int,
        wanted: int | None = None,
        with_gaps: bool = False,
        followed: Mapping[int, str] | None = None,
    ) -> None:
        self._client = client
        self._followed = followed or {}
        self._with_gaps = with_gaps
        self._overlap = overlap
        self._wanted = wanted
        self.place: Place | None = None
        self.last = 0

    def next_page(self) -> MovePage:
        """Ask. Raises SourceError, FeedWentBackwards."""
        self.last = feed_end(self._client, at_least=self._wanted or 0)
        at = self.last if self._wanted is None else self._wanted
        back = self._overlap
        instances: list[Change] = []
        while not instances:
            page = self._client.changes(max(0, at - back), back, only_new_instances=False)
            rows = [change for change in page.changes if change.sequence <= at]
            instances = [c for c in rows if c.change_type == NEW_INSTANCE and c.resource_id]
            if back >= at or back > SEARCHED_MAX:
                break
            back *= 4
        check_rows((Move(c.resource_id, c.sequence) for c in instances), self._followed)
        self.place = Place(
            at,
            tuple((c.sequence, c.resource_id) for c in instances[-self._overlap :]),
            rows[-1].date if rows else "",
            self._page_gaps(at) if self._with_gaps and can_be_late(self._client.system()) else (),
        )
        return MovePage((), done=True, ended=True, last=self.last)

    def _page_gaps(self, at: int) -> tuple[PageGap, ...]:
        """Return what has no row of the last sequences up to ``at``. Raises SourceError."""
        begin = since = max(0, at - DEPTH)
        rows: list[tuple[int, str]] = []
        done = False
        while since < at and not done:
            limit = min(DEPTH_PAGE, at - since)
            page = self._client.changes(since, limit, only_new_instances=False)
            rows += [(row.sequence, row.date) for row in page.changes if row.sequence <= at]
            done = page.done or not page.changes
            since = page.changes[-1].sequence if page.changes else at
        return page_gaps_of(rows, since=begin, to=at, counts_from=None)


class LookAgain(FixedMoves):
    """A source of no moves that looks once whether the source has the feed that was followed.

    ``renew`` closes the connections before it: a balancer may hold one to another server.
    """

    def __init__(self, known: KnownPlace, *, renew: Callable[[], None]) -> None:
        self._known = known
        self._renew = renew

    def next_page(self) -> MovePage:
        """Look. Raises SourceError, FeedWentBackwards."""
        self._renew()
        self._known.look()
        return MovePage((), done=True, ended=True)


def place_of(client: FeedClient) -> KnownPlace:
    """Note where a source's feed ends, to know it again by. Raises SourceError."""
    end = FeedEnd(client, overlap=KNOWN_BY)
    end.next_page()
    return KnownPlace(client, end.place or Place(0), overlap=KNOWN_BY)


class FromKnownSource:
    """Moves that were chosen before, as long as the source has the feed that it had then."""

    def __init__(self, moves: MoveSource, known: KnownPlace) -> None:
        self._moves = moves
        self._known = known

    def next_page(self) -> MovePage:
        """Read on."""
        return self._moves.next_page()

    def look_back(self) -> MovePage:
        """Make sure that the source is the same one. Raises SourceError, FeedWentBackwards."""
        self._known.look()
        return MovePage(())

    def newest(self, *, ahead: bool) -> MovePage:  # noqa: ARG002 (see MoveSource)
        """Return an empty page: they were chosen before, and no arrival adds to them."""
        return MovePage(())

    def ask_again(self, ask: Ask) -> MovePage:
        """Read what is there of gaps, in the same source. Raises SourceError, FeedWentBackwards."""
        page = self._moves.ask_again(ask)
        self._known.look()
        return page


def _up_to(gaps: tuple[PageGap, ...] | None, until: int) -> tuple[PageGap, ...] | None:
    if gaps is None:
        return None
    return tuple(replace(h, last=min(h.last, until)) for h in gaps if h.first <= until)


def bounded_page(page: MovePage, *, until: int | None, last: int | None) -> MovePage:
    """Return a page without what is above ``until``; ``last``: of the feed."""
    if until is None:
        return replace(page, last=last)
    return replace(
        page,
        moves=tuple(move for move in page.moves if (move.sequence or 0) <= until),
        frontier=min(page.frontier, until),
        gaps=_up_to(page.gaps, until),
        ended=page.done or page.frontier >= until,
        last=last,
    )
