"""Finds the studies to which instances have come that wait to be moved.

A study learns of an instance when that has come to its end. Until then a study that was stable
would be called stable, for as long as the backlog, a pause or an outage lasts. So what has waited
in the feed for some seconds is looked up at the source, which names the studies of many instances
at once. What is moved at once, as in a bridge without a backlog, is not looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from bridge.feed.pages import NEW_INSTANCE
from bridge.ledger.outbox import EventLedger
from bridge.model import Page
from bridge.pipeline.runtime import Clock

WAITING_S = 3.0
"""What has been in the feed for less is about to be moved, unless something is in the way."""
ROWS_AT_ONCE = 1000
ASKED_AT_ONCE = 400
"""Instances in one question: as many as a client takes."""


class ArrivalSource(Protocol):
    """What is asked of the source."""

    def changes(self, since: int, limit: int) -> Page:
        """Return the rows after ``since``."""

    def studies_of(self, instance_ids: Sequence[str]) -> frozenset[str] | None:
        """Return the Orthanc IDs of the studies of instances; None where that is not answered."""


class Arrivals:
    """Notes in the ledger which studies are to grow. For one thread.

    ``newest``: the newest sequence of the feed that the follower knows of; None while it knows of
    none.
    """

    def __init__(
        self, source: ArrivalSource, newest: Callable[[], int | None], *, clock: Clock
    ) -> None:
        self._source = source
        self._newest = newest
        self._clock = clock
        self._noted: int | None = None
        """The newest sequence as it was some seconds ago."""
        self._noted_s = clock.steady_s()
        self._waiting_to = 0
        """What is unsettled up to there has waited for some seconds."""
        self._looked_to = 0
        """Rows up to there were looked at."""

    def turn(self, ledger: EventLedger) -> None:
        """Look at some rows that wait. Raises SourceError, StateError."""
        newest, checkpoint = self._newest(), ledger.checkpoint()
        if newest is None or checkpoint is None:
            return
        self._note(newest)
        since = max(checkpoint, self._looked_to)
        if since >= self._waiting_to:
            return
        page = self._source.changes(since, ROWS_AT_ONCE)
        rows = [row for row in page.changes if row.change_type == NEW_INSTANCE and row.resource_id]
        instances = list(dict.fromkeys(row.resource_id for row in rows))
        for start in range(0, len(instances), ASKED_AT_ONCE):
            studies = self._source.studies_of(instances[start : start + ASKED_AT_ONCE])
            if studies:
                ledger.expect_more(studies)
        self._looked_to = page.changes[-1].sequence if page.changes else self._waiting_to

    def _note(self, newest: int) -> None:
        if newest < self._looked_to:
            self._looked_to = self._waiting_to = 0  # it is another feed
            self._noted = None
        now_s = self._clock.steady_s()
        if self._noted is None or now_s - self._noted_s >= WAITING_S:
            self._waiting_to = max(self._waiting_to, self._noted or 0)
            self._noted, self._noted_s = newest, now_s
