"""Pages of a source's ``/changes``: moves, and what each page says of the feed beside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from bridge.core.errors import FeedWentBackwards
from bridge.core.history import RESET_ADVICE
from bridge.core.model import Change, Move, Page, ServerInfo

NEW_INSTANCE = "NewInstance"
ROWS_ASKED = 8
"""Remembered rows that are asked for one by one."""


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


class RowsClient(Protocol):
    """What is needed of a source to look at rows."""

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        """Return the rows after ``since``."""


class FeedClient(RowsClient, Protocol):
    """What is needed of a source to read its feed."""

    def system(self) -> ServerInfo:
        """Return the server's description."""

    def last_change(self) -> Page:
        """Return the newest row."""


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

    @property
    def filters(self) -> bool:
        """Whether the source gives new instances only. Asks it once; raises SourceError."""
        if self._filters is None:
            self._filters = filters_on_server(self._client.system())
        return self._filters

    def read(self, *, back_to: int | None = None) -> MovePage:
        """Read the next page; with ``back_to``, read the rows after that sequence again too.

        Raises FeedWentBackwards when the feed ends below the position.
        """
        only_new = self.filters
        since = self.position if back_to is None else min(back_to, self.position)
        limit = self._page_size + (self.position - since)
        page = self._client.changes(since, limit, only_new_instances=only_new)
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

    def newest_of_any_type(self) -> Change | None:
        """Return the newest row, of whatever type, where others than ours are not read.

        None where all are read anyway, or the feed is empty. Raises SourceError.
        """
        rows = self._client.last_change().changes if self.filters else ()
        return rows[-1] if rows else None

    def reach(self, page: MovePage, newest: Change) -> MovePage:
        """Let the last page of a filtered feed reach a row that was given before it was read.

        Otherwise the checkpoint would stay behind the end of the feed for as long as no instance
        comes. A page that had nothing more was read after that row was given: everything up to it
        has been read, as far as it was visible. Raises SourceError.
        """
        if not page.done or newest.sequence <= page.frontier:
            return page
        rest = self._client.changes(page.frontier, 1, only_new_instances=True)
        if rest.changes or rest.last < newest.sequence:
            return page  # an instance has come since, or it is another feed
        last = max(page.last or 0, rest.last)
        return replace(page, frontier=newest.sequence, last=last, newest_date=newest.date)

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


def feed_end(client: FeedClient, *, at_least: int = 0) -> int:
    """Return the last sequence of the feed; the counter where the newest row is below ``at_least``.

    Raises SourceError.
    """
    last = client.last_change().last
    return last if at_least <= last else max(last, counter_beyond(client, at_least))


def last_row_there(client: RowsClient, sequences: Iterable[int]) -> Move | None:
    """Return what is there now at the highest of the last few sequences that still has a row.

    So many rows of other types may follow that none of ours is read again. Raises SourceError.
    """
    for sequence in sorted(sequences, reverse=True)[:ROWS_ASKED]:
        rows = client.changes(sequence - 1, 1, only_new_instances=False).changes
        if rows and rows[0].sequence == sequence:
            return Move(rows[0].resource_id, sequence)
    return None


def counter_beyond(client: RowsClient, sequence: int) -> int:
    """Return up to where sequences were given out, or, where rows follow, at least ``sequence``.

    Rows go with their instances, and ``?last`` tells the newest that is left. Raises SourceError.
    """
    page = client.changes(sequence, 1, only_new_instances=False)
    return page.last if not page.changes else max(sequence, page.changes[-1].sequence)


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


def _moves(changes: Iterable[Change]) -> Iterator[Move]:
    for change in changes:
        if change.change_type == NEW_INSTANCE:
            yield Move(change.resource_id, change.sequence, change.date)
