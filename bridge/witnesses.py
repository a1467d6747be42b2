"""Tells whether rows of the feed were deleted before anybody had read them.

``DELETE /changes`` at the source empties the feed and leaves the instances. What had been read is
no loss; what had not would be passed over in silence. Rows also go with their instances, one by
one: that is no loss either, and is told apart by asking for the instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from bridge.core.errors import FeedWentBackwards
from bridge.core.history import another_history, contradiction
from bridge.core.model import Move, Page
from bridge.feed_reader import NEW_INSTANCE, RowsClient, last_row_there

REMEMBERED = 64
"""Rows; of more than the last few nothing new can be learnt."""
ASKED = 8
"""Instances that are asked for when none of the remembered rows is there any more."""
SCANNED = 1000
"""Sequences of the feed that are read at once to find instances that were sent anew."""


ADVICE = (
    "Set BRIDGE_ON_FEED_RESET=snapshot to move everything that the target lacks and follow on. "
    "See docs/operations.md."
)


class Witnessed(RowsClient, Protocol):
    """What is needed of a source."""

    def last_change(self) -> Page:
        """Return the newest row."""

    def has_instance(self, instance_id: str) -> bool:
        """Tell whether the source holds an instance."""


class Witnesses:
    """The rows read last. ``rows``: those of an earlier run, sequence -> instance ID."""

    def __init__(self, client: Witnessed, rows: Mapping[int, str]) -> None:
        self._client = client
        self._rows: dict[int, str] = dict(sorted(rows.items())[-REMEMBERED:])

    def saw(self, moves: Iterable[Move]) -> None:
        """Remember rows that were read in order."""
        for move in moves:
            if move.sequence is not None:
                self._rows[move.sequence] = move.instance_id
        if len(self._rows) > REMEMBERED:
            self._rows = dict(sorted(self._rows.items())[-REMEMBERED:])

    def recognise(self, moves: Iterable[Move], *, up_to: int) -> bool:
        """Tell whether one of the rows up to a sequence is one that is remembered."""
        rows = self._rows
        return any(
            m.sequence <= up_to and rows.get(m.sequence) == m.instance_id
            for m in moves
            if m.sequence is not None
        )

    def check(
        self, moves: Iterable[Move], *, since: int, covered: int | None, read_to: int
    ) -> None:
        """Compare the rows with since < sequence <= covered with what is remembered.

        ``covered``: None for all there are. ``read_to``: up to there nothing was unread or, after
        a restart, unfinished; rows beyond it that were finished are remembered too. Raises
        SourceError, FeedWentBackwards.
        """
        again = {move.sequence: move.instance_id for move in moves}
        end = max(self._rows, default=0) if covered is None else covered
        gone = {s: i for s, i in self._rows.items() if since < s <= end}
        if not gone:
            gone = self._far_back(since)
        # A row that is still there acquits those above it only: whoever empties the feed deletes
        # all below, and rows far beyond may have been read out of turn since.
        lowest = max(read_to, min(gone, default=0))
        if not gone or any(sequence in again for sequence in gone if sequence <= lowest):
            return
        # An instance that was sent anew has a row elsewhere and no longer the one we remember.
        sent_anew = set(again.values())
        asked = [gone[s] for s in sorted(gone, reverse=True) if gone[s] not in sent_anew][:ASKED]
        if not any(self._client.has_instance(instance_id) for instance_id in asked):
            return
        page = self._client.changes(read_to, 1, only_new_instances=False)
        first = page.changes[0].sequence if page.changes else page.last + 1
        if first > read_to + 1 and self._unaccounted(gone.values(), after=min(gone)):
            raise FeedWentBackwards(
                f"The source's feed was emptied: changes {read_to + 1} to {first - 1} were deleted "
                "before they were read, and which instances they named cannot be told.",
                advice=ADVICE,
            )

    def _unaccounted(self, instances: Iterable[str], *, after: int) -> bool:
        """Tell whether the source holds one of these without a row for it after a sequence.

        One that was overwritten, or deleted and sent anew, has its row there, far beyond what was
        read perhaps, and most likely near the end of the feed.
        """
        left = set(instances)
        for _ in range(2):  # what is deleted or sent anew meanwhile is told apart the second time
            left = {instance_id for instance_id in left if self._client.has_instance(instance_id)}
            end = self._client.last_change().last
            while left and end > after:
                since = max(after, end - SCANNED)
                page = self._client.changes(since, end - since, only_new_instances=True)
                left -= {row.resource_id for row in page.changes if row.change_type == NEW_INSTANCE}
                end = since
        return bool(left)

    def _far_back(self, since: int) -> dict[int, str]:
        """Return the remembered rows, all at or below ``since``, if the last of them are gone.

        One that is still there acquits: those after it went with their instances.
        """
        if max(self._rows, default=0) > since:
            return {}
        there = last_row_there(self._client, self._rows)
        if there is None:
            return self._rows
        difference = contradiction([there], self._rows)
        if difference:
            raise another_history(difference)
        return {}
