"""What is asked of a source of moves, one page at a time, and what its answers bring."""

from __future__ import annotations

import itertools

from bridge.core.errors import SideError
from bridge.core.events import Observer, PageRead
from bridge.core.looks import Looks
from bridge.core.model import Move, SideName
from bridge.endings import Endings
from bridge.entry import Attempts
from bridge.feed import MoveSource
from bridge.feed_reader import MovePage
from bridge.journal import Journal
from bridge.runtime import Answered, Background, Clock
from bridge.servers import Servers
from bridge.sides import failure_of
from bridge.summary import Summary
from bridge.window import Item, Window

SPREAD_MAX = 100_000
"""Sequences that reading may be ahead of the oldest unfinished one: memory stays bounded."""

PAGE = "feed"
"""The name by which answers of the source of moves are known."""


class Reading:
    """Brings moves into the window, and looks at the feed again before a deletion is believed.

    ``summary`` is counted into. ``poke_noted``: a look that was poked for has not begun yet.
    """

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
        endings: Endings,
        background: Background,
        clock: Clock,
        observer: Observer,
        poll_interval_s: float,
    ) -> None:
        self._moves = moves
        self._journal = journal
        self._window = window
        self._servers = servers
        self._endings = endings
        self._background = background
        self._clock = clock
        self._observer = observer
        self._attempts: dict[str, Attempts] = dict(journal.attempts())
        self._looks = Looks(poll_interval_s)
        self._asked = False
        self._confirming = 0
        self.summary = Summary()
        self.poke_noted = False
        self.failed_side: SideName | None = None
        """The side that failed when a page was asked for last."""
        self.ended = False
        """There will be no more moves."""
        self.done = False
        """There were no more moves for now."""
        self.last: int | None = None
        """The newest sequence of the feed that is known of."""
        self.read_at: float | None = None
        """When the last answer came, epoch seconds."""

    @property
    def _may_ask(self) -> bool:
        """Whether there is no answer outstanding, and nothing known to be in its way."""
        needed = {SideName.SOURCE, self.failed_side or SideName.SOURCE}
        return not self._asked and self._servers.reachable(needed)

    def ask(self) -> None:
        """Ask for a look back or a page, if it may and if one is due."""
        now_s = self._clock.steady_s()
        if not self._may_ask:
            return
        if self._endings.missed:
            self._asked = True
            self._confirming = len(self._endings.missed)
            self._background.call(PAGE, self._moves.look_back)
        elif self._wants_page() and now_s >= self._looks.due_s:
            self._asked = True
            self.poke_noted = False  # before the look: whoever pokes from now on asks for another
            self._looks.begin(now_s)
            self._background.call(PAGE, self._moves.next_page)

    def due_s(self) -> list[float]:
        """Return when something is to be asked for, by the steady clock; empty if nothing is."""
        if not self._may_ask:
            return []
        due_s = [self._clock.steady_s()] if self._endings.missed else []
        return [*due_s, self._looks.due_s] if self._wants_page() else due_s

    def poke(self) -> None:
        """Note that something has arrived."""
        self._looks.poke()

    def _wants_page(self) -> bool:
        return not self.ended and self._window.wants_more and self._journal.spread() < SPREAD_MAX

    def take(self, answer: Answered) -> None:
        """Take an answer. Raises FeedWentBackwards, and whatever else was a bug there."""
        self._asked = False
        confirmed, self._confirming = self._confirming, 0
        match answer.error:
            case None:
                pass
            case SideError() as error:
                self.failed_side = error.side
                self._servers.fail(failure_of(error))
                return
            case error:
                raise error
        page = answer.value if isinstance(answer.value, MovePage) else MovePage(())
        admission = self._journal.admit(page)
        if self.failed_side is not None:
            self._servers.open(self.failed_side)
            self.failed_side = None
        self.read_at = self._clock.now_s()
        if page.last is not None:
            self.last = page.last
        self._add(page, [self._item(move) for move in admission.moves], confirmed=confirmed)
        self.summary.late += admission.late
        self.summary.missing += page.missing
        if admission.moves or page.missing:
            new, late = len(admission.moves), admission.late
            self._observer.on_event(PageRead(new, late, page.frontier, page.missing))

    def _add(self, page: MovePage, items: list[Item], *, confirmed: int) -> None:
        if confirmed:
            self._window.add(items)
            self._endings.settle_missed(confirmed)
        elif page.ahead:
            # Fresh arrivals go before the backlog.
            self._window.add_first(items)
        else:
            self._window.add(items)
            self.ended = page.ended
            self.done = page.done
            self._looks.end(self._clock.steady_s(), idle=page.done)

    def _item(self, move: Move) -> Item:
        spent = self._attempts.pop(move.instance_id, Attempts(0, 0.0))
        if move.sequence is not None:
            self._endings.changed_at[move.sequence] = move.changed_at
        return Item(next(self._numbers), move, spent.attempts, spent.first_failed_at)
