"""Pages of a source's ``/changes``: moves, and what each page says of the feed beside.

This file must not know: sockets, files, clocks, logging, settings.
The source is asked by a protocol. What a page means is judged in feed/identity.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from bridge.errors import ConfigurationError, side_error
from bridge.feed.gaps import ASK_WIDTH, Ask, PageGap, page_gaps_of
from bridge.model import Change, CounterLag, Move, Page, ServerInfo, SideName, SideProblem

NEW_INSTANCE = "NewInstance"
ASKED_PAGES_MAX = 100_000
"""Of the feed, to answer one question: a hundred million changes in pages of 1,000."""


@dataclass(frozen=True, slots=True)
class MovePage:
    """Some moves, and what the source of moves knows beside.

    ``since`` and ``frontier``: the rows with since < sequence <= frontier have been read (both 0
    when there are no sequences). ``done``: nothing more at the moment. ``ended``: never more.
    ``last``: the newest sequence of the feed, when known. ``ahead``: read out of turn, beyond
    what is read in order; ``frontier`` then does not tell how far everything was read.
    ``newest_date``: of the last row, of whatever type. ``missing``: rows that were not there any
    more, where that can be told at once. ``refused``: rows of new instances that name no
    identifier of Orthanc's: nothing can be asked for by them. ``gaps``: the sequences with
    since < sequence <= frontier that have no row and may yet have one; None where there are no
    such, or it cannot be told.
    ``feed_date``: of the newest row of the feed, as far as known. ``again``: an answer about gaps,
    which does not tell how far everything was read; ``confirmed``: it was told twice, with a look
    at a row that we know in between. ``emptied``: the feed was, and what of it was unread is to be
    judged by the gaps. ``lag``: where the counter was last seen to stay below a row.
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
    refused: int = 0
    gaps: tuple[PageGap, ...] | None = None
    feed_date: str = ""
    again: bool = False
    confirmed: bool = False
    emptied: bool = False
    lag: CounterLag | None = None


class RowsClient(Protocol):
    """What is needed of a source to look at rows."""

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        """Return the rows after ``since``."""


class EndClient(RowsClient, Protocol):
    """What is needed of a source to know where its feed ends."""

    def last_change(self) -> Page:
        """Return the newest row."""


class FeedClient(EndClient, Protocol):
    """What is needed of a source to read its feed."""

    def system(self) -> ServerInfo:
        """Return the server's description."""


class CounterJudge(Protocol):
    """Who is told each counter that an empty page brings."""

    @property
    def lag(self) -> CounterLag | None:
        """Where the counter was last seen to stay below a row."""

    def check(self, counter: int, *, position: int) -> None:
        """Judge a counter. Raises SourceError, FeedWentBackwards."""


class FeedReader:
    """Pages of the feed from a position on, in order.

    ``position`` is the last sequence that we were really given: an empty page's ``Last`` is the
    server's own counter and must never move it forward. It moves only by ``accept``, when all
    that belongs to a page has been read: an error in between must not pass rows over.

    All types of rows are read where the database can be late: gaps show then (bridge/feed/gaps.py).
    Elsewhere sequences have no gaps until something is deleted at the source. So where all types
    of rows are read, a gap is rows that vanished; those above ``counts_from``, if set, are counted.
    """

    def __init__(
        self, client: FeedClient, *, position: int, page_size: int, counter: CounterJudge
    ) -> None:
        self.position = position
        self._counter = counter
        self.counts_from: int | None = None
        self._client = client
        self._page_size = page_size
        self._system: ServerInfo | None = None

    @property
    def filters(self) -> bool:
        """Whether the source gives new instances only. Asks it once; raises SourceError."""
        return filters_on_server(self._described())

    @property
    def can_be_late(self) -> bool:
        """Whether rows may become visible late. Asks the source once; raises SourceError."""
        return can_be_late(self._described())

    def _described(self) -> ServerInfo:
        if self._system is None:
            self._system = self._client.system()
        return self._system

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
            self._counter.check(page.last, position=self.position)
        elif page.done and (reached < self.position or not page.changes):
            # A re-read that stops short proves nothing: rows go with their resource. Only an
            # empty page tells the server's own counter.
            last = max(last, self._checked_counter())
        frontier = max(self.position, reached)
        return MovePage(
            moves=tuple(_moves(page.changes)),
            since=since,
            frontier=frontier,
            done=page.done,
            last=max(last, reached, self.position) if page.done else None,
            newest_date=page.changes[-1].date if page.changes else "",
            missing=self._missing(page.changes, reached),
            refused=sum(_is_refused(row) for row in page.changes if row.sequence > self.position),
            gaps=self._page_gaps(page, since=since, to=frontier),
            lag=self._counter.lag,
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
        if self.filters or self.can_be_late or self.counts_from is None:
            return 0
        begin = max(self.position, self.counts_from)
        return max(0, reached - begin) - sum(row.sequence > begin for row in rows)

    def _page_gaps(self, page: Page, *, since: int, to: int) -> tuple[PageGap, ...] | None:
        if not self.can_be_late:
            return None
        rows = [(row.sequence, row.date) for row in page.changes if row.sequence <= to]
        return page_gaps_of(rows, since=since, to=to, counts_from=self.counts_from)

    def ask(self, ask: Ask) -> MovePage:
        """Read what is there of some gaps, all types of rows. Raises SourceError.

        No more than ASK_WIDTH sequences at once: a wide gap is gone through in steps.
        """
        limit = min(ask.to - ask.since, ASK_WIDTH)
        page = self._client.changes(ask.since, limit, only_new_instances=False)
        rows = [row for row in page.changes if row.sequence <= ask.to]
        cut_short = len(rows) == len(page.changes) and not page.done and rows
        to = rows[-1].sequence if cut_short else ask.to
        found = [(row.sequence, row.date) for row in rows]
        return MovePage(
            moves=tuple(_moves(rows)),
            since=ask.since,
            frontier=to,
            refused=sum(
                _is_refused(row)
                for row in rows
                if any(first <= row.sequence <= last for first, last in ask.gaps)
            ),
            gaps=page_gaps_of(found, since=ask.since, to=to, counts_from=None),
            again=True,
        )

    def read_ahead(self, since: int) -> MovePage:
        """Read rows far beyond the position, out of turn. Raises SourceError."""
        page = self._client.changes(since, self._page_size, only_new_instances=self.filters)
        reached = page.changes[-1].sequence if page.changes else since
        return MovePage(tuple(_moves(page.changes)), since=since, frontier=reached, ahead=True)

    def read_again(self, back_to: int) -> MovePage:
        """Read the rows between ``back_to`` and the position again, and no others.

        Raises SourceError, FeedWentBackwards when the feed ends below the position.
        """
        since = min(back_to, self.position)
        limit = max(1, self.position - since)
        page = self._client.changes(since, limit, only_new_instances=self.filters)
        if not page.changes or page.changes[-1].sequence < self.position:
            self._checked_counter()
        rows = [change for change in page.changes if change.sequence <= self.position]
        return MovePage(
            tuple(_moves(rows)),
            since=since,
            frontier=self.position,
            gaps=self._page_gaps(page, since=since, to=self.position),
        )

    def accept(self, page: MovePage) -> None:
        """Move the position to the end of a page."""
        self.position = max(self.position, page.frontier)

    def _checked_counter(self) -> int:
        page = self._client.changes(self.position, 1, only_new_instances=self.filters)
        if page.changes:
            # It came a moment ago and was not read: the counter says nothing of it.
            return self.position
        self._counter.check(page.last, position=self.position)
        return page.last


def can_be_late(info: ServerInfo) -> bool:
    """Whether rows of its feed may become visible after rows with higher sequences.

    Not with SQLite, which is built in and which one transaction writes at a time. Every database
    of a plugin may let many write at once.
    """
    return info.database_backend is not None


def filters_on_server(info: ServerInfo) -> bool:
    """Whether only new instances are asked for.

    Not of a source whose rows may come late: a sequence that nobody has seen shows only between all
    others. Not of one that recycles its storage: which rows vanished shows only there, too.
    """
    limited = bool(info.maximum_storage_bytes or info.maximum_patient_count)
    recycles = limited and info.maximum_storage_mode != "Reject"
    return info.has_extended_changes and not recycles and not can_be_late(info)


def pages_asked() -> Iterator[int]:
    """Count the pages that are asked for to answer one question. Raises SourceError after the last.

    A source may claim any end, and one row more each time: nobody is asked for ever.
    """
    yield from range(ASKED_PAGES_MAX)
    raise side_error(
        SideName.SOURCE,
        SideProblem.NOT_ORTHANC,
        f"The source's feed has more than {ASKED_PAGES_MAX} pages.",
        advice="Look at GET /changes there: is it an Orthanc? With a higher BRIDGE_PAGE_SIZE "
        "there are fewer pages. The bridge tries again.",
    )


def feed_end(client: FeedClient, *, at_least: int = 0) -> int:
    """Return the last sequence of the feed; the counter where the newest row is below ``at_least``.

    Raises SourceError.
    """
    last = client.last_change().last
    return last if at_least <= last else max(last, counter_beyond(client, at_least))


def check_order(*, start: int | None, end: int | None) -> None:
    """Raise ConfigurationError for a range that ends before it begins: it would hold nothing."""
    if start is not None and end is not None and end < start:
        raise ConfigurationError(
            f"--to {end} is below --from {start}.",
            advice="Give the lower sequence to --from and the higher one to --to.",
        )


def range_end(client: FeedClient, *, start: int | None, end: int | None) -> int:
    """Check a range of changes against the feed; returns its last one.

    ``end`` None: to the end of the feed. ``start`` None: from wherever is next. Raises
    ConfigurationError when the range is beyond the feed, SourceError.
    """
    last = feed_end(client, at_least=max(start or 0, end or 0))
    if (start or 0) > last or (end or 0) > last:
        given = f"{'' if start is None else start}..{'' if end is None else end}"
        raise ConfigurationError(
            f"The range {given} is beyond the feed: its last change is {last}. Nothing was done.",
            advice=f"Choose --from and --to up to {last}.",
        )
    return last if end is None else end


def counter_beyond(client: RowsClient, sequence: int) -> int:
    """Return up to where sequences were given out, or, where rows follow, at least ``sequence``.

    Rows go with their instances, and ``?last`` tells the newest that is left. Raises SourceError.
    """
    page = client.changes(sequence, 1, only_new_instances=False)
    return page.last if not page.changes else max(sequence, page.changes[-1].sequence)


def _is_refused(row: Change) -> bool:
    """Whether a row of a new instance names no identifier of Orthanc's."""
    return row.change_type == NEW_INSTANCE and not row.resource_id


def _moves(changes: Iterable[Change]) -> Iterator[Move]:
    for change in changes:
        if change.change_type == NEW_INSTANCE and change.resource_id:
            yield Move(change.resource_id, change.sequence, change.date)
