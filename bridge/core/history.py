"""Tell whether the feed is still the one we followed, and which of its rows came late (G6).

This file must not know: sockets, files, clocks, logging, settings.

Two things are compared on every re-read of the feed's end: rows that we remember must still have
the same instance behind the same sequence, and rows that we do not remember must lie beyond
what we had read. A row below that was not visible when we passed it: some databases let a lower
sequence become visible after a higher one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bridge.core.errors import FeedWentBackwards
from bridge.core.model import Move

RESET_ADVICE = (
    "Decide what to do: set BRIDGE_ON_FEED_RESET=snapshot to move everything that the target "
    "lacks and follow the new feed, or give the old source back. See docs/operations.md."
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a page says about the past. ``difference`` is "" while the history is the same."""

    fresh: tuple[Move, ...]
    late: tuple[Move, ...]
    difference: str


def another_history(difference: str) -> FeedWentBackwards:
    """Return the error for a feed that differs from the one that was followed."""
    return FeedWentBackwards(
        f"The source's feed has another history: {difference}.", advice=RESET_ADVICE
    )


def contradiction(moves: Iterable[Move], rows: Mapping[int, str]) -> str:
    """Say which sequence has another instance than in ``rows``; "" when none has."""
    for move in moves:
        known = rows.get(move.sequence or 0)
        if known is not None and known != move.instance_id:
            return f"change {move.sequence} was instance {known}, it is {move.instance_id} now"
    return ""


class History:
    """Rows of the feed seen lately: sequence -> instance ID.

    ``floor``: rows at or below it were never ours to move; those that were there when we began
    tell the history all the same. ``overlap``: how many sequences back
    the feed is read again. ``newest_date``: the latest date of any row read in order.
    """

    def __init__(
        self, rows: Mapping[int, str], *, floor: int, overlap: int, newest_date: str = ""
    ) -> None:
        self.newest_date = newest_date
        self._rows = dict(rows)
        self._floor = floor
        self._overlap = overlap

    def remember(self, moves: Iterable[Move]) -> None:
        """Note rows as seen."""
        for move in moves:
            if move.sequence is not None:
                self._rows[move.sequence] = move.instance_id

    def saw(self, date: str) -> None:
        """Note the date of a row that was read in order."""
        self.newest_date = max(self.newest_date, date)

    def keep_from(self, frontier: int) -> int:
        """Return the lowest sequence worth remembering when read up to ``frontier``."""
        return frontier - 2 * self._overlap

    def forget_below(self, sequence: int) -> None:
        """Forget rows below ``sequence``: memory stays bounded by twice the overlap."""
        if len(self._rows) > 4 * self._overlap:
            self._rows = {s: i for s, i in self._rows.items() if s >= sequence}

    def compare(self, moves: Iterable[Move], *, since: int, frontier: int) -> Comparison:
        """Split a page that was read from ``since`` when we had read up to ``frontier``.

        The history is another one when a remembered sequence now has another instance, or when
        the re-read part has rows, all of them unknown, where we remember some, and they are
        younger than what we had read: sequences are given in the order of time, so a row that is
        merely late is older than the rows above it. (That all we remember is gone proves nothing:
        the rows of deleted instances go too.)
        """
        moves = tuple(moves)
        difference = contradiction(moves, self._rows)
        if difference:
            return Comparison((), (), difference)
        fresh: list[Move] = []
        late: list[Move] = []
        strangers: list[Move] = []
        same = 0
        for move in moves:
            sequence = move.sequence
            if sequence is None:
                continue
            if sequence in self._rows:
                same += 1
            elif sequence <= self._floor:
                strangers.append(move)
            elif sequence > frontier:
                fresh.append(move)
            elif sequence >= self.keep_from(frontier):
                late.append(move)
        unknown = (*late, *strangers)
        younger = [move for move in unknown if not "" < move.changed_at <= self.newest_date]
        if younger and not same and self._remembers(since, frontier):
            text = f"none of the changes remembered between {since} and {frontier} is there now"
            return Comparison((), (), text)
        return Comparison(tuple(fresh), tuple(late), "")

    def _remembers(self, since: int, frontier: int) -> bool:
        return any(since < sequence <= frontier for sequence in self._rows)
