"""Moves from a listing of a server: for a snapshot, where the feed cannot tell everything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

from bridge.errors import SideError, side_error
from bridge.feed.gaps import Ask
from bridge.feed.identity import KnownPlace
from bridge.feed.pages import NEW_INSTANCE, FeedClient, MovePage, pages_asked
from bridge.feed.sources import FixedMoves, FromKnownSource, MoveSource
from bridge.model import Move, SideName, SideProblem

LISTING_OVERLAP = 100
"""Instances of the previous page that each further page of a listing begins with."""
LISTED_PAGES_MAX = 1_000_000
"""Of one listing: a thousand million instances. A server may claim one more each time."""
BEGINNINGS_MAX = 50
"""A listing that was begun anew so often is given up, and tried again later."""
ASKED_AT_ONCE = 400
"""Instances of which it is asked together whether the target holds them."""
BACK_MAX = 6400
"""Instances that are remembered and read again, at most, before a listing is begun anew."""


class ListingClient(Protocol):
    """What is needed of a server to list its instances."""

    def list_instances(self, since: int, limit: int) -> list[str]:
        """Return instance IDs by position."""


class Held(Protocol):
    """What is known of the instances that the target holds."""

    def among(self, instance_ids: Sequence[str]) -> Collection[str]:
        """Return those that it is shown to hold. Raises TargetError."""


class Listing(FixedMoves):
    """Every instance that a server holds, once or more.

    Positions shift when instances come and go while we page. Orthanc 1.12 lists by identifier, 1.10
    in the order of arrival, where what is sent anew goes to the end. In either order a page goes on
    if an instance in it was listed before and was not sent anew since: what is before that instance
    was listed before it, or has come since and is in the feed. So a page by identifier must have
    one of those that were listed last. A page in the order of arrival must begin with the end of
    the one before. Otherwise we go back further, and then begin anew: something would be passed
    over. Where that end was sent anew itself, it is at the end of the list now, and what was not
    listed yet is before it: only ``feed`` tells, the source's. Without it, as many as half of the
    end must be there.

    An archive that somebody has filled in the order of identifiers, from an Orthanc 1.12 for
    example, is in both orders until the first page with later arrivals. So it is never enough that
    a page begins with a lower identifier than the one before ended with.

    It ends with a page that is not full and has nothing after it, new instances in it or not: at a
    server where they never cease to arrive there is no page without. (For as long as they arrive
    faster than they are moved, a list in the order of arrival has no end. What the feed tells of
    them could give it one; but an error there would cost all that was not listed yet.)
    """

    def __init__(
        self,
        client: ListingClient,
        *,
        page_size: int,
        side: SideName = SideName.SOURCE,
        feed: FeedClient | None = None,
    ) -> None:
        self._client = client
        self._feed = feed
        self._side = side
        self._page_size = max(page_size, 2 * LISTING_OVERLAP)
        self._begun_anew = 0
        self._begin()

    def _begin(self) -> None:
        self._position = 0
        self._pages = 0
        self._tail: tuple[str, ...] = ()
        self._listed_at: dict[str, int] = {}
        """Of the tail: the end of the feed before it was listed."""
        self._back = LISTING_OVERLAP
        self._by_id = True

    def next_page(self) -> MovePage:
        """Read on. Raises SideError."""
        self._pages += 1
        if self._pages > LISTED_PAGES_MAX:
            self._begin()
            raise _endless(self._side)
        back = self._back
        start = max(0, self._position - back)
        limit = self._page_size + back
        # Of a source that is another one for a moment it may be too low: then we go back.
        newest = self._feed.last_change().last if self._feed else 0
        listed = self._client.list_instances(start, limit)
        if start > 0 and not self._goes_on(listed):
            if 4 * back <= min(len(self._tail), BACK_MAX):
                self._back = 4 * back
            else:
                self._begin_anew()
            return MovePage(moves=())
        known = set(self._tail)
        fresh = [instance_id for instance_id in listed if instance_id not in known]
        ended = len(listed) < limit and not self._client.list_instances(start + limit, limit)
        if len(listed) < limit and not ended and not fresh:
            self._begin_anew()
            return MovePage(moves=())
        # Nothing can fail any more: what is noted from here on is passed on.
        self._by_id = self._by_id and _ascend(listed)
        self._position = start + len(listed)
        again = set(listed)
        before = (instance_id for instance_id in self._tail if instance_id not in again)
        self._tail = (*before, *listed)[-BACK_MAX:]
        at = self._listed_at | dict.fromkeys(listed, newest)
        self._listed_at = {instance_id: at[instance_id] for instance_id in self._tail}
        self._back = LISTING_OVERLAP
        return MovePage(moves=tuple(Move(i) for i in fresh), done=ended, ended=ended)

    def _goes_on(self, listed: Sequence[str]) -> bool:
        end = self._tail[-self._back :]
        if self._by_id and _ascend(listed):
            # Not to be told from an order of arrival that happens to be that of identifiers.
            known = set(self._tail)
            again = [instance_id for instance_id in listed if instance_id in known]
            goes_on = len(again) >= (1 if self._feed else LISTING_OVERLAP / 2)
        else:
            again = list(listed[:1])
            goes_on = _begins_with_the_end(listed, end)
        return goes_on and not self._sent_anew(again[0])

    def _sent_anew(self, instance_id: str) -> bool:
        """Tell whether a listed instance has a row in the feed since. Raises SourceError.

        Up to the present end of the feed. False without a feed, which is to say: unknown.
        """
        if self._feed is None:
            return False
        since, end = self._listed_at[instance_id], self._feed.last_change().last
        for _ in pages_asked():
            if since >= end:
                break
            page = self._feed.changes(since, self._page_size, only_new_instances=True)
            for row in page.changes:
                if row.resource_id == instance_id and row.change_type == NEW_INSTANCE:
                    return True
            if page.done or not page.changes:
                break
            since = page.changes[-1].sequence
        return False

    def _begin_anew(self) -> None:
        """Raise SideError when pages never go on from one another: nobody is asked for ever."""
        self._begin()
        self._begun_anew += 1
        if self._begun_anew > BEGINNINGS_MAX:
            self._begun_anew = 0
            raise self._wrong(
                f"The pages of the {self._side}'s list of instances do not fit together.",
                "Does something there delete or replace instances all the time? Does a plugin "
                "hide instances from the list? The bridge tries again.",
            )

    def _wrong(self, message: str, advice: str) -> SideError:
        return side_error(self._side, SideProblem.NOT_ORTHANC, message, advice=advice)


def listed_pages(side: SideName) -> Iterator[int]:
    """Count the pages of a list that is read to its end. Raises SideError after the last one."""
    yield from range(LISTED_PAGES_MAX)
    raise _endless(side)


def _endless(side: SideName) -> SideError:
    return side_error(
        side,
        SideProblem.NOT_ORTHANC,
        f"The {side}'s list has more than {LISTED_PAGES_MAX} pages.",
        advice="Look at GET /instances there: is it an Orthanc? The bridge tries again.",
    )


def _ascend(listed: Sequence[str]) -> bool:
    return all(before < after for before, after in pairwise(listed))


def _begins_with_the_end(listed: Sequence[str], tail: Sequence[str]) -> bool:
    """Tell whether a page in the order of arrival goes on from where the one before ended.

    It begins with something of its end, and half of that is there in the order in which it was. (A
    whole study that was sent anew is in order too, at the end: but what was not listed yet is now
    before it, so that the page begins with that.)
    """
    places = {instance_id: place for place, instance_id in enumerate(tail)}
    if not listed or listed[0] not in places:
        return False
    in_order, last = 0, -1
    for place in (places[instance_id] for instance_id in listed if instance_id in places):
        if place < last:
            break  # sent anew: from here on it is the end of the list
        in_order, last = in_order + 1, place
    return 2 * in_order >= len(tail)


class ConfirmedListing(FromKnownSource):
    """A listing of which each page is passed on after a look at a known place in the feed.

    So no page is of another source than the one that the listing was begun with. A source that has
    lost its disk for a moment lists nothing, and that looks like the end: so the end must be met
    twice, with a look at the known place after each.
    """

    def __init__(self, listing: MoveSource, known: KnownPlace) -> None:
        super().__init__(listing, known)
        self._page: MovePage | None = None
        self._ended_before = False

    def next_page(self) -> MovePage:
        """Read on. Raises SourceError, after which the same page is looked at again.

        Raises FeedWentBackwards when another source answers.
        """
        page = self._page = self._page or super().next_page()
        self.look_back()
        self._page = None
        ended = page.ended and self._ended_before
        self._ended_before = page.ended
        return replace(page, done=page.done and ended == page.ended, ended=ended)


class Lacking:
    """Of another source of moves, those that the target does not hold.

    ``report`` is told of each page how many instances were asked for, and how many are lacking.
    """

    def __init__(
        self,
        moves: MoveSource,
        held: Held,
        report: Callable[[int, int], None] = lambda _asked, _lacking: None,
    ) -> None:
        self._moves = moves
        self._held = held
        self._report = report
        self._page: MovePage | None = None
        self._asked = 0
        self._lacking: list[Move] = []

    def next_page(self) -> MovePage:
        """Read on. Raises TargetError, after which the same page is gone on with.

        Not begun anew: a server that fails now and then would never be asked for all of it. Raises
        what the other source of moves raises.
        """
        page = self._page = self._page or self._moves.next_page()
        while self._asked < len(page.moves):
            asked = page.moves[self._asked : self._asked + ASKED_AT_ONCE]
            held = self._held.among([move.instance_id for move in asked])
            self._lacking += [move for move in asked if move.instance_id not in held]
            self._asked += len(asked)
        lacking = tuple(self._lacking)
        self._report(self._asked, len(lacking))
        self._page, self._asked, self._lacking = None, 0, []
        return replace(page, moves=lacking)

    def look_back(self) -> MovePage:
        """Look back as the other source of moves does."""
        return self._moves.look_back()

    def newest(self, *, ahead: bool) -> MovePage:  # noqa: ARG002 (see MoveSource)
        """Tell what the other source of moves does. Moves that were not compared are none."""
        return self._moves.newest(ahead=False)

    def ask_again(self, ask: Ask) -> MovePage:
        """Ask as the other source of moves does."""
        return self._moves.ask_again(ask)
