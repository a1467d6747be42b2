"""Follows the source's feed: its newest rows, and those that become visible late."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from bridge.feed.gaps import Ask
from bridge.feed.identity import Counter, FeedIdentity, FeedMemory, IdentityClient
from bridge.feed.pages import FeedClient, FeedReader, MovePage
from bridge.feed.sources import bounded_page
from bridge.model import CounterLag

LOOK_BACK_EVERY_S = 5.0
"""So often the end of an idle feed is read again: 6 ms of the source each time."""


class FollowedClient(FeedClient, IdentityClient, Protocol):
    """What is needed of a source to follow its feed."""


class FollowFeed:
    """The feed, for ever; or, with ``until``, up to that sequence.

    Rows may become visible late: until the source's counter is ``overlap`` sequences beyond them.
    So what was read is complete up to a sequence only, and each whole look begins there, whatever
    was passed on since. Far from the end of the feed, it is complete up to the end of the last
    page. A few rows are read again even so, because another source is known by rows that we know.
    At the end of the feed there is a whole look at least every ``look_back_every_s``, and right
    after a look that found something new. A few new rows are passed on at once, where a row that we
    know is right before them: to read hundreds again first would be half of the time that an idle
    bridge adds to a single instance.

    Behind the end of the feed, ``newest`` also reads on from where the feed ended when that was
    noticed: a patient who is being examined now must not wait for last year's archive.
    """

    AGAIN = 20
    """Sequences that every whole look reads again."""
    FEW = 20
    """A short look passes on so many new sequences at most, and reads so many before them again."""
    AHEAD_MAX = 50_000
    """Moves read out of turn in one backlog: each is remembered until it is read in order."""
    AHEAD_PAGES = 10
    """Pages of rows of other types that are passed over in one look out of turn."""

    def __init__(
        self,
        client: FollowedClient,
        *,
        position: int,
        page_size: int,
        overlap: int,
        memory: FeedMemory,
        until: int | None = None,
        lag: CounterLag | None = None,
        look_back_every_s: float = 0.0,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._identity = FeedIdentity(client, memory)
        self._counter = Counter(client, lag)
        self._read_to = position
        self._look_back_every_s = look_back_every_s
        self._steady_s = steady_s
        self._looked_back_s = float("-inf")
        self._reader = FeedReader(
            client, position=position, page_size=page_size, counter=self._counter
        )
        self._overlap = overlap
        self._few = self.FEW if overlap > self.FEW else 0
        # Before a restart a short look may have passed on FEW sequences, and no more: see _is_few.
        self._complete_to = position - overlap - self._few
        self._given = position
        self._until = until
        self._at_end = True
        self._last: int | None = None
        self._newest_date = ""
        self._counter_seen = 0
        self._ahead: int | None = None
        """Behind the end of the feed: from here on it is read out of turn."""
        self._ahead_given = 0
        self._reader.counts_from = position or None

    def newest(self, *, ahead: bool) -> MovePage:
        """Ask for the newest row, however far reading is behind it. Raises SourceError.

        ``ahead``: behind the end of the feed, rows come with it that were given since that was
        noticed.
        """
        last = self._client.last_change().last
        if not ahead or self._ahead_given >= self.AHEAD_MAX:
            return MovePage((), last=last)
        for _ in range(self.AHEAD_PAGES):
            if self._ahead is None or last <= self._ahead:
                break
            page = self._reader.read_ahead(self._ahead)
            self._ahead = page.frontier
            if page.moves:
                self._ahead_given += len(page.moves)
                return replace(page, last=max(last, page.frontier))
        return MovePage((), last=last)

    def next_page(self) -> MovePage:
        """Read on. Raises SourceError, FeedWentBackwards."""
        page = self._next_in_order()
        self._plan_ahead()
        return page

    def look_back(self) -> MovePage:
        """Read the end of what was read again. Raises SourceError, FeedWentBackwards."""
        back_to = max(0, self._reader.position - self._overlap)
        return bounded_page(self._reader.read_again(back_to), until=self._until, last=None)

    def ask_again(self, ask: Ask) -> MovePage:
        """Read what is there of gaps. Raises SourceError, FeedWentBackwards.

        A row there is believed beside one that is known. Where none is near, one is looked at, and
        the question is asked again: a row that another server told, for a moment, goes.
        """
        page = self._reader.ask(ask)
        known = set(ask.known)
        if not _fills(page, ask):
            return page
        if any((move.sequence, move.instance_id) in known for move in page.moves):
            return page
        if not self._identity.one_is_there():
            self._counter.check_reached(self._reader.position)
            if self._read_whole().emptied:
                return replace(page, emptied=True)
        same = self._reader.ask(ask)
        return replace(page, confirmed=same == page)

    def _plan_ahead(self) -> None:
        """Note from where on rows are new arrivals, while there are others before them."""
        if self._at_end or self._until is not None:
            self._ahead = None
        elif self._ahead is None:
            self._ahead = self._last
            self._ahead_given = 0
        else:  # arrivals never cease, and what was read in order is not read once more
            self._ahead = max(self._ahead, self._reader.position)

    def _next_in_order(self) -> MovePage:
        """Look once. The look is noted at its end, when none of its requests can fail any more."""
        if self._reader.counts_from is None:
            # From the beginning: what was deleted before we came is not what we missed.
            self._reader.counts_from = self._end()
        begun_s = self._steady_s()
        short = self._recent() if self._at_end else None
        page = short or (self._look_back_at_the_end() if self._at_end else self._read_whole())
        last = page.last if page.done else self._last
        if last is None or (not page.done and page.frontier >= last):
            last = self._end()
        if page.done and (self._until is not None or page.frontier <= self._reader.position):
            if self._reader.can_be_late:
                self._counter.learn(page.frontier)
            page = replace(page, lag=self._counter.lag)
        if short is None:
            self._note_whole(page, begun_s)
        elif page.frontier > self._reader.position:
            self._looked_back_s = float("-inf")
        self._last = last
        self._given = max(self._given, last, page.frontier)
        self._reader.accept(page)
        # At the end of the feed rows of other types may lie between ours and its end.
        self._read_to = max(self._read_to, last if page.done else page.frontier)
        was_at_end, self._at_end = self._at_end, page.done
        if page.done and not was_at_end and self._reader.filters:
            # Rows of other types behind it are passed by a look at the end, which comes at once.
            page = replace(page, done=False)
        self._newest_date = max(self._newest_date, page.newest_date)
        page = replace(page, feed_date=self._newest_date)
        return bounded_page(page, until=self._until, last=last)

    def _end(self) -> int:
        """Return the last sequence of the feed, and note its date. Raises SourceError."""
        newest = self._client.last_change()
        if newest.changes:
            self._newest_date = newest.changes[-1].date
        return newest.last

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
        was_emptied = self._identity.was_emptied(
            page.moves,
            since=page.since,
            covered=covered,
            read_to=self._read_to,
            can_be_late=self._reader.can_be_late,
        )
        return replace(page, emptied=was_emptied)

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
        if not (self._is_few(page) and self._identity.knows_one(page.moves, up_to=position)):
            return None
        return page

    def _is_few(self, page: MovePage) -> bool:
        """Whether so little was passed on since the last whole look, with this page.

        After a restart nothing tells how much it was: never more than this.
        """
        passed_on = page.frontier - self._overlap - self._complete_to
        return page.done and passed_on <= self._few and page.frontier > self._reader.position


def _fills(page: MovePage, ask: Ask) -> bool:
    """Tell whether a gap that was asked for has a row now."""
    gaps = page.gaps or ()
    begins = [gap.first for gap in gaps]
    for first, last in ask.gaps:
        # The gaps of a page are in order: only the last one that begins by then can span the other.
        place = bisect_right(begins, first) - 1
        spanned = place >= 0 and gaps[place].last >= min(last, page.frontier)
        if first <= page.frontier and not spanned:
            return True
    return False
