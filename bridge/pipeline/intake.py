"""What is asked of a source of moves, one page at a time, and what its answers bring."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from enum import Enum, auto
from functools import partial

from bridge.errors import SideError, failure_of
from bridge.events import GapsClosed, Observer, PageRead
from bridge.feed.pages import MovePage
from bridge.feed.polling import POKED_LOOK_GAP_S, PollTimer
from bridge.feed.sources import MoveSource
from bridge.ledger.records import Attempts, Parked
from bridge.model import Move, SideName
from bridge.pipeline.journal import Journal
from bridge.pipeline.outcomes import Outcomes
from bridge.pipeline.runtime import Answered, Background, Clock
from bridge.pipeline.server_gates import Servers
from bridge.pipeline.urgency import Urgency
from bridge.pipeline.window import SUSPECT_AFTER_OUTAGES, Window, WorkItem

SPREAD_MAX = 100_000
"""Sequences that reading may be ahead of the oldest unfinished one: memory stays bounded."""
WAITING_MAX = 5_000
"""While so many wait, nothing is read of new arrivals either: they would be the next backlog."""

NEVER_S = float("inf")
ASK_PAUSE_S = 0.05
"""Time between two questions about gaps: they come beside the looks, and must not crowd them."""

FEED = "feed"
"""The name by which answers of the source of moves are known."""


class Question(Enum):
    """What the source of moves is being asked for. It is asked one thing at a time."""

    PAGE = auto()
    """The next page."""
    NEWEST = auto()
    """The newest sequence of the feed, and what came since reading fell behind."""
    GAPS = auto()
    """What is there now of sequences that had no row."""
    LOOK_BACK = auto()
    """What was read last, once more, before a deletion is believed."""


class Intake:
    """Asks the source of moves for pages, and brings their moves into the window."""

    _numbers = itertools.count()
    """Shared by all pipelines of the process: what an earlier one abandoned may still end, in the
    same workers, and must not be taken for something of this one."""

    def __init__(
        self,
        *,
        moves: MoveSource,
        journal: Journal,
        window: Window,
        servers: Servers,
        outcomes: Outcomes,
        urgency: Urgency,
        background: Background,
        clock: Clock,
        observer: Observer,
        poll_interval_s: float,
    ) -> None:
        self._moves = moves
        self._journal = journal
        self._window = window
        self._servers = servers
        self._outcomes = outcomes
        self._urgency = urgency
        self._background = background
        self._clock = clock
        self._observer = observer
        self._attempts: dict[str, Attempts] = dict(journal.attempts())
        self._poll_timer = PollTimer(poll_interval_s)
        self._poll_interval_s = poll_interval_s
        self._newest_due_s = clock.steady_s() + poll_interval_s
        """When the end of the feed is asked for, unless a page tells of it before."""
        self._question: Question | None = None
        """What it is being asked for, until the answer is taken."""
        self._poked = False
        """The loop has been told of a poke, and the look that it asks for has not begun."""
        self._ended = False
        self._gaps_were_last = False
        """Gaps were asked for after the last page: they take turns."""
        self._asked_gaps_s = float("-inf")
        self.failed_side: SideName | None = None
        """The server that failed when the source of moves was asked last."""
        self._failed_question: Question | None = None
        """What it was being asked for then."""
        self.done = False
        """The last page had no more moves behind it."""
        self.last: int | None = None
        """The newest sequence of the feed, a poll interval old at most while the source answers."""
        self.read_at: float | None = None
        """When the last good answer came, epoch seconds."""

    @property
    def ended(self) -> bool:
        """Whether there will be no more moves, from gaps either."""
        return self._ended and not self._journal.waits()

    @property
    def _may_ask(self) -> bool:
        """Whether there is no answer outstanding, and the source is not known to be down."""
        return self._question is None and self._servers.reachable([SideName.SOURCE])

    @property
    def _may_take_moves(self) -> bool:
        """Whether nothing is known to be in the way of moves: a page may need the target too."""
        return self.failed_side is None or self._servers.reachable([self.failed_side])

    def ask(self) -> None:
        """Ask for a look back or a page, if it may and if one is due."""
        now_s = self._clock.steady_s()
        if not self._may_ask:
            return
        may_take = self._may_take_moves
        if may_take and self._outcomes.wants_look_back:
            self._outcomes.begin_look_back()
            self._call(Question.LOOK_BACK, self._moves.look_back)
            return
        page_due = may_take and self._wants_look(now_s)
        if now_s >= self._newest_due_s and not self._ended and not (self.done and page_due):
            # The lag that is told must be true, however long the backlog and whatever is held back.
            # At the end of the feed a page tells it.
            takes = may_take and self._has_room
            self._poked = self._poked and (self.done or not takes)
            self._call(Question.NEWEST, partial(self._moves.newest, ahead=takes))
        elif may_take and self._wants_gaps(now_s):
            ask = self._journal.ask()
            if ask is not None:
                self._gaps_were_last = True
                self._asked_gaps_s = now_s
                self._call(Question.GAPS, partial(self._moves.ask_again, ask))
        elif page_due:
            self._gaps_were_last = False
            self._poked = False  # before the look: a poke from now on asks for another one
            self._poll_timer.begin(now_s)
            self._call(Question.PAGE, self._moves.next_page)

    def _call(self, question: Question, function: Callable[[], MovePage]) -> None:
        self._question = question
        self._background.call(FEED, function)

    def due_s(self) -> list[float]:
        """Return when something is to be asked for, by the steady clock; empty if nothing is."""
        if not self._may_ask:
            return []
        due_s = [] if self._ended else [self._newest_due_s]
        if not self._may_take_moves:
            return due_s
        if self._outcomes.wants_look_back:
            due_s.append(self._clock.steady_s())
        gaps_due_s = self._gaps_due_s()
        if gaps_due_s is not None:
            due_s.append(gaps_due_s)
        return [*due_s, self._poll_timer.due_s] if self._wants_page() else due_s

    def _wants_look(self, now_s: float) -> bool:
        return self._wants_page() and now_s >= self._poll_timer.due_s

    def _wants_gaps(self, now_s: float) -> bool:
        """Whether gaps are to be asked for now: they and looks that are due take turns."""
        due_s = self._gaps_due_s()
        if due_s is None or now_s < due_s:
            return False
        return not (self._gaps_were_last and self._wants_look(now_s))

    def _gaps_due_s(self) -> float | None:
        due_s = self._journal.ask_due_s() if self._window.wants_more else None
        return None if due_s is None else max(due_s, self._asked_gaps_s + ASK_PAUSE_S)

    def note_poke(self) -> bool:
        """Note a poke, in any thread. True when the loop is to be told of it.

        However often it is poked, the loop is told once for each look that it begins.
        """
        told, self._poked = self._poked, True
        return not told

    def poke(self) -> None:
        """Look soon: something has arrived."""
        self._poll_timer.poke()
        if not self.done:
            soon_s = self._clock.steady_s() + POKED_LOOK_GAP_S
            self._newest_due_s = min(self._newest_due_s, soon_s)

    def _wants_page(self) -> bool:
        """Whether a page is to be read, once it is due: behind the end of the feed it is at once.

        At its end new arrivals are looked for, however many others wait: they go before a backlog.
        """
        wants = self._window.wants_more or (self.done and self._has_room)
        return not self._ended and wants and self._journal.spread() < SPREAD_MAX

    @property
    def _has_room(self) -> bool:
        return self._window.waiting < WAITING_MAX

    def take(self, answer: Answered) -> None:
        """Take an answer. Raises FeedWentBackwards, and whatever else was a bug there."""
        question, self._question = self._question, None
        if isinstance(answer.error, SideError):
            self._fail(answer.error, question)
            return
        if answer.error is not None:
            raise answer.error
        page = answer.value if isinstance(answer.value, MovePage) else MovePage(())
        newest_only = question is Question.NEWEST
        admission = None if newest_only and not page.moves else self._journal.admit(page)
        if self.failed_side is not None and question in (Question.PAGE, self._failed_question):
            # A source that fails at pages may answer all other questions well.
            self._servers.open(self.failed_side)
            self.failed_side = None
        self.read_at = self._clock.now_s()
        if page.last is not None:
            # Rows go with their resource: only a page at the end knows the source's own counter.
            self.last = page.last if page.done else max(page.last, self.last or 0)
        if newest_only or (page.done and page.last is not None):
            # Where there is no feed nobody need ask again.
            wait_s = NEVER_S if page.last is None else self._poll_interval_s
            self._newest_due_s = self._clock.steady_s() + wait_s
        if admission is None:
            return
        items = [self._item(move) for move in admission.moves]
        self._urgency.expect(items)
        if question is Question.LOOK_BACK:
            self._window.add(items)
            self._outcomes.end_look_back(same_source=True)
        else:
            self._add(page, items)
        closed = admission.closed
        missing = page.missing + closed.missing
        if closed.any():
            self._observer.on_event(GapsClosed(closed.filled, closed.expired, closed.given_up))
        if admission.moves or missing or page.refused:
            new, late = len(admission.moves), admission.late
            read = PageRead(new, late, page.frontier, missing, page.refused)
            self._observer.on_event(read)

    def _fail(self, error: SideError, question: Question | None) -> None:
        if question is Question.LOOK_BACK:
            self._outcomes.end_look_back(same_source=False)
        self.failed_side = error.side
        self._failed_question = question
        # What needs the target was read and is not handed out: there is more.
        self.done = self.done and error.side is SideName.SOURCE
        self._servers.fail(failure_of(error))

    def _add(self, page: MovePage, items: list[WorkItem]) -> None:
        if (page.ahead or page.again or self.done) and self._servers.fail_at_work:
            # It may be served where all that was tried has failed. One that was sent again was
            # tried: it waits for its turn.
            failed = self._outcomes.failed_instances()
            self._window.add_new(item for item in items if item.move.instance_id not in failed)
            self._window.add(item for item in items if item.move.instance_id in failed)
        elif page.again:
            self._window.add_first(items)
        elif page.ahead or (page.done and self.done):
            # New arrivals go before the backlog.
            self._window.add_fresh(items)
        else:
            self._window.add(items)
        if not (page.ahead or page.again):
            self._ended = page.ended
            self.done = page.done
            self._poll_timer.end(self._clock.steady_s(), idle=page.done)

    def item_of(self, parked: Parked, *, alone: bool) -> WorkItem:
        """Return the item of a parked instance that is tried again, beside the feed.

        ``alone``: nothing else may be under way meanwhile.
        """
        return WorkItem(
            next(self._numbers),
            Move(parked.move.instance_id, None, parked.move.changed_at),
            first_failed_at=parked.first_failed_at,
            outages=SUSPECT_AFTER_OUTAGES if alone else 0,
            parked=parked,
            read_at=self._clock.now_s(),
        )

    def _item(self, move: Move) -> WorkItem:
        spent = self._attempts.pop(move.instance_id, Attempts(0, 0.0))
        self._outcomes.expect(move)
        return WorkItem(
            next(self._numbers),
            move,
            spent.attempts,
            spent.first_failed_at,
            read_at=self._clock.now_s(),
        )
